"""A training step with any optimizer: its gradients, closure and random draws."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Adagrad, Optimizer

from optbench import perturbation, textbook
from optbench.common.errors import UserError, blame
from optbench.optimizers import is_known
from optbench.streams import Stream
from optbench.training.closures import step_function, takes_closure
from optbench.training.recipes.gradients import Gradients
from optbench.training.spent import Spent, wants_graph_now
from optbench.training.steps import GradientEngine

# these call the closure before they use a gradient
EVALUATE_FIRST = (LBFGS, textbook.Nesterov, perturbation.WeightPerturbation)


class Stepper:
    """Steps of one optimizer on one model.

    Gradients are computed before `optimizer.step()`. This serves classes that take no closure,
    ignore it, or need gradients first (SAM). A class that takes a closure also gets one. The
    closure's first call returns the same gradients, unless the optimizer has moved the weights.
    Each further call evaluates the model again. A class that evaluates the model first gets the
    closure alone. A class that differentiates gradients gets the gradients with their graph.

    spent: the passes of all steps. paused: seconds spent on copies that a plain step would not
    need; the caller resets them.
    engine: None, or the engine that computes gradients where it can.
    """

    engine: GradientEngine | None = None

    def __init__(
        self,
        optimizer: Optimizer,
        model: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        draws: Stream,
        *,
        evaluates_first: Callable[[], bool] = lambda: False,
        wants_graph: Callable[[], bool] = lambda: False,
        gradients: Gradients | None = None,
    ) -> None:
        """Prepare the steps; call this before a schedule hides the signature of `step`.

        loss: `(x, y)` to the loss of a batch. draws: the random stream of an unknown class.
        evaluates_first, wants_graph: ask the functions of `closures` about an unknown class at the
        first step.
        gradients: make the gradients by a recipe; None: as torch does.
        """
        self.gradients = gradients or Gradients()
        self.optimizer, self.loss, self.draws = optimizer, loss, draws
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.known = is_known(optimizer)
        self.with_closure = takes_closure(optimizer) and not self.known
        self._step = step_function(optimizer)
        named = type(optimizer) in EVALUATE_FIRST
        self._around = nullcontext() if self.known else draws
        self._ask, self._ask_for_graph = evaluates_first, wants_graph
        self.evaluates_first = None if self.with_closure else named  # None: not asked yet
        self.wants_graph = False if self.known else None
        self.spent = Spent()
        own_zero = getattr(type(optimizer), "zero_grad", None)
        self._zero_grad = optimizer.zero_grad if own_zero is not Optimizer.zero_grad else None
        self.paused = 0.0

    def step(
        self, x: Tensor, y: Tensor, see_gradients: Callable[[], None] = lambda: None
    ) -> Tensor:
        """Take a step on a batch and return the loss of its first evaluation, a scalar.

        see_gradients: called once, when the first gradients are in `p.grad`.
        Raises `CodeError` for errors of the optimizer or the model.
        """
        self._ask_once()
        with blame(f"a step with {type(self.optimizer).__name__} failed"):
            if self.evaluates_first:
                return self._evaluating_first(x, y, see_gradients)
            loss = self.take_gradients(x, y)
            self._avoid_fused_sparse()
            see_gradients()
            self.spent.count_products(self.parameters)
            asked = self.with_closure and self.gradients.scaler is None
            closure = self._closure(x, y, loss) if asked else None
            take = self.optimizer.step if closure is None else partial(self._step, closure)
            with self._around:
                self.gradients.step(self.optimizer, take)
            return loss.detach()

    def _ask_once(self) -> None:
        """Ask at the first step what the class needs, and refuse a misfit."""
        tick = perf_counter()
        if self.evaluates_first is None:
            self.evaluates_first = self._ask()
        if self.wants_graph is None:
            self.wants_graph = self._ask_for_graph()
        self.paused += perf_counter() - tick
        name, manner = type(self.optimizer).__name__, "evaluates the loss itself"
        if self.wants_graph:
            manner = "differentiates gradients again"
        if (self.evaluates_first or self.wants_graph) and self.gradients.scaler is not None:
            raise UserError(
                f"{name} {manner}, and precision=float16 scales the loss: use precision=bfloat16 "
                f"or float32"
            )

    @property
    def has_modes(self) -> bool:
        """Return whether the optimizer has weights for training and others for evaluation."""
        return callable(getattr(self.optimizer, "eval", None))

    def switch_mode(self, *, training: bool, stepped: bool) -> None:
        """Switch the optimizer to training or evaluation. stepped: it has taken a step.

        Schedule-free optimizers keep two sets of weights, one for each mode. Before the first step
        they have no second set, and some raise when asked for it.
        """
        name = "train" if training else "eval"
        switch = getattr(self.optimizer, name, None)
        if callable(switch) and (training or stepped):
            with self.draws, blame(f"{type(self.optimizer).__name__}.{name}() failed"):
                try:
                    switch()
                except AttributeError as error:
                    # a wrapper may pass the call to an optimizer without such a method
                    if error.name not in ("train", "eval"):
                        raise

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Switch the weights to evaluation within the block, and restore them exactly.

        Switching back rounds the weights, so they are restored from copies.
        """
        weights = [p.detach().clone() for p in self.parameters]
        self.switch_mode(training=False, stepped=True)
        yield
        self.switch_mode(training=True, stepped=True)
        with torch.no_grad():
            for p, before in zip(self.parameters, weights, strict=True):
                p.copy_(before)

    def kept_gradients(self) -> list[Tensor | None] | None:
        """Return the gradients that a class's own `zero_grad` may keep.

        None for torch's `zero_grad`, which keeps none.
        """
        if self._zero_grad is None:
            return None
        return [None if p.grad is None else p.grad.detach() for p in self.parameters]

    def keep_gradients(self, gradients: list[Tensor | None] | None) -> None:
        """Restore the gradients that `kept_gradients` returned."""
        if gradients is not None:
            for p, gradient in zip(self.parameters, gradients, strict=True):
                p.grad = gradient

    def take_gradients(self, x: Tensor, y: Tensor, *, within_step: bool = False) -> Tensor:
        """Put the gradients of a batch's loss into `p.grad`, and return the loss.

        within_step: the optimizer's random stream is in place, and the model needs its own.
        """
        self.spent.add_gradient()
        loss: Tensor | None = None
        if self._zero_grad is None:
            for p in self.parameters:
                p.grad = None
            if self.engine is not None and not self.wants_graph:
                with self.draws.left() if within_step and self.engine.draws else nullcontext():
                    loss = self.engine.gradients(x, y)
        if loss is None:
            with self.draws.left() if within_step else nullcontext():
                loss = self._plain_gradients(x, y)
        self.gradients.finish(self.optimizer, self.parameters)
        return loss

    def _plain_gradients(self, x: Tensor, y: Tensor) -> Tensor:
        if self._zero_grad is not None:  # it may keep gradients, to sum over several steps
            self._zero_grad()
        graph_of = self.parameters if self.wants_graph and wants_graph_now(self.optimizer) else None
        return self.gradients.backward(self.loss, x, y, graph_of)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Let torch compute the gradients within the block."""
        engine, self.engine = self.engine, None
        try:
            yield
        finally:
            self.engine = engine

    def _avoid_fused_sparse(self) -> None:
        """Switch the fused kernel off if gradients are sparse, which it would refuse."""
        if self.known and (not self.optimizer.state or type(self.optimizer) is Adagrad):
            fused = [group for group in self.optimizer.param_groups if group.get("fused")]
            if fused and any(p.grad is not None and p.grad.is_sparse for p in self.parameters):
                for group in fused:
                    group["fused"] = None

    def _evaluating_first(self, x: Tensor, y: Tensor, see_gradients: Callable[[], None]) -> Tensor:
        losses: list[Tensor] = []

        def closure() -> Tensor:
            with torch.enable_grad():
                losses.append(self.take_gradients(x, y, within_step=not self.known))
            self._decay_once(len(losses))
            self.spent.count_products(self.parameters)
            if len(losses) == 1:
                see_gradients()
            return losses[-1]

        with self._around:
            self._step(closure)
        if not losses:
            raise RuntimeError("it called its closure in its first steps, and not in this one")
        return losses[0].detach()

    def _decay_once(self, evaluations: int) -> None:
        """Decay the weights after a step's first evaluation: the gradient is of those before."""
        if self.gradients.decay is None:
            return
        if evaluations > 1:
            raise UserError(
                f"{type(self.optimizer).__name__} evaluates the loss several times in a step, and "
                f"decay_form moves the weights once: set decay_form=null"
            )
        self.gradients.decay.apply(self.optimizer)

    def _closure(self, x: Tensor, y: Tensor, loss: Tensor) -> Callable[[], Tensor]:
        """Return a closure for an unknown optimizer, to be called within `self.draws`."""
        tick = perf_counter()
        # values, not version counters: `p.data` changes weights without counting
        weights = [p.detach().clone() for p in self.parameters]
        gradients = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        self.paused += perf_counter() - tick
        first = True

        def closure() -> Tensor:
            nonlocal first
            if first:
                first = False
                tick = perf_counter()
                pairs = zip(self.parameters, weights, strict=True)
                unmoved = all(torch.equal(p.detach(), before) for p, before in pairs)
                self.paused += perf_counter() - tick
                if unmoved:
                    for p, gradient in zip(self.parameters, gradients, strict=True):
                        p.grad = gradient
                    return loss
            with torch.enable_grad():
                return self.take_gradients(x, y, within_step=True)

        return closure
