"""Average the weights over the steps, to be evaluated beside the raw weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from optbench.common.errors import UserError, blame, check_choice
from optbench.models import drawing_layers
from optbench.problem import Problem
from optbench.training.batch_statistics import recompute
from optbench.training.recipes.checks import check_share

KINDS = ("ema", "tail", "swa")


@dataclass(frozen=True)
class Averaging:
    """Which average of the weights is evaluated; kind None: none.

    kind: "ema", an exponential moving average after each step, of weights and buffers.
    "tail", the mean of the weights after each of the last steps. "swa", stochastic weight
    averaging (Izmailov et al. 2018): the mean of the weights at the end of each of the last epochs.
    decay: of ema. start: the share of the budget's steps after which tail and swa begin.
    """

    kind: str | None = None
    decay: float = 0.999
    start: float = 0.75

    def __post_init__(self) -> None:
        if self.kind is not None:
            check_choice("averaging.kind", self.kind, KINDS)
        if self.decay == 1 and not isinstance(self.decay, bool):
            raise UserError(
                "averaging.decay=1 would keep the first weights for ever: it must be at least 0 "
                "and below 1, as 0.999"
            )
        check_share("averaging.decay", self.decay, "of the moving average, as 0.999")
        check_share("averaging.start", self.start, "a share of the budget's steps, as 0.75")


class AveragedWeights:
    """The averaged weights of one training, in a copy of its model."""

    def __init__(self, settings: Averaging, problem: Problem, model: nn.Module, seed: int) -> None:
        """Copy the model. Raises `UserError` for a model that cannot be copied."""
        self.settings, self.problem, self.seed = settings, problem, seed
        self.first_step = int(settings.start * problem.total_steps) + 1  # of tail and swa
        ema = settings.kind == "ema"
        with _without_generators(model), blame("averaging copies the model, which failed"):
            self.averaged = AveragedModel(
                model,
                multi_avg_fn=get_ema_multi_avg_fn(settings.decay) if ema else None,
                use_buffers=ema,
            )

    @property
    def begun(self) -> bool:
        """Return whether any weights are in the average."""
        return bool(self.averaged.n_averaged)

    def see(self, model: nn.Module, step: int) -> None:
        """Take the weights after a step into the average, if they belong to it."""
        if self.settings.kind != "ema" and step < self.first_step:
            return
        ends = step % self.problem.steps_per_epoch == 0 or step == self.problem.total_steps
        if self.settings.kind != "swa" or ends:
            self.averaged.update_parameters(model)

    def model(self, x: Tensor) -> nn.Module:
        """Return the model with the averaged weights, in evaluation mode.

        x: the training examples. For tail and swa they give batch norm new statistics, since those
        of the raw model belong to other weights. Call this method within a random stream.
        """
        module: nn.Module = self.averaged.module
        if self.settings.kind != "ema":
            recompute(self.problem, module, x, self.seed)
        return module.eval()

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and their number."""
        return dict(self.averaged.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the averaged weights."""
        self.averaged.load_state_dict(state)


@contextmanager
def _without_generators(model: nn.Module) -> Iterator[None]:
    """Take the generators out of the model: not every version of torch copies them."""
    kept = [(layer, layer.generator) for _, layer in drawing_layers(model)]
    for layer, _ in kept:
        layer.generator = None
    try:
        yield
    finally:
        for layer, generator in kept:
            layer.generator = generator
