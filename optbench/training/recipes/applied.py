"""Apply a recipe in one training, and save the state of its parts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.formats.run import AVERAGED
from optbench.problem import Problem
from optbench.training.evaluation import Row
from optbench.training.recipes import Recipe
from optbench.training.recipes.augmentation import Augmenter
from optbench.training.recipes.averaging import AveragedWeights
from optbench.training.recipes.decay import Decay
from optbench.training.recipes.endings import Endings
from optbench.training.recipes.gradients import Gradients, scaler_of


class AppliedRecipe:
    """The parts of a recipe in one training.

    gradients: make the gradients of a step. endings: say whether the run ends early. augmenter,
    averaged: None where nothing is augmented or averaged.
    """

    def __init__(
        self, recipe: Recipe, problem: Problem, model: nn.Module, seed: int, device: torch.device
    ) -> None:
        """Make the parts for a model on its device.

        Raises `UserError` for a model that cannot be copied, which averaging needs.
        """
        self.gradients = Gradients(
            accumulate=recipe.accumulate,
            clip_norm=recipe.clip_norm,
            clip_value=recipe.clip_value,
            batch_examples=problem.batch_examples,
            scaler=scaler_of(problem, device),
        )
        self.decay_form = recipe.decay_form
        self.augmenter = Augmenter(recipe.augment, seed, device) if recipe.augment else None
        self.averaged: AveragedWeights | None = None
        if recipe.averaging.kind:
            self.averaged = AveragedWeights(recipe.averaging, problem, model, seed)
        self.endings = Endings(recipe.early_stopping, recipe.stop_at, recipe.budget_seconds)

    def take_decay(self, optimizer: Optimizer) -> None:
        """Take over weight decay from a new optimizer, if the recipe names a form."""
        if self.decay_form is not None:
            self.gradients.decay = Decay(self.decay_form, optimizer)

    def augmented(self, x: Tensor) -> Tensor:
        """Return a batch as the recipe augments it."""
        return x if self.augmenter is None else self.augmenter(x)

    def see_step(self, model: nn.Module, step: int) -> None:
        """Take the weights after a step into the average."""
        if self.averaged is not None:
            self.averaged.see(model, step)

    def averaged_scores(self, score: Callable[[nn.Module], Row], x: Tensor) -> Row:
        """Return the scores of the averaged weights, {} before the average has begun.

        x: the training examples. Call it within a random stream.
        """
        if self.averaged is None or not self.averaged.begun:
            return {}
        found = score(self.averaged.model(x))
        return {f"{AVERAGED}{name}": value for name, value in found.items()}

    def reason_to_end(self, row: Row, *, last: bool) -> str | None:
        """Return why a run ends with an evaluation; see `Endings.reason`."""
        return self.endings.reason(row, last=last)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all parts, as tensors and plain values."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of all parts."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"endings": self.endings, "scaler": self.gradients.scaler}
        parts |= {"augmentation": self.augmenter, "averaged": self.averaged}
        return {name: part for name, part in parts.items() if part is not None}
