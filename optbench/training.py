"""The training loop: one optimizer on one problem with one seed, as a stream of rows.

It knows nothing of files or configurations. The clock stops during evaluation, and no step waits
for the device: losses stay there until a chunk of steps is read at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench import optimizers
from optbench.batches import Batch, Batches
from optbench.diagnostics import LayerRow, watched_step
from optbench.evaluation import Row, is_finite, objective, score
from optbench.problem import Problem, build_model, stream

CHUNK = 100  # steps between two reads of the device: short enough to see, long enough not to cost


@dataclass
class Update:
    """What happened since the last update.

    steps: rows of steps.csv. layers: rows of layers.csv. epoch: a row of epochs.csv, or None
    between evaluations. loss: of the last mini-batch.
    status: "running", and in the last update "completed", "diverged" or "interrupted".
    """

    step: int
    total_steps: int
    steps: list[Row] = field(default_factory=list)
    layers: list[LayerRow] = field(default_factory=list)
    epoch: Row | None = None
    loss: float | None = None
    status: str = "running"


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
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Update]:
    """Train and yield updates; the first holds the evaluation before the first step.

    optimizer: from parameters to an optimizer, such as `partial(torch.optim.Adam, lr=1e-3)`.
    log_every: steps between rows in `Update.steps`. eval_every: epochs between evaluations.
    eval_train_examples: evaluate on the first so many training examples; None is all.
    eval_test: "each" evaluation measures the test set too; or only that at the "end"; or "never".
    layers: watch the layers at the first step and then every `layers_every` steps, by default at
    the last step before each evaluation. The clock stops for a step that is watched.
    stop: asked after each step; True ends the run with status "interrupted".

    Raises `UserError` where the model, loss or optimizer does not fit the problem.
    """
    device = torch.device(device)
    model = build_model(problem, seed).to(device)
    data = problem.dataset.to(device)
    noise = stream(seed, "dropout", device)
    for module in model.modules():
        if hasattr(module, "generator"):  # Dropout, and other layers that draw while training
            vars(module)["generator"] = noise
    opt = optimizers.build(optimizer, model, decay_biases_and_norms=decay_biases_and_norms)
    scheduler = schedule(opt, problem.total_steps) if schedule else None

    x, y = data.train_x[:0], data.train_y[:0]
    losses: list[Tensor] = []  # of the steps not yet read from the device
    first = True  # lbfgs calls the closure several times a step; the first loss is the batch's

    def closure() -> Tensor:
        nonlocal first
        opt.zero_grad()
        loss = objective(problem, model, x, y)
        loss.backward()
        if first:
            losses.append(loss.detach())
            first = False
        return loss

    def evaluate(epoch: float, step: int, running_loss: float | None) -> Row:
        n = eval_train_examples
        tested = None if eval_test == "each" or (eval_test == "end" and step == total) else 0
        _switch_mode(model, opt, training=False)
        parts = {
            "train": (data.train_x[:n], data.train_y[:n]),
            "val": (data.val_x, data.val_y),
            "test": (data.test_x[:tested], data.test_y[:tested]),
        }
        scores = {name: score(problem, model, *part) for name, part in parts.items()}
        _switch_mode(model, opt, training=True)
        row: Row = {"epoch": epoch, "step": step}
        for name, (loss, accuracy) in scores.items():
            row |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
            if name == "train":
                row["running_loss"] = running_loss
        return row | {"seconds": seconds, "total_seconds": perf_counter() - begun}

    def is_evaluated(step: int) -> bool:
        return step == total or step % (per_epoch * eval_every) == 0

    def is_watched(step: int) -> bool:
        due = step % layers_every == 0 if layers_every else is_evaluated(step)
        return layers and (step == 1 or due)

    begun, seconds = perf_counter(), 0.0
    step, total, per_epoch = 0, problem.total_steps, problem.steps_per_epoch
    row = evaluate(0, 0, None)
    yield Update(0, total, epoch=row)
    if not is_finite(row):
        yield Update(0, total, status="diverged")
        return
    batches = Batches(problem, seed, device)
    while step < total:
        epoch = batches.epoch()[: total - step]
        running, seen = 0.0, 0
        for start in range(0, len(epoch), CHUNK):
            chunk = epoch[start : start + CHUNK]
            rates, watched = [], 0.0
            update = Update(step, total)
            tick = perf_counter()
            for number, batch in enumerate(chunk, start=step + 1):
                x, y = _take(data.train_x, data.train_y, batch)
                rates.append(optimizers.learning_rate(opt))
                first = True
                if is_watched(number):
                    paused = perf_counter()
                    rows = watched_step(
                        model, opt, closure, lambda x, y: objective(problem, model, x, y), x, y
                    )
                    at: LayerRow = {"epoch": number / per_epoch, "step": number}
                    update.layers += [at | row for row in rows]
                    watched += perf_counter() - paused
                else:
                    opt.step(closure)  # type: ignore[arg-type]  # the stubs want a float
                if scheduler is not None:
                    scheduler.step()
                if interrupted := stop():
                    break
            values = torch.stack(losses).tolist()  # waits for the device
            losses.clear()
            elapsed = perf_counter() - tick - watched
            for i, (loss, rate) in enumerate(zip(values, rates, strict=True), start=1):
                step += 1
                running += loss * len(chunk[i - 1])
                seen += len(chunk[i - 1])
                bad = not isfinite(loss)
                if bad or step % log_every == 0 or step == 1 or step == total:
                    row = {"step": step, "epoch": step / per_epoch, "train_loss": loss, "lr": rate}
                    update.steps.append(row | {"seconds": seconds + elapsed * i / len(values)})
                if bad:
                    update.status = "diverged"
                    break
            seconds += elapsed
            update.step, update.loss = step, values[-1]
            if update.status == "running" and interrupted and step < total:
                update.status = "interrupted"
            if update.status != "running":
                yield update
                return
            if is_evaluated(step):
                update.epoch = evaluate(step / per_epoch, step, running / seen)
                if not is_finite(update.epoch):
                    update.status = "diverged"
                elif step == total:
                    update.status = "completed"
            yield update
            if update.status != "running":
                return


def _take(x: Tensor, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    if isinstance(batch, range):
        return x, y
    return x.index_select(0, batch), y.index_select(0, batch)


def _switch_mode(model: nn.Module, opt: Optimizer, *, training: bool) -> None:
    model.train(training)
    # Schedule-free optimizers keep two sets of weights and must be told which one is wanted.
    switch = getattr(opt, "train" if training else "eval", None)
    if switch is not None:
        switch()
