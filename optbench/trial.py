"""Try a model and a loss on a few examples, to explain a misfit before training.

The trial uses a copy: neither the weights nor the random numbers of the run change.
"""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from math import isclose, isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from optbench.common.errors import UserError, refusals
from optbench.datasets.prepare import Dataset
from optbench.first_layer import advice
from optbench.losses import is_own
from optbench.model_calls import inner
from optbench.tasks import Several, Task
from optbench.trees import Tree, cat, leaves, map_tensors, plain, to_float

Loss = Callable[[Tensor, Tensor], Tensor]


def make_lazy_weights(model: nn.Module, data: Dataset) -> None:
    """Give lazy layers (`nn.LazyLinear`) their weights, by a pass over two examples."""
    if not any(is_lazy(t) for t in _tensors(model)):
        return
    model.eval()
    misfit = f"the model does not fit examples of shape {data.input_shape}"
    with refusals(misfit, advice(model, data)), torch.no_grad():
        model(data.train_x[:2].cpu())
    if any(is_lazy(t) for t in _tensors(model)):
        raise UserError(
            "the model has lazy layers that its forward does not use: their weights have no shape. "
            "Take them out, or give them their number of inputs (nn.Linear for nn.LazyLinear)"
        )


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def check_fit(
    model: nn.Module,
    data: Dataset,
    loss: Loss,
    batch_size: int | str,
    make: Callable[[], nn.Module],
) -> None:
    """Raise `UserError` unless a few examples show that model and loss can train.

    make: returns another model of the kind, in case this one cannot be copied.
    """
    # not as many as classes: a loss would broadcast (n, n) and (n,) silently
    count = 3 if data.classes == 2 else 2
    x, y = data.train_x[:count].cpu(), data.train_y[:count].cpu()
    copy = _copy(model, data, make)
    names = [name for name, _ in copy.named_parameters()]
    misfit = f"the model does not fit examples of shape {data.input_shape}"
    with refusals(misfit, advice(model, data)), torch.no_grad():
        outputs = data.task.arranged(copy.eval()(x))
    if names != [name for name, _ in copy.named_parameters()]:
        raise UserError(
            "the model makes parameters in its forward, after the optimizer has been given those "
            "that there are: make them all in __init__"
        )
    known = advice(model, data)
    _check_outputs(data, loss, outputs, y, known)
    if data.task.told_models.get("causal"):
        _check_causal(copy, data.vocabulary, x, outputs)
    loss = copy_of(loss)
    with torch.no_grad():
        _check_loss(loss, data.task, outputs, y)
    if min(len(data.train_y), 1 if batch_size == 1 else 2) == 1:
        x, y = x[:1], y[:1]
    with refusals(f"the model cannot train on examples of shape {data.input_shape}"):
        trained = data.task.arranged(_train(copy.train(), x))
    _check_outputs(data, loss, trained, y, known, " while training")
    with refusals("the gradient of the loss cannot be taken"):
        _check_gradient(loss, copy, trained, y)


def copy_of(thing: Any, memo: dict[int, Any] | None = None) -> Any:
    """Return a deep copy, or the thing itself if it cannot be copied.

    memo: see `copy.deepcopy`.
    """
    try:
        return deepcopy(thing, memo)
    except Exception:  # an object of any class may raise anything
        return thing


def _copy(model: nn.Module, data: Dataset, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return deepcopy(model)
    except Exception:  # a user's model may refuse; another of its kind serves as well
        made = make()
        make_lazy_weights(made, data)
        return made


def _train(model: nn.Module, x: Tensor) -> Any:
    try:
        return model(x)
    except ValueError as error:
        if len(x) > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"the model cannot train on a batch of one example: {error}. A batch norm has no "
            f"variance of one value to take: use batch_size=2 or more (and as many training "
            f"examples), or model.batch_norm=false"
        ) from error


