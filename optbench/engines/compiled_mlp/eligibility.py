"""Which trainings the compiled engines support, by exact types, never by trying."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop

from optbench import losses
from optbench.engines.compiled_mlp.exact_types import (
    holds,
    is_number,
    is_untouched,
    is_untouched_optimizer,
    unwrap,
    weights_are_plain,
)
from optbench.models import Dropout
from optbench.problem import Problem
from optbench.torch_internals import own_buffers, own_modules, own_parameters, torch_is_plain
from optbench.training.recipes import Recipe

MAX_EXAMPLES, MAX_LAYERS = 512, 16  # in a batch and in a model; as in job.hpp
# in the order of job.hpp
ACTIVATIONS = (
    nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.GELU, nn.SiLU,
)  # fmt: skip
OPTIMIZERS = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta)
# the numbers of a group beside lr, weight_decay and betas
GROUP_NUMBERS = ("momentum", "dampening", "eps", "alpha", "lr_decay", "rho")
MIN_EPS = 1e-12  # below it subnormal numbers matter, which the compiled code treats as 0


@dataclass
class Block:
    """A linear layer with the parts around it; None for a part that is not there.

    dropout: of the layer's inputs. norm_after: the batch norm stands after the activation.
    """

    linear: nn.Linear
    dropout: Dropout | None = None
    norm: nn.BatchNorm1d | None = None
    norm_after: bool = False
    activation: nn.Module | None = None

    @property
    def is_bare(self) -> bool:
        """Return whether nothing follows the linear layer."""
        return self.norm is None and self.activation is None


def refusal(problem: Problem, model: nn.Module, optimizer: Optimizer) -> str:
    """Return in words which part of a training has no compiled gradient, or ""."""
    if not torch_is_plain():
        return "a hook or a mode of torch's changes or watches what modules and steps compute"
    if found := model_refusal(problem, model):
        return found
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if owned != {id(p) for p in model.parameters()}:
        return "the optimizer does not have exactly the model's parameters"
    if getattr(type(optimizer), "zero_grad", None) is not Optimizer.zero_grad:
        return "the optimizer has a zero_grad of its own, which may keep gradients"
    return ""


def recipe_refusal(recipe: Recipe, *, whole: bool) -> str:
    """Return in words which part of a recipe the compiled code lacks; "" where none.

    whole: whole steps are compiled, so that torch cannot clip or average. Compiled gradients leave
    clipping and averaging to torch. Early ends belong to the loop.
    """
    if recipe.accumulate > 1:
        return "accumulate has micro-batches"
    if whole and recipe.decay_form:
        return f"the weights decay outside of the step (decay_form={recipe.decay_form})"
    if whole and recipe.clips:
        return "gradients are clipped (clip_norm or clip_value) within the step"
    if whole and recipe.averaging.kind:
        return f"weights are averaged after a step (averaging.kind={recipe.averaging.kind})"
    return "images are augmented before the step" if whole and recipe.augment else ""


def model_refusal(problem: Problem, model: nn.Module) -> str:
    """Return in words why the compiled code does not support problem and model, or "".

    Batches of more than 512 examples are refused, since torch is faster on them.
    """
    found = loss_of(problem.loss)
    if found is None:
        return "the loss is none of cross-entropy, nll, mse and bce in their usual forms"
    if problem.precision != "float32":
        return f"the precision is {problem.precision}, and it computes in float32"
    if problem.weight_penalty:
        return "there is a weight_penalty"
    x, y = problem.dataset.train_x, problem.dataset.train_y
    if problem.batch_examples > min(MAX_EXAMPLES, len(y) - 1):  # the whole set has no indices
        return f"a batch of {problem.batch_examples} is the whole set, or more than {MAX_EXAMPLES}"
    if not _is_array(x, torch.float32):
        return "the examples are no plain array of float32 on the CPU"
    if not all(_is_array(t.detach(), torch.float32) for t in _floats(model)):
        return "the model's parameters are no plain arrays of float32 on the CPU"
    chain = blocks(model)
    if not 0 < len(chain) <= MAX_LAYERS or not chain[-1].is_bare:
        return (
            "the model is no chain of at most 16 plain linear layers, each with batch norm, an "
            f"activation ({', '.join(cls.__name__ for cls in ACTIVATIONS)}) and optbench's dropout "
            "at most, and nothing after the last"
        )
    if problem.batch_examples < 2 and any(block.norm for block in chain):
        return "a batch of one has no batch norm"
    if chain[0].linear.in_features != prod(problem.dataset.input_shape):
        return "the model's first layer does not fit the data"
    if not _is_target(y, chain[-1].linear.out_features, values=found.values):
        return "the model's last layer does not fit the targets, or these are no plain array"
    return ""


def _floats(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from (buffer for buffer in model.buffers() if buffer.is_floating_point())


def _is_array(t: Tensor, dtype: torch.dtype) -> bool:
    """Return whether compiled code can read a tensor where it lies in memory."""
    plain = type(t) is Tensor and t.layout is torch.strided and t.device.type == "cpu"
    return plain and t.dtype is dtype and t.is_contiguous()


def _is_target(y: Tensor, outputs: int, *, values: bool) -> bool:
    if values:
        return _is_array(y, torch.float32) and y.shape[1:] == (outputs,)
    if outputs == 1:  # one logit of two classes, which has no one-hot labels
        return False
    return _is_array(y, torch.int64) and bool(y.min() >= 0 and y.max() < outputs)


@dataclass
class Loss:
    """A loss that the compiled code has.

    number: in job.hpp. smoothing: of the labels. values: the targets are numbers, not classes.
    """

    number: int
    smoothing: float = 0.0
    values: bool = False


OUTPUTS = {"linear": 1, "sigmoid": 2, "softmax": 3}  # the numbers of squared errors in job.hpp


def loss_of(loss: Callable[..., Tensor]) -> Loss | None:
    """Return a problem's loss as the compiled code has it, or None."""
    if type(loss) is losses.ModuleLoss:
        return _loss_of_module(loss.module)
    function, settings = unwrap(loss)
    if function is losses.cross_entropy and set(settings) <= {"label_smoothing"}:
        smoothing = settings.get("label_smoothing", 0.0)
        return Loss(0, float(smoothing)) if _is_smoothing(smoothing) else None
    if function is losses.mse and set(settings) <= {"output"}:
        number = OUTPUTS.get(settings.get("output", "softmax"))
        return None if number is None else Loss(number)
    if settings:
        return None
    known = {losses.nll: Loss(0), losses.bce: Loss(4), F.mse_loss: Loss(1, values=True)}
    return known.get(function)


