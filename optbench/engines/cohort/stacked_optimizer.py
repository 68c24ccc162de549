"""Optimizers that step together: one step over stacked parameters, each run with its own lr."""

from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from optbench.optimizers import ELEMENTWISE

PER_RUN = ("params", "lr", "initial_lr", "weight_decay")  # what may differ between the runs
OTHER_RULES = ("maximize", "differentiable", "capturable")
Rates = Sequence[Sequence[float]]  # the lr of each run's parameter groups


def joint_key(
    optimizer: Optimizer, scheduler: LRScheduler | None, model: nn.Module
) -> Hashable | None:
    """Equal for new optimizers that can step together; None for one that steps by itself.

    Together means: the same class, parameters and settings, but for lr and weight_decay.
    """
    groups = optimizer.param_groups
    if (
        type(optimizer) not in ELEMENTWISE
        or type(scheduler) not in (type(None), LambdaLR)  # others may change more than lr
        or any(group.get(key) for group in groups for key in OTHER_RULES)
        or not all(isinstance(group["lr"], float | int) for group in groups)
    ):
        return None
    settings = [sorted((k, v) for k, v in g.items() if k not in PER_RUN) for g in groups]
    return type(optimizer).__name__, repr(settings), repr(_owned(optimizer, model))


def rates_at(optimizer: Optimizer, scheduler: LRScheduler | None, step: int) -> list[float]:
    """The lr of each group at a step (from 0), without stepping the scheduler."""
    if isinstance(scheduler, LambdaLR):
        bases = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        return [float(base * factor(step)) for base, factor in bases]
    return [float(group["lr"]) for group in optimizer.param_groups]


def catch_up(optimizer: Optimizer, scheduler: LRScheduler | None, step: int) -> None:
    """Set rates and schedule, which a joint step leaves alone, to where they stand at a step."""
    rates = rates_at(optimizer, scheduler, step)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    if scheduler is not None:
        scheduler.last_epoch, scheduler._step_count = step, step + 1
        scheduler._last_lr = list(rates)


