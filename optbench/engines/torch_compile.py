"""Compile model and loss by `torch.compile`, for any model, on CPU and CUDA.

The engine of `compile=true`, which `auto` never takes: the compilation lasts seconds to minutes,
and pays for large models alone.
"""

import os
import shutil
from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench.common.errors import UserError
from optbench.problem import Problem
from optbench.torch_internals import check_compiler, compiler_error
from optbench.training.evaluation import objective

CPU_COMPILERS = ("g++", "clang++", "c++")


class TorchCompiled:
    """Gradients of a compiled objective; see `GradientEngine`.

    Watched steps and evaluations stay plain. Random numbers are those of plain steps. The clock
    stops during the first step with each batch size, which compiles.
    """

    name = "torch_compile"
    draws = True

    def __init__(self, problem: Problem, model: nn.Module) -> None:
        """Prepare the objective, which the first step with each batch size compiles."""
        self._problem, self._model = problem, model
        self._compiled: Callable[[Tensor, Tensor], Tensor] | None = None
        self._sizes: set[int] = set()  # of batches that were compiled
        self.paused = 0.0

    def gradients(self, x: Tensor, y: Tensor) -> Tensor | None:
        """Put the gradients of a batch's loss into `p.grad`, and return the loss."""
        begun = perf_counter()
        if self._compiled is None:
            # torch limits how often a process compiles; this run needs nothing of earlier runs
            torch.compiler.reset()
            self._compiled = torch.compile(
                lambda x, y: objective(self._problem, self._model, x, y),
                dynamic=False,
                options={"fallback_random": True},
            )
        try:
            loss = self._compiled(x, y)
            loss.backward()
        except compiler_error() as error:
            words = str(error).strip().splitlines()[0]
            raise UserError(
                f"torch.compile failed: {words}. Leave compile out (compile=false)"
            ) from error
        if len(x) not in self._sizes:  # compiled in this call
            self._sizes.add(len(x))
            self.paused += perf_counter() - begun
        return loss


def refusal(model: nn.Module, optimizer: Optimizer) -> str:
    """Return in words why `torch.compile` does not serve a training; "" where it does."""
    if getattr(type(optimizer), "zero_grad", None) is not Optimizer.zero_grad:
        return "the optimizer has a zero_grad of its own, which may keep gradients"
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    compilers = [os.environ["CXX"]] if os.environ.get("CXX") else CPU_COMPILERS
    if on_cpu and not any(map(shutil.which, compilers)):
        return "torch.compile needs a C++ compiler: g++, clang++ or what CXX names"
    try:
        check_compiler()
    except RuntimeError as error:  # of a Python or a system that torch does not compile on
        return f"torch.compile is not there: {error}"
    return ""
