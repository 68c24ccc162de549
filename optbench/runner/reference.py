"""Compute the training loss of the least-squares solution of linear models."""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optbench import losses
from optbench.model_calls import inner
from optbench.problem import Problem, build_model
from optbench.streams import Stream
from optbench.tasks import Values
from optbench.training.object_state.global_state import kept

MAX_NUMBERS = 5e7  # of the examples: 400 MB in float64


def least_squares(problem: Problem, model: nn.Module, examples: int | None) -> float | None:
    """Return the least training loss of a linear model with squared error, or None.

    The weights of least squared error over all training examples are found in float64 by a
    singular value decomposition (torch.linalg.lstsq). examples: score the weights on the first so
    many training examples, as a run does; None: on all. None is returned for other models, losses
    and targets, with a penalty, and for data too large.
    """
    data = problem.dataset
    bias = _intercept(model)
    if bias is None or problem.weight_penalty or not isinstance(data.task, Values):
        return None
    if not _is_squared_error(problem.loss) or data.stride != 1:
        return None
    if len(data.train_y) * (prod(data.input_shape) + 1) > MAX_NUMBERS:
        return None
    x, y = data.train_x.cpu().flatten(1).double(), data.train_y.cpu().double()
    if bias:
        x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], dim=1)
    solution = torch.linalg.lstsq(x, y, driver="gelsd").solution
    errors: Tensor = (x @ solution - y)[:examples]
    return errors.square().mean().item()


def rehearsed_least_squares(problem: Problem, seed: int, examples: int | None) -> float | None:
    """Return `least_squares` before any run, without a change of global state."""
    if not isinstance(problem.dataset.task, Values):
        return None
    with kept(problem), Stream(seed, "rehearsal"):
        return least_squares(problem, build_model(problem, seed), examples)


def _intercept(model: nn.Module) -> bool | None:
    """Return whether a linear model has an intercept; None for others, by exact types.

    Several linear layers express exactly the linear maps if no layer is too narrow. Then each of
    their local minima is a least-squares solution (Kawaguchi 2016).
    """
    layers = [m for m in model.modules() if type(m) not in (nn.Sequential, nn.Flatten)]
    if not layers or any(type(layer) is not nn.Linear for layer in layers):
        return None
    chain = [layer for layer in layers if isinstance(layer, nn.Linear)]
    ends = min(chain[0].in_features, chain[-1].out_features)
    if min(layer.out_features for layer in chain) < ends:
        return None
    biases = [layer.bias is not None for layer in chain]
    return biases[-1] if biases[-1] or not any(biases) else None


def _is_squared_error(loss: Callable[..., Any]) -> bool:
    if isinstance(loss, losses.ModuleLoss):
        return type(loss.module) is nn.MSELoss
    return inner(loss) in (losses.mse, F.mse_loss)
