"""Borrow private parts of torch: hooks, modes, bases of layers and foreach calls.

`missing` names the parts that a new version of torch no longer has, and a test calls it.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler

# instance attributes of torch.optim's classes; any other was added by a user
OPTIMIZER_ATTRIBUTES = {
    *("defaults", "state", "param_groups", "step"),
    *("_zero_grad_profile_name", "_warned_capturable_if_run_uncaptured", "_opt_called"),
    *("_need_device_dtype_check_for_fused", "_step_supports_amp_scaling"),
}

# the bases of torch's layers, without a public name
CONVOLUTION = nn.modules.conv._ConvNd
BATCH_NORM = nn.modules.batchnorm._BatchNorm
NORM_WITH_STATISTICS = nn.modules.batchnorm._NormBase  # of batches or of instances


def add_each(tensors: Sequence[Tensor], others: Sequence[Tensor], factor: float) -> None:
    """Add `factor` times the others to the tensors in place, in few calls."""
    torch._foreach_add_(list(tensors), list(others), alpha=factor)


def multiply_each(tensors: Sequence[Tensor], factor: float) -> None:
    """Multiply the tensors in place, in few calls."""
    torch._foreach_mul_(list(tensors), factor)


def own_parameters(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Return the module's own parameters; None for one registered without a value."""
    return module._parameters


def own_buffers(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the module's own buffers; None for one registered without a value."""
    return module._buffers


def own_modules(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return the module's children by name; a child with two names is there twice."""
    return module._modules


def recurrent_names(layer: nn.RNNBase) -> list[str]:
    """Return the names of a recurrent layer's weights and biases."""
    return layer._flat_weights_names


def is_wrapped_by_schedule(step: Any) -> bool:
    """Return whether a schedule put this wrapper around the step of its optimizer."""
    return hasattr(step, "_wrapped_by_lr_sched")


def functions_of_schedule(scheduler: LRScheduler) -> list[Any]:
    """Return the functions that were given to a schedule, from steps to factors."""
    own = vars(scheduler)
    given = (*own.get("lr_lambdas", []), own.get("_scale_fn_custom"))
    return [function for function in given if function is not None]


def compiler_error() -> type[Exception]:
    """Return the class of what `torch.compile` raises. The compiler is imported here."""
    found: type[Exception] = torch._dynamo.exc.TorchDynamoException
    return found


def check_compiler() -> None:
    """Raise RuntimeError where torch compiles nothing on this Python or system."""
    torch._dynamo.eval_frame.check_if_dynamo_supported()


def torch_is_plain() -> bool:
    """Return whether no hook or mode of the process changes or watches computations."""
    watched = torch_module._has_any_global_hook() or bool(
        torch_optimizer._global_optimizer_pre_hooks or torch_optimizer._global_optimizer_post_hooks
    )
    changed = (
        torch.is_autocast_enabled("cpu")
        or torch.is_anomaly_enabled()
        or torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._autograd._top_saved_tensors_default_hooks(True)
    )
    return not watched and not changed


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Return whether a hook surrounds the steps of this optimizer, or of all."""
    everywhere = (
        torch_optimizer._global_optimizer_pre_hooks or torch_optimizer._global_optimizer_post_hooks
    )
    own = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    return bool(everywhere or own)


def has_forward_hooks(module: nn.Module) -> bool:
    """Return whether a hook surrounds the forward pass of this module."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def gradient_hooks(parameter: Tensor) -> list[Any]:
    """Return the hooks that receive the gradient of this parameter."""
    found = parameter._backward_hooks, parameter._post_accumulate_grad_hooks
    return [hook for hooks in found for hook in (hooks or {}).values()]


def missing() -> list[str]:
    """Return a sentence for each borrowed part that this version of torch lacks."""
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
    borrowed = {
        "torch.nn.modules.module": (torch_module, ["_has_any_global_hook"]),
        "torch.optim.optimizer": (
            torch_optimizer, ["_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"],
        ),
        "torch._C": (torch._C, ["_len_torch_function_stack", "_len_torch_dispatch_stack"]),
        "torch._C._autograd": (torch._C._autograd, ["_top_saved_tensors_default_hooks"]),
        "an optimizer": (
            optimizer, ["_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"],
        ),
        "a module": (
            nn.Module(),
            ["_forward_hooks", "_forward_pre_hooks", "_parameters", "_buffers", "_modules"],
        ),
        "a tensor": (torch.zeros(1), ["_backward_hooks", "_post_accumulate_grad_hooks"]),
        "torch": (torch, ["_foreach_add_", "_foreach_mul_"]),
        "a recurrent layer": (nn.LSTM(1, 1), ["_flat_weights_names"]),
        "a CyclicLR": (CyclicLR(optimizer, 0.1, 1, cycle_momentum=False), ["_scale_fn_custom"]),
        "a step under a schedule": (
            LambdaLR(optimizer, float).optimizer.step, ["_wrapped_by_lr_sched"],
        ),
        "torch._dynamo": (
            torch._dynamo, ["exc.TorchDynamoException", "eval_frame.check_if_dynamo_supported"],
        ),
    }  # fmt: skip
    gone = [
        f"this version of torch has no {name} of {whose}"
        for whose, (owner, names) in borrowed.items()
        for name in names
        if not _has(owner, name)
    ]
    hooks = {name for name in vars(optimizer) if name.endswith("_hooks")}
    added = set(vars(optimizer)) - hooks - OPTIMIZER_ATTRIBUTES
    return gone + [f"this version of torch gives an optimizer {name}" for name in sorted(added)]


def _has(owner: Any, path: str) -> bool:
    try:
        attrgetter(path)(owner)
    except AttributeError:
        return False
    return True
