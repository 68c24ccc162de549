"""Many runs trained at once: one vectorised pass gives all their gradients, and each keeps its own
weights, optimizer, learning rate, schedule, seed and rows, the same as alone within rounding.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from optbench import optimizers
from optbench.common.errors import UserError
from optbench.engines.cohort.eligibility import Arguments
from optbench.engines.cohort.stacked_models import Masks, Stack
from optbench.engines.cohort.stacked_optimizer import JointOptimizer, catch_up, joint_key, rates_at
from optbench.problem import build_model
from optbench.training.batches import Batch
from optbench.training.evaluation import means, score
from optbench.training.loop import CHUNK, Training, Update


def train_together(
    members: Sequence[Arguments], *, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, Update | Exception]]:
    """Train runs of one `grouping.group_key`; yields which member, and its update or what ended it.

    Each member's updates are those of `train`, but for rounding and times: `seconds` is its share,
    the cohort's time divided by its members; `total_seconds` is that of the whole cohort.
    `stop` interrupts all.
    """
    cohort, misfits = gather(members, [None] * len(members))
    yield from misfits.items()
    if cohort is not None:
        yield from cohort.updates(stop)


def gather(
    members: Sequence[Arguments], states: Sequence[dict[str, Any] | None]
) -> tuple["Cohort | None", dict[int, Exception]]:
    """The cohort of those that fit, and what is wrong with the others, by their places.

    states: of each, None or the `Training.state_dict` to go on from, all at the same step.
    """
    device = torch.device(members[0].get("device", "cpu"))
    data = members[0]["problem"].dataset.to(device)  # once for all
    ready: list[Member] = []
    misfits: dict[int, Exception] = {}
    for index, (arguments, state) in enumerate(zip(members, states, strict=True)):
        problem = replace(arguments["problem"], dataset=data)
        try:
            # slices of stacked tensors have the ordinary layout, and so must optimizers' states
            own = {"problem": problem, "channels_last": False, "compile_steps": False}
            training = Training(**{**arguments, **own})
        except UserError as error:
            misfits[index] = error
            continue
        if state is not None:
            try:
                training.load_state_dict(state)
            except Exception as error:  # of many kinds: it may hold anything
                misfits[index] = error
                continue
        ready.append(Member(index, training, arguments.get("seed", 0)))
    return Cohort(ready) if ready else None, misfits


@dataclass
class Member:
    """One run of a cohort. error: what its optimizer raised."""

    index: int
    training: Training
    seed: int
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.weights = list(self.training.model.named_parameters())

    def step(self, gradients: Mapping[str, Tensor], loss: Tensor) -> None:
        """Take a step of the member's own optimizer with its slices of the gradients."""
        for name, p in self.weights:
            p.grad = gradients.get(name)
        try:
            self.training.optimizer.step(lambda: loss)  # type: ignore[arg-type,return-value]
            if self.training.scheduler is not None:
                self.training.scheduler.step()
        except Exception as error:  # of any package's optimizer: the others go on
            self.error = error


