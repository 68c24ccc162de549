"""Training from Python: `train` selects an engine and yields the loop's updates."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench.problem import Problem
from optbench.runner.engine import AUTO, factory
from optbench.training.loop import Training
from optbench.training.recipes import Recipe
from optbench.training.steps import Update


def train(
    problem: Problem,
    optimizer: Callable[..., Optimizer],
    *,
    seed: int = 0,
    schedule: Callable[[Optimizer, int], LRScheduler | None] | None = None,
    decay_biases_and_norms: bool = True,
    device: torch.device | str = "cpu",
    log_every: int = 10,
    eval_every: int = 1,
    eval_train_examples: int | None = None,
    eval_test: str = "each",
    layers: bool = False,
    layers_every: int | None = None,
    channels_last: bool = True,
    engine: str = AUTO,
    recipe: Recipe | None = None,
    log_optimizer: Sequence[str] = (),
    sharpness: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Update]:
    """Train and yield updates; the first holds the evaluation before the first step.

    problem: the loss, the data, the batches and the budget.
    optimizer: from parameters to an optimizer, such as `partial(torch.optim.Adam, lr=1e-3)`.
    seed: sets the weights, the order of the batches, and the draws of model and optimizer.
    schedule: from the optimizer and the total number of steps to a learning rate schedule.
    decay_biases_and_norms: whether weight decay applies to biases and norms too.
    device: "cpu", "cuda" or "cuda:NUMBER".
    log_every: steps between rows in `Update.steps`. eval_every: epochs between evaluations.
    eval_train_examples: how many training examples to evaluate; None: all.
    eval_test: evaluate the test set "each" time, at the "end" only, or "never".
    layers: watch the layers at the first step and then every `layers_every` steps, by default at
        the last step before each evaluation.
    channels_last: the layout of convolutions' weights, where layers and optimizer allow it.
    engine: "auto" (the first, in a fixed order, that serves the run), "plain" (every step is
        torch's), "compiled_mlp", "compiled_gradients" or "torch_compile" (`compile=true`). To
        compare the seconds of several optimizers, use one engine for all of them.
    recipe: clipping, accumulation, averaging, augmentation and early ends; None: none of them.
    log_optimizer: what to log of the optimizer itself (see `training.internals`), by plain steps.
    sharpness: measure the largest eigenvalue of the Hessian at each evaluation (see
        `training.sharpness`).
    stop: asked after each step, or every half second of an engine's steps; True ends the run with
        status "interrupted".

    Raises `UserError` where the model, loss, optimizer or recipe does not fit the problem, and
    where a named engine does not serve.
    """
    training = Training(
        problem,
        optimizer,
        seed=seed,
        schedule=schedule,
        decay_biases_and_norms=decay_biases_and_norms,
        device=device,
        log_every=log_every,
        eval_every=eval_every,
        eval_train_examples=eval_train_examples,
        eval_test=eval_test,
        layers=layers,
        layers_every=layers_every,
        engine=factory(engine),
        channels_last=channels_last,
        recipe=recipe,
        log_optimizer=log_optimizer,
        sharpness=sharpness,
    )
    return training.updates(stop)
