"""Training from Python: an engine is selected, and the loop yields its updates."""

from collections.abc import Callable, Iterator

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench.problem import Problem
from optbench.runner.engine import AUTO, factory
from optbench.training.loop import Training
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
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Update]:
    """Train and yield updates; the first holds the evaluation before the first step.

    problem: what is minimised, in which batches and for how long.
    optimizer: from parameters to an optimizer, such as `partial(torch.optim.Adam, lr=1e-3)`.
    seed: of the weights, the order of the batches, and what the model and the optimizer draw.
    schedule: from the optimizer and the total number of steps to a learning rate schedule.
    decay_biases_and_norms: whether weight decay applies to biases and norms too.
    device: "cpu", "cuda" or "cuda:NUMBER".
    log_every: steps between rows in `Update.steps`. eval_every: epochs between evaluations.
    eval_train_examples: evaluate on the first so many training examples; None is all.
    eval_test: "each" evaluation measures the test set too; or only that at the "end"; "never".
    layers: watch the layers at the first step and then every `layers_every` steps, by default at
        the last step before each evaluation.
    channels_last: the layout of convolutions' weights, where layers and optimizer allow it.
    engine: "auto", the first, in a fixed order, that serves the run; "plain", every step is
        torch's; or "compiled_mlp". To compare seconds of several optimizers, give all of them the
        same one.
    stop: asked after each step, or after half a second of steps taken at once; True ends the run
        with status "interrupted".

    Raises `UserError` where the model, loss or optimizer does not fit the problem, and where a
    named engine does not serve.
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
    )
    return training.updates(stop)