class Cohort:
    """The members that still run, at one step; those that step jointly lie side by side."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.problem = members[0].training.problem
        self.device = members[0].training.device
        self.data = members[0].training.data
        keys = {m.index: _joint_key(m.training) for m in members}
        self.members = sorted(members, key=lambda m: repr(keys[m.index]))
        # equal seeds see the same batches and masks
        self.batches = {m.seed: m.training.batches for m in members}
        self.noises = {m.seed: m.training.noise for m in members}
        for m in members:  # so that each one's checkpoint has them as they are
            m.training.batches, m.training.noise = self.batches[m.seed], self.noises[m.seed]
        # A CPU has no launches to save, and one model's activations stay in its caches.
        self.scores_together = self.device.type != "cpu"
        self.masks = Masks(self.problem, self.device)
        self.template = build_model(self.problem, 0).to(self.device)
        self._stack()
        self.joint: list[JointOptimizer] = []
        place = 0
        for key, group in groupby(self.members, lambda m: keys[m.index]):
            trainings = [m.training for m in group]
            slots = slice(place, place := place + len(trainings))
            if key is not None and len(trainings) > 1:
                owners, model = [t.optimizer for t in trainings], trainings[0].model
                self.joint.append(JointOptimizer(owners, model, self.stack.parameters, slots))
                self.joint[-1].take(owners)
                for owner in owners:
                    owner.state.clear()  # it is the joint optimizer's now

    def updates(self, stop: Callable[[], bool]) -> Iterator[tuple[int, Update | Exception]]:
        """Train to the end of the budget; see `train_together`."""
        total, per_epoch = self.problem.total_steps, self.problem.steps_per_epoch
        step = self.members[0].training.step
        begun = perf_counter() - max(m.training.total_seconds for m in self.members)
        if step == 0:
            updates = [Update(0, total) for _ in self.members]
            self._evaluate(updates, begun)
            for member, update in zip(self.members, updates, strict=True):
                yield member.index, replace(update, status="running")
                if update.status == "diverged":
                    yield member.index, Update(0, total, status="diverged")
            self._keep(updates)
        while self.members and step < total:
            place = step % per_epoch  # not 0 where it goes on within an epoch
            orders = {s: self.batches[s].epoch()[: total - step + place] for s in self._seeds}
            if place == 0:
                for member in self.members:
                    member.training.running_loss, member.training.seen = 0.0, 0
            length = len(next(iter(orders.values())))
            for start in range(place, length, CHUNK):
                chunk = {s: orders[s][start : start + CHUNK] for s in self._seeds}
                updates = self._advance(chunk, step, stop)
                step = max(update.step for update in updates)
                self._evaluate(updates, begun)
                for member, update in zip(self.members, updates, strict=True):
                    member.training.total_seconds = perf_counter() - begun
                    yield member.index, member.error or update
                self._keep(updates)
                if not self.members:
                    return

    def state_dict(self, index: int) -> dict[str, Any]:
        """`Training.state_dict` of a member, alone or together to go on from.

        To be called between two updates.
        """
        (k,) = (k for k, member in enumerate(self.members) if member.index == index)
        training = self.members[k].training
        jointly = next((j for j in self.joint if j.slots.start <= k < j.slots.stop), None)
        if jointly is not None:
            jointly.give(k - jointly.slots.start, training.optimizer)
            catch_up(training.optimizer, training.scheduler, training.step)
        state = training.state_dict()
        if jointly is not None:
            training.optimizer.state.clear()
        return state

    def _advance(
        self, chunk: Mapping[int, list[Batch]], step: int, stop: Callable[[], bool]
    ) -> list[Update]:
        """Take the steps of a chunk, or fewer where `stop` says so."""
        tick = perf_counter()
        first = next(iter(chunk.values()))
        trainings = [m.training for m in self.members]
        jointly = {k for joint in self.joint for k in range(joint.slots.start, joint.slots.stop)}
        losses: list[Tensor] = []
        rates: list[list[float | None]] = [[] for _ in trainings]
        for joint in self.joint:
            own = trainings[joint.slots]
            numbers = range(step, step + len(first))
            plan = [[rates_at(t.optimizer, t.scheduler, n) for t in own] for n in numbers]
            joint.begin(plan)
            rates[joint.slots] = [[run[k][0] for run in plan] for k in range(len(own))]
        interrupted = False
        for number in range(len(first)):
            x, y, masks, shared = self._draw([order[number] for order in chunk.values()])
            loss, gradients = self.stack.gradients(x, y, masks, shared=shared)
            losses.append(loss)
            for joint in self.joint:
                joint.step(number, gradients)
            if len(jointly) < len(trainings):
                slices = {name: g.unbind() for name, g in gradients.items()}
                for k, member in enumerate(self.members):
                    if k not in jointly and member.error is None:
                        rates[k].append(optimizers.learning_rate(trainings[k].optimizer))
                        member.step({name: own[k] for name, own in slices.items()}, loss[k])
            if interrupted := stop():
                break
        values = torch.stack(losses).T.tolist()  # waits for the device
        elapsed = (perf_counter() - tick) / len(self.members)
        sizes = [len(batch) for batch in first[: len(losses)]]
        updates = []
        for k, training in enumerate(trainings):
            done = len(losses) if self.members[k].error is None else len(rates[k])
            update = training.record(values[k][:done], rates[k][:done], sizes[:done], elapsed)
            if update.status == "running" and interrupted and update.step < update.total_steps:
                update.status = "interrupted"
            updates.append(update)
        return updates

    def _draw(self, batches: list[Batch]) -> tuple[Tensor, Tensor, dict[str, Tensor], bool]:
        """Examples, targets and masks of each member's batch: (K, batch, ...); without K, and
        True, where all share them."""
        x, y = self.data.train_x, self.data.train_y
        masks = self.masks.draw(len(batches[0]), [self.noises[s] for s in self._seeds])
        shared = len(self._seeds) == 1
        if shared:
            masks = {name: mask[0] for name, mask in masks.items()}
        else:
            masks = {name: mask.index_select(0, self._seed_of) for name, mask in masks.items()}
        if isinstance(batches[0], range):
            if not shared:
                k = len(self.members)
                x, y = x.expand(k, *x.shape), y.expand(k, *y.shape)
            return x, y, masks, shared
        if shared:
            return x.index_select(0, batches[0]), y.index_select(0, batches[0]), masks, True
        each = torch.stack([b for b in batches if isinstance(b, Tensor)])  # (seeds, batch)
        flat = each.index_select(0, self._seed_of).flatten()
        shape = (len(self.members), -1)
        return (
            x.index_select(0, flat).unflatten(0, shape),
            y.index_select(0, flat).unflatten(0, shape),
            masks,
            False,
        )

    def _evaluate(self, updates: Sequence[Update], begun: float) -> None:
        """Where an evaluation is due, add it to the updates of those that have not diverged."""
        pairs = zip(self.members, updates, strict=True)
        due = [k for k, (m, u) in enumerate(pairs) if u.status != "diverged" and m.error is None]
        trainings = [m.training for m in self.members]
        if not due or not trainings[due[0]].is_evaluated(updates[due[0]].step):
            return
        for k in due:
            trainings[k].switch_mode(training=False)
        parts = trainings[due[0]].parts()
        together = self.scores_together
        sums = {n: self.stack.scores(*part).tolist() for n, part in parts.items() if together}
        for k in due:
            if together:
                scores = {name: means(self.problem, *own[k]) for name, own in sums.items()}
            else:
                model = trainings[k].model
                scores = {n: score(self.problem, model, *part) for n, part in parts.items()}
            trainings[k].switch_mode(training=True)
            trainings[k].judge(updates[k], trainings[k].row(scores, begun))

    def _keep(self, updates: Sequence[Update]) -> None:
        """Go on with the members that still run."""
        kept = [
            k
            for k, (member, update) in enumerate(zip(self.members, updates, strict=True))
            if update.status == "running" and member.error is None
        ]
        if len(kept) == len(self.members):
            return
        self.members = [self.members[k] for k in kept]
        if not kept:
            return
        self._stack()
        joint = []
        for optimizer in self.joint:
            a, b = optimizer.slots.start, optimizer.slots.stop
            own = [k - a for k in kept if a <= k < b]
            if own:
                start = sum(k < a for k in kept)
                optimizer.keep(own)
                optimizer.bind(self.stack.parameters, slice(start, start + len(own)))
                joint.append(optimizer)
        self.joint = joint

    def _stack(self) -> None:
        models = [m.training.model for m in self.members]
        self.stack = Stack(self.problem, self.template, models)
        self._seeds = sorted({m.seed for m in self.members})
        places = [self._seeds.index(m.seed) for m in self.members]
        self._seed_of = torch.tensor(places, device=self.device)


def _joint_key(training: Training) -> Hashable | None:
    return joint_key(training.optimizer, training.scheduler, training.model)