def _loss_of_module(module: nn.Module) -> Loss | None:
    plain = is_untouched(module) and not (own_parameters(module) or own_modules(module))
    if not plain or any(b is not None for b in own_buffers(module).values()):
        return None
    if type(module) is nn.MSELoss and module.reduction == "mean":
        return Loss(1, values=True)
    if type(module) is nn.CrossEntropyLoss and module.reduction == "mean":
        smoothing = module.label_smoothing
        return Loss(0, float(smoothing)) if _is_smoothing(smoothing) else None
    return None


def _is_smoothing(value: Any) -> bool:
    return is_number(value) and 0 <= value < 1


def optimizer_refusal(optimizer: Optimizer) -> str:
    """Return in words why mlp.cpp lacks the optimizer's rule, or ""."""
    name = type(optimizer).__name__
    if type(optimizer) not in OPTIMIZERS:  # a user's class, or a subclass, may do anything
        return f"{name} is none of torch's {', '.join(cls.__name__ for cls in OPTIMIZERS)}"
    rules = {rule_name(optimizer, group) for group in optimizer.param_groups}
    if len(rules) != 1 or "" in rules:
        return f"{name} has a setting that it does not know, or groups of several rules"
    return "" if is_untouched_optimizer(optimizer) else f"{name} has a hook or a changed method"


