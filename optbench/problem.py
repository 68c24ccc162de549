"""A problem: the loss to minimise, the initial weights, the batches, the budget."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import ceil
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from optbench import trial
from optbench.common.errors import UserError, call_of, refusals
from optbench.datasets.prepare import Dataset
from optbench.initializers import fill, initialize
from optbench.model_calls import call_model
from optbench.streams import Stream, stream


@dataclass(frozen=True)
class Problem:
    """One training problem; with an optimizer and a seed it makes a run.

    model: `(input_shape, classes)` to a module that gives logits, or, if the dataset has no
        classes, any outputs that the loss takes. `optbench.model_calls` says how other signatures
        are called.
    loss: `(outputs, targets)` to a scalar tensor, averaged over the examples.
    initializer: `(module, generator)`, fills the weights in place. By default the layers keep what
        torch gives them; `partial(optbench.initializers.initialize,
        weight=torch.nn.init.kaiming_normal_)` takes a function of torch's.
    batch_size: examples per step, or "full" for batch gradient descent.
    epochs, steps: the budget; exactly one of the two.
    shuffle: "every_epoch", or "fixed_order" to replay one permutation in each epoch.
    precision: "float32"; "bfloat16" for autocast; "float16" for autocast with a scaled loss, on
        CUDA; "float64" for weights, examples and sums, from the initial weights and examples of
        float32.
    weight_penalty: adds weight_penalty / 2 * |w|^2 over the weights of layers to every loss.
    drop_last: use whole batches only. An epoch leaves out its last, smaller batch. Validation and
        test use the first examples that make whole batches, as DeepOBS does. The training loss is
        over all training examples.
    """

    dataset: Dataset
    model: Callable[[tuple[int, ...], int], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    initializer: Callable[[nn.Module, torch.Generator], None] = initialize
    batch_size: int | str = 128
    epochs: int | None = 10
    steps: int | None = None
    shuffle: str = "every_epoch"
    precision: str = "float32"
    weight_penalty: float = 0.0
    drop_last: bool = False

    def __repr__(self) -> str:
        budget = f"steps={self.steps}" if self.epochs is None else f"epochs={self.epochs}"
        named = {key: call_of(getattr(self, key)) for key in ("model", "loss", "initializer")}
        parts = ", ".join(f"{key}={name}" for key, name in named.items())
        return f"Problem({self.dataset!r}, {parts}, batch_size={self.batch_size}, {budget})"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise UserError(
                "give either epochs or steps, and None for the other (epochs is 10 by default)"
            )
        budget = self.steps if self.epochs is None else self.epochs
        if not isinstance(budget, int) or budget < 1:
            name = "steps" if self.epochs is None else "epochs"
            raise UserError(f"{name} must be a whole number above 0, not {budget!r}")
        for name in ("model", "loss", "initializer"):
            value = getattr(self, name)
            if not callable(value):
                raise UserError(f"{name} must be a function, not {value!r}")
        if isinstance(self.loss, type):
            called = f"{self.loss.__name__}()"
            raise UserError(f"loss is a class, whose instances are the losses: write {called}")
        if not hasattr(self.dataset, "input_shape"):
            raise UserError(
                f"dataset is a {type(self.dataset).__name__}; optbench.prepare makes one of arrays"
            )
        size = self.batch_size
        if size != "full" and (isinstance(size, str) or size < 1):
            raise UserError(f"batch_size must be at least 1, or 'full', not {size!r}")

    @property
    def batch_examples(self) -> int:
        """Return the number of examples in a whole batch."""
        examples = self.dataset.epoch_examples
        return examples if self.batch_size == "full" else min(int(self.batch_size), examples)

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of batches in one pass over the training set."""
        examples, size = self.dataset.epoch_examples, self.batch_examples
        if self.batch_size == "full":
            return 1
        if self.drop_last:
            return examples // size
        # A last batch of one example joins the one before: batch norm has no variance of one
        # example, and every model must see the same batches.
        return ceil(examples / size) - (1 < size < examples and examples % size == 1)

    @property
    def total_steps(self) -> int:
        """Return the budget in steps."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * self.steps_per_epoch


def weight_penalty(problem: Problem, model: nn.Module) -> Tensor:
    """Return weight_penalty / 2 * |w|^2 over the weights, without biases and norms."""
    weights = [p for p in model.parameters() if p.ndim >= 2]
    if not weights:
        raise UserError(
            "weight_penalty has nothing to penalise: the model has no weights of layers"
        )
    return problem.weight_penalty / 2 * torch.stack([p.square().sum() for p in weights]).sum()


def build_model(
    problem: Problem,
    seed: int,
    around_trial: Callable[..., AbstractContextManager[object]] = nullcontext,
) -> nn.Module:
    """Return the problem's model on the CPU with the initial weights of `seed`.

    The weights depend on the seed alone, so every optimizer starts from the same ones. A trial of a
    few examples checks that the model and the loss fit.
    """
    data = problem.dataset
    generator = stream(seed, "weights")

    def make() -> nn.Module:
        told: dict[str, Any] = {**data.task.told_models}
        if data.nominal:
            told["cardinalities"] = data.nominal
        return call_model(problem.model, data.input_shape, data.classes, data.vocabulary, told)

    # a model or an initializer may draw from the global generators: seed these too
    with Stream(seed, "weights"):
        with refusals(f"the model {call_of(problem.model)} cannot be built"):
            model = make()
            _check_new(model)
        trial.make_lazy_weights(model, data)
        with refusals(f"the initializer {call_of(problem.initializer)} does not fill the model"):
            fill(problem.initializer, model, generator)
        with around_trial((model, problem.loss)):
            trial.check_fit(model, data, problem.loss, problem.batch_size, make)
    return model


_made: "WeakSet[nn.Module]" = WeakSet()  # layers with weights of all models in this process


def _check_new(model: nn.Module) -> None:
    """Raise TypeError if a layer belongs to another run, which would train it too."""
    own = [m for m in model.modules() if [*m.parameters(recurse=False), *m.buffers(recurse=False)]]
    if used := [m for m in own if m in _made]:
        raise TypeError(
            f"its function gives the same {type(used[0]).__name__} at every call, and each run "
            f"needs layers of its own: make them inside the function"
        )
    _made.update(own)


def identity(description: Mapping[str, Any]) -> str:
    """Return twelve hex digits that are equal for equal content, in any key order."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
