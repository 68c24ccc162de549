"""Fifteen optimizers: torch's, the textbook's, and classes with manners of their own."""

import random
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.optim import Optimizer

from optbench import optimizers, textbook


class Own(Optimizer):
    def __init__(self, params, lr=0.05, **more):
        super().__init__(params, {"lr": lr} | more)

    @torch.no_grad()
    def move(self, scale=1.0):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data.add_(p.grad, alpha=-group["lr"] * scale)


class NoClosure(Own):
    def step(self):
        self.move()


class Drawing(Own):
    """Its steps have random lengths, from all three global generators."""

    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        drawn = torch.rand(()).item() + random.random() + np.random.randn()  # noqa: NPY002
        self.move(0.5 + 0.1 * drawn)
        return loss


@dataclass
class Memory:
    """What an optimizer may keep in an object of its own."""

    losses: deque = field(default_factory=lambda: deque(maxlen=4))
    seen: set = field(default_factory=set)
    table: np.ndarray = field(default_factory=lambda: np.zeros(3))


class Remembering(Own):
    """A memory in an object, a list in a group, and a number in an attribute that it makes late."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr, counts=[0])
        self.memory = Memory()

    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        self.param_groups[0]["counts"][0] += 1
        self.memory.losses.append(loss.item())
        self.memory.seen.add(round(loss.item(), 1))
        self.memory.table[len(self.memory.losses) % 3] += 0.01
        self.factor = getattr(self, "factor", 1.0) * 0.999
        memory = self.memory
        mean = sum(memory.losses) / len(memory.losses)
        self.move(self.factor / (1 + mean + 0.01 * len(memory.seen) + memory.table.sum()))
        return loss


class Sam(Optimizer):
    """Sharpness-aware minimization (Foret et al. 2021) around another optimizer.

    As public ones, it wants the gradients of a first pass to be there, and calls the closure once,
    at the perturbed weights.
    """

    def __init__(self, params, lr=0.05, rho=0.05):
        super().__init__(params, {"lr": lr, "rho": rho})
        self.base = torch.optim.SGD(self.param_groups, lr=lr, momentum=0.9)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def step(self, closure=None):
        own = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in own]).norm() + 1e-12
        moves = [p.grad * (self.param_groups[0]["rho"] / norm) for p in own]
        for p, move in zip(own, moves, strict=True):
            p.add_(move)
        self.zero_grad()
        with torch.enable_grad():
            loss = closure()
        for p, move in zip(own, moves, strict=True):
            p.sub_(move)
        self.base.step()
        return loss


class LookAhead(Optimizer):
    """Slow weights that follow another optimizer's every five steps (Zhang et al. 2019)."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})
        self.inner = torch.optim.Adam(self.param_groups, lr=lr)
        self.param_groups = self.inner.param_groups
        self.counter = 0

    def step(self, closure=None):
        loss = self.inner.step(closure)
        self.counter += 1
        for group in self.param_groups:
            for p in group["params"]:
                slow = self.state[p].setdefault("slow", p.detach().clone())
                if self.counter % 5 == 0:
                    slow.lerp_(p.detach(), 0.5)
                    p.data.copy_(slow)
        return loss


def momentum(params, lr=0.05):
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


def lbfgs(params, lr=0.1):
    """L-BFGS with few evaluations a step, which take less time."""
    return torch.optim.LBFGS(params, lr=lr, max_iter=3)


# lr, and how a loop of plain torch calls it: gradients first, with a closure, or both
ALL = {
    "SGD": (torch.optim.SGD, 0.05, "gradients"),
    "momentum": (momentum, 0.02, "gradients"),
    "Adam": (torch.optim.Adam, 0.003, "gradients"),
    "AdamW": (torch.optim.AdamW, 0.003, "gradients"),
    "RMSprop": (torch.optim.RMSprop, 0.001, "gradients"),
    "Adagrad": (torch.optim.Adagrad, 0.02, "gradients"),
    "LBFGS": (lbfgs, 0.1, "closure"),
    "Muon": (optimizers.MuonWithAdamW, 0.01, "gradients"),
    "textbook_adam": (textbook.Adam, 0.003, "gradients"),
    "textbook_nesterov": (textbook.Nesterov, 0.02, "closure"),
    "NoClosure": (NoClosure, 0.05, "gradients"),
    "Drawing": (Drawing, 0.05, "closure"),
    "Remembering": (Remembering, 0.05, "closure"),
    "Sam": (Sam, 0.02, "both"),
    "LookAhead": (LookAhead, 0.003, "closure"),
}
