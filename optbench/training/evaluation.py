"""The loss that training minimises, and a model's scores on each part of the data."""

from contextlib import AbstractContextManager, nullcontext
from math import isfinite

import torch
from torch import Tensor, nn

from optbench.datasets.image_files.streamed import tensor_of
from optbench.datasets.prepare import Dataset
from optbench.losses import is_own
from optbench.problem import Problem, weight_penalty
from optbench.tasks import Task
from optbench.trees import Tree, cat, map_tensors, plain, to_float

# Examples evaluated together. The activations of larger batches do not fit the CPU's caches, which
# made a CNN three times slower. With batches of 512 a small MLP took a fifth longer.
EVAL_BATCH, EVAL_BATCH_DENSE, EVAL_BATCH_CLIPS = 512, 2048, 64
EVAL_TOKENS = 8192  # evaluated together, if each token has outputs
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
Row = dict[str, float | None]  # by column; None: the value does not exist


def objective(problem: Problem, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss of a batch, a scalar, with the problem's weight penalty."""
    loss = problem.loss(outputs_of(problem, model, x), plain(y))
    return loss + weight_penalty(problem, model) if problem.weight_penalty else loss


def scores(
    problem: Problem, model: nn.Module, data: Dataset, train_examples: int | None, *, tested: bool
) -> Row:
    """Return loss and metrics on the training, validation and test examples.

    train_examples: how many training examples to score; None: all. tested: score the test set.
    """
    test = (data.test_x, data.test_y) if tested else (data.test_x[:0], data.test_y[:0])
    parts = {
        "train": data.scored_train(train_examples),
        "val": whole_batches(problem, data.val_x, data.val_y),
        "test": whole_batches(problem, *test),
    }
    row: Row = {}
    for name, (x, y) in parts.items():
        row |= {f"{name}_{metric}": v for metric, v in score(problem, model, x, y).items()}
    return row


def score(problem: Problem, model: nn.Module, x: Tensor, y: Tensor) -> Row:
    """Return the mean loss and the task's metrics on some examples.

    All values are None without examples. The accuracy is None for a task that has none.
    """
    task = problem.dataset.task
    if not len(y):
        return dict.fromkeys(("loss", "accuracy", *task.metrics))
    size = _batch_size(task, model, y)
    with torch.no_grad():
        if is_own(problem.loss):
            parts = zip(x.split(size), y.split(size), strict=True)
            sums = [_sums(problem, model, outputs_of(problem, model, xb), yb) for xb, yb in parts]
        else:
            # a user's loss may weigh examples, so the mean over all is no mean of batches' means
            outputs = cat([outputs_of(problem, model, xb) for xb in x.split(size)])
            sums = [_sums(problem, model, outputs, tensor_of(y))]
    loss, examples, *others = torch.stack(sums).sum(dim=0).tolist()
    found: Row = {"loss": loss / examples, "accuracy": None}
    return found | task.values(others, int(examples))


def _batch_size(task: Task, model: nn.Module, y: Tensor) -> int:
    """Return how many examples are evaluated together."""
    if task.told_models.get("per_token"):
        return max(1, EVAL_TOKENS // y.shape[1])
    most = max((p.ndim for p in model.parameters()), default=0)
    return EVAL_BATCH_DENSE if most <= 2 else EVAL_BATCH if most <= 4 else EVAL_BATCH_CLIPS


def outputs_of(problem: Problem, model: nn.Module, x: Tensor) -> Tree:
    """Return the model's outputs in float32, or in float64 at that precision.

    The outputs are a tensor or a tree of tensors, in the form that the loss takes.
    """
    with autocast_of(problem, x.device):
        outputs = model(x)
    if problem.precision in AUTOCAST:
        outputs = map_tensors(to_float, outputs)
    return problem.dataset.task.arranged(outputs)


def autocast_of(problem: Problem, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a problem's precision: autocast for the 16-bit ones."""
    if problem.precision not in AUTOCAST:
        return nullcontext()
    return torch.autocast(device.type, AUTOCAST[problem.precision])


def _sums(problem: Problem, model: nn.Module, outputs: Tree, y: Tensor) -> Tensor:
    """Return a batch's summed loss, its size and the task's sums, in float64."""
    loss = problem.loss(outputs, plain(y)).double()
    if problem.weight_penalty:
        loss = loss + weight_penalty(problem, model).double()
    both = torch.stack([loss * len(y), torch.full_like(loss, len(y))])
    task = problem.dataset.task
    return torch.cat([both, task.sums(task.judged(outputs), y)])


def whole_batches(problem: Problem, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the validation or test examples without those that `drop_last` drops."""
    if problem.drop_last and problem.batch_size != "full" and len(y) > int(problem.batch_size):
        whole = len(y) // int(problem.batch_size) * int(problem.batch_size)
        return x[:whole], y[:whole]
    return x, y


def is_finite(row: Row) -> bool:
    """Return whether training may continue: training and validation loss are finite."""
    return all(isfinite(row[key] or 0) for key in ("train_loss", "val_loss"))