class JointOptimizer:
    """Steps the runs whose slices lie at `slots` of stacked parameters (K, ...).

    Where all have one lr, torch's optimizer steps the slices as one parameter. Where they differ,
    it steps zeros with lr 1, which leaves u(g) in them; the weights then move by each run's lr
    times that. Decay, which needs the weights, is added outside, as the class has it.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        model: nn.Module,
        stacked: Mapping[str, Tensor],
        slots: slice,
    ) -> None:
        """optimizers: of one `joint_key`, of which the settings are taken. model: the first's."""
        first = optimizers[0]
        self.names = _owned(first, model)
        groups = []
        for group, names in zip(first.param_groups, self.names, strict=True):
            own = [nn.Parameter(stacked[name].detach()[slots]) for name in names]
            groups.append({k: v for k, v in group.items() if k not in PER_RUN} | {"params": own})
        make: Any = type(first)  # of ELEMENTWISE: all settings but these have defaults
        self.optimizer: Optimizer = make(groups)
        decays = [[g.get("weight_decay", 0.0) for g in o.param_groups] for o in optimizers]
        self.decays = torch.tensor(decays, dtype=torch.float64).T  # (groups, runs)
        self.decoupled = [
            type(first) is torch.optim.AdamW or bool(group.get("decoupled_weight_decay"))
            for group in first.param_groups
        ]
        self.bind(stacked, slots)

    def bind(self, stacked: Mapping[str, Tensor], slots: slice) -> None:
        """Step these slices from now on."""
        self.slots = slots
        self.weights = [[stacked[n].detach()[slots] for n in names] for names in self.names]
        self.zeros: list[list[Tensor]] | None = None
        self.equal = (self.decays == self.decays[:, :1]).all().item()
        self.decay = [
            [_column(d, w) if d.any() else None for w in weights]
            for d, weights in zip(self.decays, self.weights, strict=True)
        ]

    def keep(self, kept: Sequence[int]) -> None:
        """Forget all runs but these, places in the order so far; `bind` must follow."""
        index = torch.tensor(kept)
        self.decays = self.decays[:, index]
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[key] = value[index.to(value.device)]

    def take(self, optimizers: Sequence[Optimizer]) -> None:
        """Go on from the states of these, one for each run, all of which took as many steps."""
        for i, group in enumerate(self.optimizer.param_groups):
            for j, p in enumerate(group["params"]):
                states = [o.state.get(o.param_groups[i]["params"][j], {}) for o in optimizers]
                for key, value in states[0].items():
                    if isinstance(value, Tensor) and value.shape == p.shape[1:]:
                        value = torch.stack([state[key].contiguous() for state in states])
                    self.optimizer.state[p][key] = value

    def give(self, run: int, optimizer: Optimizer) -> None:
        """Set the state of a run's own optimizer to what its slice has come to."""
        for group, mine in zip(optimizer.param_groups, self.optimizer.param_groups, strict=True):
            for own, p in zip(group["params"], mine["params"], strict=True):
                optimizer.state[own] = {
                    key: value[run].clone()
                    if isinstance(value, Tensor) and value.shape == p.shape
                    else copy(value)
                    for key, value in self.optimizer.state[p].items()
                }

    def begin(self, rates: Sequence[Rates]) -> None:
        """Be told the rates of the next steps: one read of the host for all of them."""
        table = torch.tensor(rates, dtype=torch.float64)  # (steps, runs, groups)
        self.as_one = self.equal and bool((table == table[:, :1]).all())
        self.rates = rates
        if self.as_one:
            targets = self.weights
        else:
            self.zeros = self.zeros or [[torch.zeros_like(w) for w in ws] for ws in self.weights]
            targets = self.zeros
            self.table = table.to(targets[0][0])
        for i, (group, tensors) in enumerate(
            zip(self.optimizer.param_groups, targets, strict=True)
        ):
            for parameter, tensor in zip(group["params"], tensors, strict=True):
                parameter.data = tensor
            group["lr"] = 1.0
            if "weight_decay" in group:
                group["weight_decay"] = self.decays[i, 0].item() if self.as_one else 0.0

    @torch.no_grad()
    def step(self, number: int, gradients: Mapping[str, Tensor]) -> None:
        """Take the step of that number since `begin`."""
        for i, group in enumerate(self.optimizer.param_groups):
            for j, parameter in enumerate(group["params"]):
                gradient = gradients.get(self.names[i][j])
                parameter.grad = None if gradient is None else gradient[self.slots]
            if self.as_one:
                group["lr"] = self.rates[number][0][i]
        if self.as_one:
            self.optimizer.step()
            return
        assert self.zeros is not None
        torch._foreach_zero_([zero for zeros in self.zeros for zero in zeros])
        moved = [
            (parameter, weight, decay, i)
            for i, group in enumerate(self.optimizer.param_groups)
            for parameter, weight, decay in zip(
                group["params"], self.weights[i], self.decay[i], strict=True
            )
            if parameter.grad is not None
        ]
        for parameter, weight, decay, i in moved:
            if decay is not None and not self.decoupled[i]:
                parameter.grad = parameter.grad.addcmul(weight, decay)
        self.optimizer.step()
        for parameter, weight, decay, i in moved:
            rate = _column(self.table[number, :, i], weight)
            if decay is not None and self.decoupled[i]:
                weight.mul_(1 - rate * decay)
            weight.addcmul_(parameter, rate)


def _owned(optimizer: Optimizer, model: nn.Module) -> list[list[str]]:
    """The names of the parameters in each group."""
    names = {p: name for name, p in model.named_parameters()}
    return [[names[p] for p in group["params"]] for group in optimizer.param_groups]


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(runs,) as (runs, 1, ...), to be multiplied with a stacked tensor."""
    return values.to(like).view(-1, *[1] * (like.ndim - 1))
