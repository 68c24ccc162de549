"""Borrow torch's private hooks and modes, which have no public query.

`missing` names the parts that a new version of torch no longer has, and a test calls it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

# instance attributes of torch.optim's classes; any other was added by a user
OPTIMIZER_ATTRIBUTES = {
    *("defaults", "state", "param_groups", "step"),
    *("_zero_grad_profile_name", "_warned_capturable_if_run_uncaptured", "_opt_called"),
    *("_need_device_dtype_check_for_fused", "_step_supports_amp_scaling"),
}


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
    }  # fmt: skip
    gone = [
        f"this version of torch has no {name} of {whose}"
        for whose, (owner, names) in borrowed.items()
        for name in names
        if not hasattr(owner, name)
    ]
    hooks = {name for name in vars(optimizer) if name.endswith("_hooks")}
    added = set(vars(optimizer)) - hooks - OPTIMIZER_ATTRIBUTES
    return gone + [f"this version of torch gives an optimizer {name}" for name in sorted(added)]
