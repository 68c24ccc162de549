"""Which trainings the compiled engine supports, by exact types, never by trying."""

from collections.abc import Callable, Iterator, Mapping
from math import inf, prod
from typing import Any

import torch
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
from optbench.problem import Problem
from optbench.torch_internals import torch_is_plain

MAX_EXAMPLES, MAX_LAYERS = 512, 16  # in a batch and in a model; as in mlp.hpp
# in the order of mlp.hpp
ACTIVATIONS = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.ELU)
OPTIMIZERS = (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta)
# the numbers of a group beside lr, weight_decay and betas
GROUP_NUMBERS = ("momentum", "dampening", "eps", "alpha", "lr_decay", "rho")
MIN_EPS = 1e-12  # with a smaller one float32's subnormal numbers matter, which mlp.cpp takes for 0


def refusal(problem: Problem, model: nn.Module, optimizer: Optimizer) -> str:
    """Return in words which part of a training is not supported; "" where none."""
    if not torch_is_plain():
        return "a hook or a mode of torch's changes or watches what modules and steps compute"
    found = model_refusal(problem, model) or optimizer_refusal(optimizer)
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not found and owned != {id(p) for p in model.parameters()}:
        return "the optimizer does not have exactly the model's parameters"
    return found


def supports_model(problem: Problem, model: nn.Module) -> bool:
    """Return whether mlp.cpp computes the loss of a model; see `model_refusal`."""
    return not model_refusal(problem, model)


def model_refusal(problem: Problem, model: nn.Module) -> str:
    """Return in words why mlp.cpp does not support problem and model, or "".

    Torch is faster on batches of more than 512 examples.
    """
    if not _is_cross_entropy(problem.loss):
        return "the loss is none of optbench's cross_entropy and nll"
    if problem.precision != "float32":
        return f"the precision is {problem.precision}, and it computes in float32"
    if problem.weight_penalty:
        return "there is a weight_penalty"
    x, y = problem.dataset.train_x, problem.dataset.train_y
    if problem.batch_examples > min(MAX_EXAMPLES, len(y) - 1):  # the whole set has no indices
        return f"a batch of {problem.batch_examples} is the whole set, or more than {MAX_EXAMPLES}"
    if not (_is_array(x, torch.float32) and _is_array(y, torch.int64)):
        return "the data are no plain arrays of float32 and labels on the CPU"
    if not all(_is_array(p.detach(), torch.float32) for p in model.parameters()):
        return "the model's parameters are no plain arrays of float32 on the CPU"
    chain = linear_chain(model)
    if not 0 < len(chain) <= MAX_LAYERS or chain[-1][1] is not None:
        return (
            "the model is no chain of at most 16 plain linear layers with activations between "
            "them (identity, relu, leaky_relu, sigmoid, tanh, elu), without dropout or batch norm"
        )
    labelled = bool(y.min() >= 0 and y.max() < chain[-1][0].out_features)
    if not labelled or chain[0][0].in_features != prod(problem.dataset.input_shape):
        return "the model's first or last layer does not fit the data"
    return ""


def _is_array(t: Tensor, dtype: torch.dtype) -> bool:
    """Return whether compiled code can read a tensor where it lies in memory."""
    plain = type(t) is Tensor and t.layout is torch.strided and t.device.type == "cpu"
    return plain and t.dtype is dtype and t.is_contiguous()


def _is_cross_entropy(loss: Callable[..., Tensor]) -> bool:
    function, settings = unwrap(loss)
    if function is losses.nll:
        return not settings
    smoothing = settings.pop("label_smoothing", 0.0)
    right = is_number(smoothing) and 0 <= smoothing < 1
    return function is losses.cross_entropy and not settings and right


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


def linear_chain(model: nn.Module) -> list[tuple[nn.Linear, nn.Module | None]]:
    """Return the linear layers, each with its activation; [] if the model is no chain."""
    found: list[tuple[nn.Linear, nn.Module | None]] = []
    if not weights_are_plain(model):
        return []
    for module in _flat(model):
        last = found[-1] if found else None
        if module is None or not is_untouched(module):
            return []
        if type(module) is nn.Linear:
            if last and last[0].out_features != module.in_features:
                return []
            if not holds(module, ("weight", "bias")) or not module.weight.numel():
                return []
            if module.weight.shape != (module.out_features, module.in_features):
                return []  # the weight was cut or replaced
            if module.bias is not None and module.bias.shape != (module.out_features,):
                return []
            found.append((module, None))
        elif not holds(module):
            return []
        elif type(module) in ACTIVATIONS and last and last[1] is None:
            lowest = 1e-6 if isinstance(module, nn.ELU) else 0.0
            if not is_number(slope := slope_of(module)) or not lowest <= slope < inf:
                return []  # the gradient cannot be told from the output
            found[-1] = (last[0], module)
        elif found or not _flattens(module):
            return []
    own = [linear for linear, _ in found]
    return found if len(set(own)) == len(own) else []


def _flat(module: nn.Module | None) -> Iterator[nn.Module | None]:
    """Yield the modules that nested Sequentials call, in their order."""
    if (
        type(module) is nn.Sequential
        and is_untouched(module)
        and not (module._parameters or module._buffers)
    ):
        for child in module._modules.values():
            yield from _flat(child)
    else:
        yield module


def _flattens(module: nn.Module) -> bool:
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


def slope_of(activation: nn.Module | None) -> Any:
    """Return the parameter of an activation, such as a leaky ReLU's slope, or 0."""
    return getattr(activation, "negative_slope", getattr(activation, "alpha", 0.0))
