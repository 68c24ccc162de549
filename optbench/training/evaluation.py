"""What a model scores on a part of the data, and the loss that training minimises."""

from collections.abc import Callable
from math import isfinite

import torch
from torch import Tensor, nn

from optbench.datasets.prepare import Dataset
from optbench.losses import is_own
from optbench.problem import Problem, weight_penalty

# examples evaluated at once: the activations of more leave the CPU's caches, which made a CNN three
# times slower; a small MLP takes a fifth longer by 512
EVAL_BATCH, EVAL_BATCH_DENSE = 512, 2048
Row = dict[str, float | None]  # None: there is no such value


def objective(problem: Problem, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The loss of a batch, a scalar, with the weight penalty where there is one."""
    if problem.precision != "bfloat16":
        loss = problem.loss(model(x), y)
    else:
        with torch.autocast(x.device.type, torch.bfloat16):
            logits = model(x)
        loss = problem.loss(logits.float(), y)
    return loss + weight_penalty(problem, model) if problem.weight_penalty else loss


def scores(
    problem: Problem, model: nn.Module, data: Dataset, train_examples: int | None, *, tested: bool
) -> Row:
    """Return loss and accuracy on the training, validation and test examples, by column.

    train_examples: only the first so many of training; None: all. tested: measure the test set.
    """
    test = (data.test_x, data.test_y) if tested else (data.test_x[:0], data.test_y[:0])
    parts = {
        "train": (data.train_x[:train_examples], data.train_y[:train_examples]),
        "val": whole_batches(problem, data.val_x, data.val_y),
        "test": whole_batches(problem, *test),
    }
    row: Row = {}
    for name, (x, y) in parts.items():
        row[f"{name}_loss"], row[f"{name}_accuracy"] = score(problem, model, x, y)
    return row


def score(
    problem: Problem, model: nn.Module, x: Tensor, y: Tensor
) -> tuple[float | None, float | None]:
    """Mean loss and accuracy over the examples; None where there are none, or no classes."""
    dense = all(p.ndim <= 2 for p in model.parameters())
    size = EVAL_BATCH_DENSE if dense else EVAL_BATCH
    if len(y) and not is_own(problem.loss):
        # it may weigh the examples, as by class: its mean over all is no mean of batches' means
        with torch.no_grad():
            outputs = torch.cat([outputs_of(problem, model, xb) for xb in x.split(size)])
            sums = output_sums(problem, model, outputs, y)
    else:
        sums = total(lambda xb, yb: batch_sums(problem, model, xb, yb), x, y, size)
    return means(problem, *sums.tolist())


def batch_sums(problem: Problem, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The sum of the losses, the correct answers and the examples of a batch: (3,), float64."""
    return output_sums(problem, model, outputs_of(problem, model, x), y)


def outputs_of(problem: Problem, model: nn.Module, x: Tensor) -> Tensor:
    """What the model gives for the examples, in float32 (or float64)."""
    low = problem.precision == "bfloat16"
    with torch.autocast(x.device.type, torch.bfloat16, enabled=low):
        outputs: Tensor = model(x)
    return outputs.float() if low else outputs


def output_sums(problem: Problem, model: nn.Module, logits: Tensor, y: Tensor) -> Tensor:
    """`batch_sums` from the model's outputs."""
    loss = problem.loss(logits, y).double()
    if problem.weight_penalty:
        loss = loss + weight_penalty(problem, model).double()
    hits = (logits.argmax(dim=1) == y).sum() if problem.dataset.classes else torch.zeros_like(loss)
    return torch.stack([loss * len(y), hits.double(), torch.full_like(loss, len(y))])


@torch.no_grad()
def total(
    sums: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, size: int = EVAL_BATCH
) -> Tensor:
    """`sums` of parts of the examples, `size` at once, added up; zeros where there are none."""
    if len(y) == 0:
        return torch.zeros(3, dtype=torch.float64)
    parts = zip(x.split(size), y.split(size), strict=True)
    return torch.stack([sums(xb, yb) for xb, yb in parts]).sum(dim=0)


def whole_batches(problem: Problem, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The validation or test examples without those that `drop_last` leaves out."""
    if problem.drop_last and problem.batch_size != "full" and len(y) > int(problem.batch_size):
        whole = len(y) // int(problem.batch_size) * int(problem.batch_size)
        return x[:whole], y[:whole]
    return x, y


def means(
    problem: Problem, losses: float, hits: float, examples: float
) -> tuple[float | None, float | None]:
    """Mean loss and accuracy from sums over examples; None where there is no such value."""
    if not examples:
        return None, None
    return losses / examples, hits / examples if problem.dataset.classes else None


def is_finite(row: Row) -> bool:
    """Whether an evaluation allows training to go on; not the test loss: nothing depends on it."""
    return all(isfinite(row[key] or 0) for key in ("train_loss", "val_loss"))
