"""Train one optimizer on one problem with one seed, and yield updates.

The loop knows nothing of files or configurations. The clock stops during evaluation. No step waits
for the device: the losses of a chunk of steps stay there, and are read together.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from math import isfinite
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optbench import optimizers, schedules
from optbench.common.console import warn
from optbench.common.errors import UserError, blame
from optbench.models import draw_from
from optbench.problem import Problem
from optbench.streams import Stream, stream
from optbench.training import closures, evaluation, saved_state
from optbench.training.batch_statistics import has_statistics, recomputed
from optbench.training.batches import Batch, Batches, announce, examples_of
from optbench.training.evaluation import Row, is_finite, objective
from optbench.training.internals import Internals
from optbench.training.layer_stats import step_with_layer_stats
from optbench.training.object_state.global_state import GlobalState
from optbench.training.recipes import Recipe
from optbench.training.recipes.applied import AppliedRecipe
from optbench.training.setup import asked_of_parts, budget_of, make_model
from optbench.training.sharpness import sharpness as sharpness_of
from optbench.training.stepping import Stepper
from optbench.training.steps import (
    Engine,
    EngineFactory,
    GradientEngine,
    LayerRow,
    StepEngine,
    Update,
    next_lrs,
)
from optbench.trial import copy_of

WARMUP_STEPS = 2  # plain steps, which create the optimizer's state before an engine takes over
STOP_CHECK_SECONDS = 0.5  # longest call of an engine; Ctrl-C is noticed between two calls
SYNC_EVERY = 100  # steps of a chunk; reading its losses waits for the device, so it is rare


class Training:
    """A run in progress; its `state_dict` resumes the run bit for bit."""

    def __init__(
        self,
        problem: Problem,
        optimizer: Callable[..., Optimizer],
        *,
        seed: int = 0,
        schedule: Callable[[Optimizer, int], LRScheduler | None] | None = None,
        decay_biases_and_norms: bool = True,
        device: torch.device | str = "cpu",
        log_every: int = 10,
        eval_every: int = 1,
        eval_train_examples: int | None = None,
        eval_test: str = "each",
        layers: bool = False,
        layers_every: int | None = None,
        engine: EngineFactory | None = None,
        channels_last: bool = True,
        recipe: Recipe | None = None,
        log_optimizer: Sequence[str] = (),
        sharpness: bool = False,
    ) -> None:
        """Build model, optimizer and schedule.

        optimizer: from parameters to an optimizer, such as `partial(torch.optim.Adam, lr=1e-3)`.
        log_every: steps between rows in `Update.steps`. eval_every: epochs between evaluations.
        eval_train_examples: how many training examples to evaluate; None: all.
        eval_test: evaluate the test set "each" time, at the "end" only, or "never".
        layers: log statistics of the layers at the first step and then every `layers_every` steps,
        by default at the last step before each evaluation. The clock stops during these watched
        steps.
        engine: a function that returns the run's engine, or None where no engine serves the run. A
        `StepEngine` takes all steps but the first few and the watched ones. A `GradientEngine`
        computes all gradients but those of watched steps. None: plain steps.
        channels_last: store convolutions' weights in this layout, if the layers and the optimizer
        are known to compute the same in any layout.
        recipe: clipping, accumulation, averaging, augmentation and early ends; None: none of them.
        log_optimizer: numbers of the optimizer to log; see `internals`. No engine then takes whole
        steps.
        sharpness: measure the largest eigenvalue of the Hessian at each evaluation, over the
        training examples that are evaluated: see `sharpness`.

        The seed sets the weights, the order of the batches, and three streams of the global
        generators: for the model with its loss, for the optimizer, and for each evaluation. The
        caller's generators are left as they were.

        Raises `UserError` where the model, loss, optimizer or recipe does not fit the problem.
        """
        recipe = recipe or Recipe()
        recipe.check(problem, torch.device(device), watched=layers)
        problem = replace(problem, loss=copy_of(problem.loss))  # a loss may count its calls
        self.problem, self.seed = problem, seed
        self.total_steps, self.steps_per_epoch = problem.total_steps, problem.steps_per_epoch
        optimizer = optimizers.with_budget(optimizer, budget_of(problem))
        self.device = torch.device(device)
        self.draws = Stream(seed, "model", self.device)
        own = Stream(seed, "optimizer", self.device)
        self.global_state = GlobalState(problem, optimizer, schedule)
        with self.global_state:
            self.model, self.data = make_model(
                problem, optimizer, seed, self.device, channels_last=channels_last
            )
            self.noise = stream(seed, "dropout", self.device)
            draw_from(self.model, self.noise)
            self.applied = AppliedRecipe(recipe, problem, self.model, seed, self.device)
            decay = decay_biases_and_norms
            build = partial(optimizers.build, decay_biases_and_norms=decay)
            ask = partial(asked_of_parts, optimizer, build, self.model)
            with own:
                self.optimizer = build(optimizer, self.model)
                self.applied.take_decay(self.optimizer)
                self.stepper = Stepper(
                    self.optimizer,
                    self.model,
                    self._loss,
                    own,
                    evaluates_first=partial(ask, closures.evaluates_first, any_part=False),
                    wants_graph=partial(ask, closures.wants_graph, any_part=True),
                    gradients=self.applied.gradients,
                )
                self.scheduler = schedules.build(schedule, self.optimizer, problem.total_steps)
            self.global_state.see(self.model, self.optimizer, self.scheduler)
        self.parameters = list(self.model.parameters())
        self._frozen = [p for p in self.parameters if not p.requires_grad]
        self.batches = Batches(problem, seed, self.device)
        self.log_every, self.eval_every = log_every, eval_every
        self.eval_train_examples, self.eval_test = eval_train_examples, eval_test
        self.layers, self.layers_every = layers, layers_every
        self.sharpness = sharpness
        self.engine: Engine | None = None
        watched = layers and layers_every == 1  # no step is left for an engine
        if engine is not None and not watched:
            self.engine = engine(problem, self.model, self.optimizer, self.scheduler, recipe)
        self.internals: Internals | None = None
        if log_optimizer:
            self.internals = Internals(log_optimizer, self.optimizer, self.model)
            self.engine = None if isinstance(self.engine, StepEngine) else self.engine
        self._step_engine = self.engine if isinstance(self.engine, StepEngine) else None
        self._inside: dict[int, Row] = {}  # the internals after some of the chunk's steps
        self._gradient_engine = self.engine if isinstance(self.engine, GradientEngine) else None
        if self._gradient_engine is not None:
            self.stepper.engine = self._gradient_engine
        self._steps_a_call = 2  # the most steps an engine takes before `stop` is asked
        self._paused = 0.0  # seconds of the current chunk in which the clock stood
        self.step, self.seconds, self.total_seconds = 0, 0.0, 0.0
        self.running_loss, self.seen = 0.0, 0  # the current epoch's sum of losses, and its examples
        self._losses: list[Tensor] = []  # not yet read from the device
        self._warned = False  # whether the user knows that optimizer and schedule both set the lr

    def updates(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Update]:
        """Train from the current state to the end of the budget, and yield updates.

        stop: asked after each step, or every half second of an engine's steps; True ends the run
        with status "interrupted".
        """
        found = self._updates(stop)
        try:
            while True:
                with self.global_state:
                    update = next(found, None)
                if update is None:
                    return
                yield update
        finally:
            self.global_state.end()

    def _updates(self, stop: Callable[[], bool]) -> Iterator[Update]:
        total, per_epoch = self.total_steps, self.steps_per_epoch
        begun = perf_counter() - self.total_seconds
        if self.step == 0:
            row = self._evaluate(begun)
            yield Update(0, total, epoch=row)
            if not is_finite(row):
                yield Update(0, total, status="diverged")
                return
        while self.step < total:
            place = self.step % per_epoch  # not 0 where a run resumes within an epoch
            epoch = self.batches.epoch()[: total - self.step + place]
            announce(self.data, epoch[place:])
            if place == 0:
                self.running_loss, self.seen = 0.0, 0
            for start in range(place, len(epoch), SYNC_EVERY):
                update = self._advance(epoch[start : start + SYNC_EVERY], stop)
                late = self.applied.endings.is_late(self.seconds)
                if update.status != "diverged" and (late or self.is_evaluated(self.step)):
                    # also in an interrupted run, which resumes with the step after this evaluation
                    update.epoch = self._evaluate(begun)
                    last = self.step == total
                    if not is_finite(update.epoch):
                        update.status = "diverged"
                    elif (why := self.applied.reason_to_end(update.epoch, last=last)) or last:
                        update.status, update.stopped = "completed", why
                        if self.eval_test == "end" and not last:
                            update.epoch |= self._scores(tested=True)
                self.total_seconds = perf_counter() - begun
                yield update
                if update.status != "running":
                    return

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values from which an equal `Training` resumes.

        Call it between two updates. Raises `object_state.Unsaveable`.
        """
        return saved_state.state_dict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state of a training that was made with the same arguments.

        Raises ValueError for counters that no run has between two steps, and torch's errors for
        other shapes. Do not use the training after an error.
        """
        saved_state.load_state_dict(self, state)

    def is_evaluated(self, step: int) -> bool:
        """Return whether an evaluation follows a step."""
        return step == self.total_steps or step % (self.steps_per_epoch * self.eval_every) == 0

    def _is_watched(self, step: int) -> bool:
        if not self.layers or step == 1:
            return self.layers
        return step % self.layers_every == 0 if self.layers_every else self.is_evaluated(step)

    def _advance(self, chunk: list[Batch], stop: Callable[[], bool]) -> Update:
        """Take the steps of a chunk, or fewer if `stop` says so or the loss is not finite."""
        layers: list[LayerRow] = []
        rates: list[float | None] = []
        spent: list[tuple[int, int]] = []  # passes until each step, forward and back
        self._paused, interrupted = 0.0, False
        tick = perf_counter()
        if any(p.requires_grad for p in self._frozen):
            raise UserError(
                "a parameter that was frozen when the optimizer was made requires a gradient now, "
                "and the optimizer does not have it: make the model with requires_grad=True "
                "everywhere, and freeze the layer at its first forward while training"
            )
        with self.draws:
            while len(rates) < len(chunk) and not interrupted:
                number = self.step + len(rates) + 1
                batches = self._for_engine(chunk[len(rates) :], number)[: self._steps_a_call]
                if batches and self._step_engine is not None:
                    begun = perf_counter()
                    lrs = next_lrs(self.optimizer, self.scheduler, len(batches))
                    x, y = self.data.train_x, self.data.train_y
                    self._losses.append(self._step_engine.steps(x, y, batches, lrs))
                    for _ in batches:
                        self.stepper.spent.add_gradient()
                        spent.append(self.stepper.spent.passes)
                    each = max((perf_counter() - begun) / len(batches), 1e-9)
                    self._steps_a_call = max(2, min(SYNC_EVERY, int(STOP_CHECK_SECONDS / each)))
                    rates += [of_groups[0] for of_groups in lrs]
                else:
                    rates.append(optimizers.learning_rate(self.optimizer))
                    layers += self._take_step(chunk[len(rates) - 1], number)
                    spent.append(self.stepper.spent.passes)
                seconds = self.seconds + perf_counter() - tick - self._paused
                if self.applied.endings.is_late(seconds):
                    break
                interrupted = stop()
        values = torch.cat(self._losses).tolist()  # waits for the device
        self._losses.clear()
        elapsed = perf_counter() - tick - self._paused
        sizes = [len(b) for b in chunk[: len(values)]]
        update = self.log_steps(values, rates, sizes, elapsed, spent)
        update.layers = layers
        if update.status == "running" and interrupted and self.step < self.total_steps:
            update.status = "interrupted"
        return update

    def _take_step(self, batch: Batch, number: int) -> list[LayerRow]:
        """Take a step with torch, and return its rows of layers.csv if it is watched."""
        x, y = examples_of(self.data, batch)
        x = self.applied.augmented(x)
        seen: list[LayerRow] = []
        inside = self.internals if self._is_logged(number) else None
        if inside is not None:
            begun = perf_counter()
            inside.before_step()
            self._paused += perf_counter() - begun
        rate = optimizers.learning_rate(self.optimizer)
        if self._is_watched(number):
            begun = perf_counter()
            with self.stepper.plain():
                rows, loss = step_with_layer_stats(self.model, self.stepper, self._loss, x, y)
            at: LayerRow = {"epoch": number / self.steps_per_epoch, "step": number}
            seen = [at | row for row in rows]
            self._paused += perf_counter() - begun
        else:
            loss = self.stepper.step(x, y)
            self._paused += self.stepper.paused
            if self._gradient_engine is not None:
                self._paused += self._gradient_engine.paused
                self._gradient_engine.paused = 0.0
        self.stepper.paused = 0.0
        self._losses.append(loss.view(1))
        if inside is not None:
            begun = perf_counter()
            self._inside[number] = inside.after_step()
            self._paused += perf_counter() - begun
        self._say_of_two_schedules(rate)
        if self.applied.averaged is not None:
            with self.stepper.evaluated() if self.stepper.has_modes else nullcontext():
                self.applied.see_step(self.model, number)
        if self.scheduler is not None and not schedules.wants_metric(self.scheduler):
            draws = nullcontext() if schedules.is_known(self.scheduler) else self.stepper.draws
            with blame(f"a step of {type(self.scheduler).__name__} failed"), draws:
                self.scheduler.step()
        return seen

    def log_steps(
        self,
        losses: Sequence[float],
        rates: Sequence[float | None],
        sizes: Sequence[int],
        elapsed: float,
        spent: Sequence[tuple[int, int]],
    ) -> Update:
        """Count the steps up to the first loss that is not finite; return their rows.

        losses, rates, sizes, spent: the loss, lr and batch size of each step, and the passes
        forward and back until then.
        """
        update = Update(self.step, self.total_steps, loss=losses[-1])
        steps = zip(losses, rates, sizes, spent, strict=True)
        for i, (loss, rate, size, (forwards, gradients)) in enumerate(steps, start=1):
            self.step += 1
            self.running_loss += loss * size
            self.seen += size
            bad = not isfinite(loss)
            if bad or self._is_logged(self.step):
                row: Row = {"step": self.step, "epoch": self.step / self.steps_per_epoch}
                row |= {"train_loss": loss, "lr": rate}
                row |= {"forwards": forwards, "gradients": gradients}
                row |= self._inside.get(self.step, {})
                update.steps.append(row | {"seconds": self.seconds + elapsed * i / len(losses)})
            if bad:
                update.status = "diverged"
                break
        self.seconds += elapsed
        self._inside.clear()
        update.step = self.step
        return update

    def _is_logged(self, step: int) -> bool:
        """Return whether a step has a row in steps.csv."""
        return step % self.log_every == 0 or step in (1, self.total_steps)

    def _say_of_two_schedules(self, rate: float | None) -> None:
        """Warn once if both the optimizer and the schedule set the lr."""
        if self.scheduler is None or self._warned or rate is None:
            return
        if optimizers.learning_rate(self.optimizer) != rate:
            self._warned = True
            name = type(self.optimizer).__name__
            warn(
                f"{name} changes its own learning rate while it trains, and the schedule sets it "
                f"again after each step: schedule=constant leaves it to {name}"
            )

    def _for_engine(self, batches: list[Batch], number: int) -> list[Tensor]:
        """Return the batches from step `number` on that the engine can take in one call."""
        found: list[Tensor] = []
        if self._step_engine is not None and number > WARMUP_STEPS:
            for place, batch in enumerate(batches, start=number):
                if isinstance(batch, range) or len(batch) != len(batches[0]):
                    break
                if self._is_watched(place):
                    break
                found.append(batch)
        return found

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return objective(self.problem, self.model, x, y)

    def _scores(self, *, tested: bool) -> Row:
        """Return the scores of the model and of its averaged weights."""
        self.model.eval()
        self.stepper.switch_mode(training=False, stepped=self.step > 0)
        # a new stream each time, so that the number of evaluations changes no random draw
        draws = Stream(self.seed, "evaluation", self.device)
        score = partial(
            evaluation.scores, self.problem, data=self.data,
            train_examples=self.eval_train_examples, tested=tested,
        )  # fmt: skip
        statistics: AbstractContextManager[None] = nullcontext()
        if self.step and self.stepper.has_modes and has_statistics(self.model):
            # the statistics of the training belong to other weights than the evaluated ones
            statistics = recomputed(self.problem, self.model, self.data.train_x, self.seed)
        with draws, blame("the evaluation of the model failed"):
            with statistics:
                found = score(self.model)
                if self.sharpness:
                    examples = self.data.scored_train(self.eval_train_examples)
                    found |= sharpness_of(self.problem, self.model, self.optimizer, *examples)
            found |= self.applied.averaged_scores(score, self.data.train_x)
        self.model.train()
        self.stepper.switch_mode(training=True, stepped=self.step > 0)
        return found

    def _evaluate(self, begun: float) -> Row:
        last = self.step == self.total_steps
        tested = self.eval_test == "each" or (self.eval_test == "end" and last)
        row: Row = {"epoch": self.step / self.steps_per_epoch, "step": self.step}
        row |= self._scores(tested=tested)
        row |= {"running_loss": self.running_loss / self.seen if self.seen else None}
        row |= {"seconds": self.seconds, "total_seconds": perf_counter() - begun}
        row |= vars(self.stepper.spent)
        if self.step and self.scheduler is not None and schedules.wants_metric(self.scheduler):
            value = row["train_loss"] if row["val_loss"] is None else row["val_loss"]
            with blame(f"a step of {type(self.scheduler).__name__} failed"):
                self.scheduler.step(value)  # type: ignore[arg-type]  # ReduceLROnPlateau takes one
        return row
