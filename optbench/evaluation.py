"""What a model scores on a part of the data, and the loss that training minimises."""

from math import isfinite

import torch
from torch import Tensor, nn

from optbench.problem import Problem, weight_penalty

EVAL_BATCH = 512  # larger ones leave the CPU's caches: a CNN is evaluated three times slower
Row = dict[str, float | None]  # None: there is no such value


def objective(problem: Problem, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The loss of a batch, a scalar, with the weight penalty where there is one."""
    if problem.precision == "float32":
        loss = problem.loss(model(x), y)
    else:
        with torch.autocast(x.device.type, torch.bfloat16):
            logits = model(x)
        loss = problem.loss(logits.float(), y)
    return loss + weight_penalty(problem, model) if problem.weight_penalty else loss


@torch.no_grad()
def score(
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


def is_finite(row: Row) -> bool:
    """Whether an evaluation allows training to go on; not the test loss: nothing depends on it."""
    return all(isfinite(row[key] or 0) for key in ("train_loss", "val_loss"))
