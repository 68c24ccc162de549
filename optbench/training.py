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
from optbench.problem import Problem, build_model, stream, weight_penalty

CHUNK = 100  # steps between two reads of the device: short enough to see, long enough not to cost
EVAL_BATCH = 512  # larger ones leave the CPU's caches: a CNN is evaluated three times slower
Row = dict[str, float | None]  # None: there is no such value


@dataclass
class Update:
    """What happened since the last update.

    steps: rows of steps.csv. epoch: a row of epochs.csv, or None between evaluations. loss: of the
    last mini-batch.
    status: "running", and in the last update "completed", "diverged" or "interrupted".
    """

    step: int
    total_steps: int
    steps: list[Row] = field(default_factory=list)
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
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Update]:
    """Train and yield updates; the first holds the evaluation before the first step.

    optimizer: from parameters to an optimizer, such as `partial(torch.optim.Adam, lr=1e-3)`.
    log_every: steps between rows in `Update.steps`. eval_every: epochs between evaluations.
    eval_train_examples: evaluate on the first so many training examples; None is all.
    eval_test: "each" evaluation measures the test set too; or only that at the "end"; or "never".
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
        loss = _loss(problem, model, x, y)
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
        scores = {name: _evaluate(problem, model, *part) for name, part in parts.items()}
        _switch_mode(model, opt, training=True)
        row: Row = {"epoch": epoch, "step": step}
        for name, (loss, accuracy) in scores.items():
            row |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
            if name == "train":
                row["running_loss"] = running_loss
        return row | {"seconds": seconds, "total_seconds": perf_counter() - begun}

    begun, seconds = perf_counter(), 0.0
    step, total, per_epoch = 0, problem.total_steps, problem.steps_per_epoch
    row = evaluate(0, 0, None)
    yield Update(0, total, epoch=row)
    if not _finite(row):
        yield Update(0, total, status="diverged")
        return
    orders = _orders(problem, seed, device)
    while step < total:
        batches = next(orders)[: total - step]
        running, seen = 0.0, 0
        for start in range(0, len(batches), CHUNK):
            chunk = batches[start : start + CHUNK]
            rates = []
            tick = perf_counter()
            for batch in chunk:
                x, y = _take(data.train_x, data.train_y, batch)
                rates.append(optimizers.learning_rate(opt))
                first = True
                opt.step(closure)  # type: ignore[arg-type]  # the stubs want a float
                if scheduler is not None:
                    scheduler.step()
                if interrupted := stop():
                    break
            values = torch.stack(losses).tolist()  # waits for the device
            losses.clear()
            elapsed = perf_counter() - tick
            update = Update(step, total)
            for i, (loss, rate) in enumerate(zip(values, rates, strict=True), start=1):
                step += 1
                running += loss * len(chunk[i - 1])
                seen += len(chunk[i - 1])
                bad = not isfinite(loss)
                if bad or step % log_every == 0 or step == 1 or step == total:
                    at = seconds + elapsed * i / len(values)
                    row = {"step": step, "epoch": step / per_epoch, "train_loss": loss}
                    update.steps.append(row | {"lr": rate, "seconds": at})
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
            if step == total or (step % (per_epoch * eval_every) == 0):
                update.epoch = evaluate(step / per_epoch, step, running / seen)
                if not _finite(update.epoch):
                    update.status = "diverged"
                elif step == total:
                    update.status = "completed"
            yield update
            if update.status != "running":
                return


def _loss(problem: Problem, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    if problem.precision == "float32":
        loss = problem.loss(model(x), y)
    else:
        with torch.autocast(x.device.type, torch.bfloat16):
            logits = model(x)
        loss = problem.loss(logits.float(), y)
    return loss + weight_penalty(problem, model) if problem.weight_penalty else loss


@torch.no_grad()
def _evaluate(
    problem: Problem, model: nn.Module, x: Tensor, y: Tensor
) -> tuple[float | None, float | None]:
    """Mean loss and accuracy over the examples; None where there are none, or no classes."""
    if problem.drop_last and problem.batch_size != "full" and len(y) > int(problem.batch_size):
        whole = len(y) // int(problem.batch_size) * int(problem.batch_size)
        x, y = x[:whole], y[:whole]
    if len(y) == 0:
        return None, None
    sums = torch.zeros(2, dtype=torch.float64, device=x.device)
    for xb, yb in zip(x.split(EVAL_BATCH), y.split(EVAL_BATCH), strict=True):
        with torch.autocast(xb.device.type, torch.bfloat16, enabled=problem.precision != "float32"):
            logits = model(xb)
        logits = logits.float()
        sums[0] += problem.loss(logits, yb).double() * len(yb)
        if problem.dataset.classes:
            sums[1] += (logits.argmax(dim=1) == yb).sum()
    if problem.weight_penalty:
        sums[0] += weight_penalty(problem, model).double() * len(y)
    loss, correct = sums.tolist()
    return loss / len(y), correct / len(y) if problem.dataset.classes else None


def _finite(row: Row) -> bool:
    # not the test loss: nothing may depend on it
    return all(isfinite(row[key] or 0) for key in ("train_loss", "val_loss"))


def _orders(problem: Problem, seed: int, device: torch.device) -> Iterator[list[Tensor | range]]:
    """Each epoch's batches of indices, slices of one permutation: the same for every optimizer."""
    examples = len(problem.dataset.train_y)
    dropped = problem.drop_last and problem.batch_size != "full"
    if problem.steps_per_epoch == 1 and not (dropped and int(problem.batch_size) < examples):
        # the whole set at once needs no order, and no copy
        while True:
            yield [range(examples)]
    generator = stream(seed, "order")
    fixed = torch.randperm(examples, generator=generator).to(device)
    order = fixed
    while True:
        batches = list(order.split(int(problem.batch_size)))
        if problem.drop_last:
            del batches[problem.steps_per_epoch :]
        elif len(batches) > problem.steps_per_epoch:
            batches[-2:] = [torch.cat(batches[-2:])]
        yield batches
        if problem.shuffle == "every_epoch":
            order = torch.randperm(examples, generator=generator).to(device)


def _take(x: Tensor, y: Tensor, batch: Tensor | range) -> tuple[Tensor, Tensor]:
    if isinstance(batch, range):
        return x, y
    return x.index_select(0, batch), y.index_select(0, batch)


def _switch_mode(model: nn.Module, opt: Optimizer, *, training: bool) -> None:
    model.train(training)
    # Schedule-free optimizers keep two sets of weights and must be told which one is wanted.
    switch = getattr(opt, "train" if training else "eval", None)
    if switch is not None:
        switch()