def _check_outputs(
    data: Dataset, loss: Loss, outputs: Tree, y: Tensor, known: str, when: str = ""
) -> None:
    """Raise `UserError` unless the outputs are what the task and the loss take.

    known: what the first layer takes, which may have taken the examples for something else.
    """
    task = data.task
    if not isinstance(outputs, Tensor) and is_own(loss) and not isinstance(task, Several):
        raise UserError(
            f"the model gives {_described(outputs)}{when}, and one tensor is needed: let its "
            f"forward return the one that the loss is to be given, or take a loss of your own, "
            f"which is given all of them"
        )
    for part in leaves(outputs):
        if not isinstance(part, Tensor) or part.layout != torch.strided:
            kind = f"outputs of {part.layout}" if isinstance(part, Tensor) else _described(part)
            raise UserError(f"the model gives {kind}{when}; dense tensors are needed")
        if not isinstance(outputs, Tensor) and part.shape[:1] != (len(y),):
            raise UserError(
                f"the model gives {_described(outputs)} for {len(y)} examples{when}; each tensor "
                f"must have a row for each example, so that batches can be evaluated together "
                f"(value.expand(len(x)) gives a number of the whole batch one)"
            )
    judged = task.judged(outputs)
    for part in leaves(judged):
        if not part.is_floating_point():
            raise UserError(
                f"the model gives outputs of {part.dtype}{when}; real numbers in a dense tensor "
                f"are needed, such as a logit for each class"
            )
    if judged is None:
        raise UserError(f"the model gives {_described(outputs)}{when}, and a tensor is needed")
    try:
        task.check_outputs(judged, y, when)
    except UserError as error:
        if judged is outputs:
            if isinstance(judged, Tensor) and judged.shape[:1] != (len(y),):
                raise UserError(f"{error}{known}") from error
            raise
        raise UserError(
            f"{error} (of a tuple the first tensor is judged, of a dictionary that called logits)"
        ) from error
    if not any(part.numel() for part in leaves(judged)):
        raise UserError(
            "the model has no outputs: with data.targets=inputs there are no classes, and it "
            "has to make its outputs from the inputs' shape, as model=deepobs_vae does"
        )


@torch.no_grad()
def _check_causal(model: nn.Module, vocabulary: int, x: Tensor, outputs: Tensor) -> None:
    """Raise `UserError` if outputs of earlier tokens change with the last token."""
    if not torch.equal(model(x), outputs):
        return  # it draws random numbers, which hide the change
    changed = x.clone()
    changed[:, -1] = (changed[:, -1] + 1) % vocabulary
    before, after = outputs[:, :-1], model(changed)[:, :-1]
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-5):
        raise UserError(
            "the model's outputs for a token change with later tokens, which these outputs have to "
            "predict: mask the later ones (is_causal=True), or read the text in one direction only"
        )


def _described(value: Any) -> str:
    """Describe the output of a model or a loss, with the shapes of its tensors."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key}: {_described(part)}" for key, part in value.items())
        return f"a {type(value).__name__} ({inside})"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} ({', '.join(map(_described, value))})"
    return "None" if value is None else f"a {type(value).__name__}"


def _check_loss(function: Loss, task: Task, outputs: Tree, y: Tensor) -> None:
    name = getattr(inner(function), "__name__", "")
    if task.fitting and is_own(function) and name not in task.fitting:
        raise UserError(
            f"loss={name} is for other targets; here a loss is given {task.given}: take "
            f"loss={' or '.join(task.fitting)}, or a loss of your own"
        )
    own = getattr(function, "module", function)
    if isinstance(own, nn.Module) and (names := [name for name, _ in own.named_parameters()]):
        raise UserError(
            f"the loss has parameters ({', '.join(names)}), which no optimizer would train: make "
            f"them the model's, and let its outputs hold what the loss needs of them"
        )

    def loss_of(outputs: Tree, y: Tensor) -> Any:
        fits = refusals(f"the loss does not fit: it is given {task.given}, and says")
        with fits, warnings.catch_warnings():
            # with broadcast shapes the loss is no mean over the examples
            warnings.filterwarnings("error", "Using a target size")
            return function(map_tensors(Tensor.clone, outputs), plain(y.clone()))

    loss = loss_of(outputs, y)
    if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.is_floating_point():
        what = _described(loss)
        if isinstance(loss, Tensor) and loss.dim() == 0:
            what = f"a number of {loss.dtype}"
        raise UserError(
            f"the loss must be one number averaged over the batch (a tensor, real), not {what}"
        )
    once, again = float(loss), float(loss_of(outputs, y))
    twice = float(loss_of(cat([outputs, outputs]), cat([y, y])))
    # a loss that draws random numbers or is not finite cannot be checked
    known = once == again and isfinite(once) and isfinite(twice)
    if known and not isclose(once, twice, rel_tol=1e-3, abs_tol=1e-6):
        raise UserError(
            f"the loss is no average over the examples: of {len(y)} it is {once:.6g}, and of the "
            f"same ones twice {twice:.6g}. Steps and evaluations would depend on the size of the "
            f"batch: let it be a mean (loss.reduction=mean)"
        )


def _check_gradient(function: Loss, model: nn.Module, outputs: Tree, y: Tensor) -> None:
    loss = function(map_tensors(to_float, outputs), plain(y))
    if loss.requires_grad:
        loss.backward()
    elif any(p.requires_grad for p in model.parameters()):
        raise UserError(
            "the loss depends on no weight of the model: something cuts it off from them (detach, "
            "no_grad, item, argmax, numpy) in the model's forward or in the loss"
        )