def rule_name(optimizer: Optimizer, group: Mapping[str, Any]) -> str:
    """Return the name of a group's rule in `mlp.RULES`; "" where there is none."""
    cls = type(optimizer)
    if any(group.get(key) for key in ("maximize", "differentiable", "capturable")):
        return ""
    numbers = [group["lr"], group["weight_decay"], *group.get("betas", ())]
    numbers += [group[key] for key in GROUP_NUMBERS if key in group]
    if not all(map(is_number, numbers)) or group.get("eps", MIN_EPS) < MIN_EPS:
        return ""
    if cls is SGD:
        return "momentum" if group["momentum"] else "sgd"
    if cls in (Adam, AdamW):
        return "amsgrad" if group["amsgrad"] else "adam"
    if cls is RMSprop:
        return "" if group["centered"] or group["momentum"] else "rmsprop"
    return "adagrad" if cls is Adagrad else "adadelta"


def blocks(model: nn.Module) -> list[Block]:
    """Return the model's linear layers with their parts; [] if it is no such chain."""
    found: list[Block] = []
    dropout: Dropout | None = None  # of the inputs of the next linear layer
    if not weights_are_plain(model):
        return []
    for module in _flat(model):
        last = found[-1] if found else None
        if module is None or not is_untouched(module):
            return []
        if type(module) is nn.Linear:
            if not _is_linear(module, last):
                return []
            found.append(Block(module, dropout))
            dropout = None
        elif type(module) is Dropout:
            if dropout or not holds(module) or not is_number(module.p) or not 0 <= module.p < 1:
                return []
            dropout = module if module.p else None
        elif dropout:  # only a linear layer may follow
            return []
        elif type(module) is nn.BatchNorm1d:
            if last is None or last.norm or not _is_norm(module, last.linear.out_features):
                return []
            last.norm, last.norm_after = module, last.activation is not None
        elif not holds(module):
            return []
        elif type(module) in ACTIVATIONS:
            if last is None or last.activation or last.norm_after or not _is_activation(module):
                return []
            last.activation = module
        elif found or not _flattens(module):
            return []
    own = [part for block in found for part in (block.linear, block.norm) if part]
    return found if len(set(own)) == len(own) and not dropout else []


def _is_linear(module: nn.Linear, last: Block | None) -> bool:
    if last and last.linear.out_features != module.in_features:
        return False
    if not holds(module, ("weight", "bias")) or not module.weight.numel():
        return False
    if module.weight.shape != (module.out_features, module.in_features):
        return False  # the weight was cut or replaced
    return module.bias is None or module.bias.shape == (module.out_features,)


def _is_norm(module: nn.BatchNorm1d, units: int) -> bool:
    names = ("running_mean", "running_var", "num_batches_tracked")
    if not holds(module, ("weight", "bias"), names):
        return False
    tensors = [module.weight, module.bias, module.running_mean, module.running_var]
    if any(t is not None and t.shape != (units,) for t in tensors):
        return False
    if (module.running_mean is None) != (module.running_var is None):
        return False
    numbers = (module.eps, module.momentum)
    return all(map(is_number, numbers)) and module.eps >= MIN_EPS and module.training


def _is_activation(module: nn.Module) -> bool:
    """Return whether the compiled code has the activation and its gradient."""
    if isinstance(module, nn.GELU):
        return module.approximate == "none"
    lowest = 1e-6 if isinstance(module, nn.ELU) else 0.0
    return is_number(slope := slope_of(module)) and lowest <= slope < inf


def _flat(module: nn.Module | None) -> Iterator[nn.Module | None]:
    """Yield the modules that nested Sequentials call, in their order."""
    if (
        type(module) is nn.Sequential
        and is_untouched(module)
        and not (own_parameters(module) or own_buffers(module))
    ):
        for child in own_modules(module).values():
            yield from _flat(child)
    else:
        yield module


def _flattens(module: nn.Module) -> bool:
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


def slope_of(activation: nn.Module | None) -> Any:
    """Return the parameter of an activation, such as a leaky ReLU's slope, or 0."""
    return getattr(activation, "negative_slope", getattr(activation, "alpha", 0.0))
