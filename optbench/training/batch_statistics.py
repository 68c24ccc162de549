"""Recompute batch norm's statistics for weights other than the trained ones."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from optbench.models import drawing_layers
from optbench.problem import Problem
from optbench.streams import stream
from optbench.torch_internals import BATCH_NORM
from optbench.training.evaluation import autocast_of


def has_statistics(model: nn.Module) -> bool:
    """Return whether a model has batch norm with running statistics."""
    norms = (m for m in model.modules() if isinstance(m, BATCH_NORM))
    return any(norm.track_running_stats for norm in norms)


def recompute(problem: Problem, model: nn.Module, x: Tensor, seed: int) -> None:
    """Recompute batch norm's statistics from all training examples `x`.

    Call it within a random stream. The model's own draws come from a stream of the seed.
    """
    generator = stream(seed, "averaging", x.device)
    drawing = [layer for _, layer in drawing_layers(model)]
    kept = [layer.generator for layer in drawing]
    for layer in drawing:
        layer.generator = generator
    with autocast_of(problem, x.device):
        update_bn(_batches(problem, x), model)
    for layer, own in zip(drawing, kept, strict=True):
        layer.generator = own


@contextmanager
def recomputed(problem: Problem, model: nn.Module, x: Tensor, seed: int) -> Iterator[None]:
    """Recompute the statistics of the present weights within the block.

    The training's own statistics are restored after the block.
    """
    buffers = {name: b.detach().clone() for name, b in model.named_buffers()}
    recompute(problem, model, x, seed)
    yield
    with torch.no_grad():
        for name, b in model.named_buffers():
            b.copy_(buffers[name])


def _batches(problem: Problem, x: Tensor) -> Iterable[Tensor]:
    size = problem.batch_examples
    whole, rest = divmod(len(x), size)
    sizes = [size] * whole + [rest] * bool(rest)
    if len(sizes) > 1 and sizes[-1] == 1:  # one example has no variance
        sizes[-2:] = [sizes[-2] + 1]
    return x.split(sizes)
