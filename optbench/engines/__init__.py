"""Select one of the optional engines, which take training steps faster.

`auto` is the first engine, in a fixed order, that serves every optimizer of a problem. `auto`
measures nothing, and plain steps are faster for some models (docs/performance.md).

An engine may change nothing but the speed of steps. The core runs and passes its tests without this
folder. An engine stays only if a measurement shows that it is faster.
"""

from functools import partial
from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench import schedules
from optbench.common.errors import UserError
from optbench.formats.record import TORCH_COMPILE, setting_of
from optbench.problem import Problem
from optbench.training.loop import WARMUP_STEPS
from optbench.training.recipes import Recipe

if TYPE_CHECKING:
    from optbench.training.steps import Engine

# the order in which `auto` asks; plain steps come last
NAMES = ("compiled_mlp", "compiled_gradients")


def select(
    name: str,
    problem: Problem,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    recipe: Recipe | None = None,
    *,
    required: bool = True,
) -> "Engine | None":
    """Return the named engine for a training, or None for plain steps.

    name: "plain", "auto" (the first of NAMES that serves), one of NAMES, or "torch_compile".
    required: raise `UserError` where a named engine does not serve; else steps are plain.
    """
    for candidate in NAMES if name == "auto" else (name,) if name != "plain" else ():
        why = refusal(candidate, problem, model, optimizer, scheduler, recipe)
        if not why and candidate == TORCH_COMPILE:
            from optbench.engines.torch_compile import TorchCompiled

            return TorchCompiled(problem, model)
        if not why:
            from optbench.engines.compiled_mlp.mlp import CompiledGradients, CompiledMlp

            if candidate == "compiled_mlp":
                return CompiledMlp(problem.loss, model, optimizer)
            still = partial(refusal, candidate, problem, model, optimizer)
            return CompiledGradients(problem.loss, model, optimizer, still)
        if required and name != "auto":
            raise UserError(
                f"{setting_of(name)} does not serve this run: {why}. Leave it out (engine=auto "
                f"takes what serves), or use engine=plain"
            )
    return None


def refusal(
    name: str,
    problem: Problem,
    model: nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None = None,
    recipe: Recipe | None = None,
) -> str:
    """Return in words why an engine does not serve a training; "" where it does."""
    if name == TORCH_COMPILE:
        from optbench.engines import torch_compile

        if recipe is not None and recipe.accumulate > 1:
            return "accumulate has micro-batches"
        if problem.precision == "float16":
            return "the loss is scaled at precision=float16"
        return torch_compile.refusal(model, optimizer)
    from optbench.engines.compiled_mlp import eligibility, mlp

    if name not in NAMES:
        return f"there is no engine of that name, but {', '.join(NAMES)}"
    if any(p.device.type != "cpu" for p in model.parameters()):
        return "it computes on the CPU: device=cpu"
    whole = name == "compiled_mlp"
    if whole and problem.total_steps <= WARMUP_STEPS:
        return f"the first {WARMUP_STEPS} steps are always plain, and the run has no more"
    if why := eligibility.recipe_refusal(recipe or Recipe(), whole=whole):
        return why
    if why := eligibility.refusal(problem, model, optimizer):
        return why
    if whole and (why := eligibility.optimizer_refusal(optimizer)):
        return why
    if whole and not schedules.changes_only_lr(scheduler):  # a rule is compiled with its settings
        return f"the schedule ({type(scheduler).__name__}) may change more than lr"
    return "" if mlp.available() else "it needs a C++ compiler: g++, clang++ or what CXX names"
