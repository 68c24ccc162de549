"""Optimizers with manners of their own, on the command line's path: trained as in a plain loop and
resumed, or said to restart, or refused in words."""

import csv
import threading
from collections import deque
from itertools import pairwise

import plain_loop
import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from optbench.common.errors import UserError
from optbench.config import build
from optbench.runner import run
from optbench.training import closures

STEPS, STOP_AT = 40, 17
MODEL = "differential_models.torch_dropout"


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch):
    monkeypatch.setattr(plain_loop, "STEPS", STEPS)


def train(words, folder, model=MODEL):
    """The losses of a run, and of one that was stopped and resumed."""
    config = plain_loop.command_line(folder, f"model._target_={model}", *words)
    whole = plain_loop.run(config | {"results_dir": str(folder / "a")}, folder / "a")
    again = plain_loop.run(config | {"results_dir": str(folder / "b")}, folder / "b", STOP_AT)
    return config, whole, again


def check(words, manner, folder, model=MODEL):
    """Hold a run, and one that was stopped and resumed, against a plain loop in this manner."""
    config, whole, again = train(words, folder, model)
    assert list(map(str, again)) == list(map(str, whole))
    planned = run.plan(config | {"force": True}, folder)
    problem = run.arguments(planned)["problem"]
    make = build.build("optimizer", config["optimizer"])
    plain = plain_loop.plain_losses(problem, make, manner, exact=False)
    assert list(map(str, whole)) == [str(float(f"{loss:.9g}")) for loss in plain]
    assert len(set(whole)) > STEPS / 2


def own(cls, *more):
    return [f"optimizer._target_={__name__}.{cls.__name__}", *more]


class Base(Optimizer):
    def __init__(self, params, lr=0.05, **more):
        super().__init__(params, {"lr": lr} | more)

    def move(self, scale=1.0):
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.add_(p.grad, alpha=-group["lr"] * scale)

    def call(self, closure):
        with torch.enable_grad():
            return closure()


# Closures


class NoArgument(Base):
    def step(self):
        self.move()


class Ignores(Base):
    def step(self, closure=None):
        self.move()


class UnderNoGrad(Base):
    @torch.no_grad()
    def step(self, closure=None):
        loss = closure()
        self.move()
        return loss


class KeywordsOnly(Base):
    def step(self, *, scale=0.5):
        self.move(scale)


class ClosureByName(Base):
    def step(self, *, closure):
        loss = self.call(closure)
        self.move()
        return loss


class OptionFirst(Base):
    def step(self, scale=0.5):
        self.move(scale)


class AnyArguments(Base):
    def step(self, *arguments, **options):
        loss = self.call(arguments[0])
        self.move()
        return loss


class Required(Base):
    def step(self, evaluate):
        loss = self.call(evaluate)
        self.move()
        return loss


class Twice(Base):
    """Evaluates at the weights, and again half a step later."""

    def step(self, closure):
        loss = self.call(closure)
        self.move(0.5)
        self.call(closure)
        self.move(0.5)
        return loss


class OwnZeroGrad(Base):
    """Remembers in `zero_grad`, which a loop calls before each backward pass."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        self.zeroed = 0

    def zero_grad(self, set_to_none=True):
        self.zeroed += 1
        super().zero_grad(set_to_none)

    def step(self, closure=None):
        self.move(1 / self.zeroed)


class AheadOfItself(Base):
    """Nesterov's method: moves to other weights, and evaluates there."""

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        for p in parameters:
            self.state[p].setdefault("v", torch.zeros_like(p))
            p.data.add_(self.state[p]["v"], alpha=0.9)
        loss = self.call(closure)
        for p in parameters:
            self.state[p]["v"].mul_(0.9).sub_(p.grad, alpha=0.02)
            p.data.sub_(p.grad, alpha=0.02)
        return loss


class Sharp(Base):
    """SAM as Foret et al. have it: climbs along the gradients that are there, and evaluates."""

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        climbs = [p.grad * 0.05 for p in parameters]
        for p, climb in zip(parameters, climbs, strict=True):
            p.data.add_(climb)
        loss = self.call(closure)
        for p, climb in zip(parameters, climbs, strict=True):
            p.data.sub_(climb)
        self.move()
        return loss


class SharpFromSecond(Sharp):
    """Uses the gradients that are there in every second step only."""

    def step(self, closure=None):
        self.odd = not getattr(self, "odd", False)
        if not self.odd:
            return super().step(closure)
        loss = self.call(closure)
        self.move()
        return loss


CLOSURES = [
    (NoArgument, "gradients"), (Ignores, "gradients"), (Ignores, "both"),
    (UnderNoGrad, "closure"), (KeywordsOnly, "gradients"), (OptionFirst, "gradients"),
    (AnyArguments, "closure"), (ClosureByName, "by name"), (Required, "closure"),
    (Twice, "closure"),
    (OwnZeroGrad, "gradients"), (AheadOfItself, "closure"), (Sharp, "both"),
]  # fmt: skip


@pytest.mark.parametrize(("cls", "manner"), CLOSURES)
def test_every_way_to_take_a_closure_is_served(cls, manner, tmp_path):
    check(own(cls), manner, tmp_path)


def test_gradients_first_where_any_step_uses_them():
    model = nn.Linear(3, 2)
    found = {cls: closures.evaluates_first(cls, model) for cls, _ in CLOSURES}
    assert found == {cls: manner in ("closure", "by name") for cls, manner in CLOSURES}
    assert not closures.evaluates_first(SharpFromSecond, model)


def test_batch_norm_sees_each_batch_once(tmp_path):
    """An evaluation that the class does not ask for would move the running statistics."""
    for cls in (UnderNoGrad, AheadOfItself):
        words = own(cls, "engine=plain")  # bit for bit
        check(words, "closure", tmp_path / cls.__name__, "differential_models.batch_norm")


class Hessian(Base):
    """Needs the graph in its fifth step, which a trial of three steps cannot tell."""

    count = 0

    def step(self, closure=None):
        self.count += 1
        if self.count == 5:
            own = self.param_groups[0]["params"]
            torch.autograd.grad(own[0].grad.sum(), own)
        self.move()


def test_a_late_wish_for_gradients_of_gradients_is_refused_in_words(tmp_path):
    with pytest.raises(UserError, match=r"Hessian failed.*create_graph=True.*first steps"):
        train(own(Hessian), tmp_path)


class LineSearch(Base):
    """Wants the loss without a gradient, at several step lengths."""

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        grads = [(p, p.grad.clone()) for p in self.param_groups[0]["params"]]
        for p, grad in grads:
            p.sub_(grad)
        scale = 1.0
        while closure() > loss and scale > 1e-3:
            scale /= 2
            for p, grad in grads:
                p.add_(grad, alpha=scale)
        return loss


def test_a_line_search_evaluates_as_often_as_it_likes(tmp_path):
    check(own(LineSearch), "closure", tmp_path)


# What lies in groups and beside them


class NoLr(Base):
    def __init__(self, params):
        Optimizer.__init__(self, params, {"rate": 0.05})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad, alpha=-group["rate"])


class Tuples(Base):
    def __init__(self, params, betas=(0.9,), lr=None):
        super().__init__(params, lr, betas=betas)

    def step(self, closure=None):
        lr = 0.05 if self.defaults["lr"] is None else self.defaults["lr"]
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.add_(p.grad, alpha=-lr * sum(self.param_groups[0]["betas"]))


class Remembers(Base):
    """A deque beside the groups, and a list within one."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr, counts=[0])
        self.last = deque(maxlen=5)

    def step(self, closure=None):
        loss = self.call(closure)
        self.last.append(loss.item())
        self.param_groups[0]["counts"][0] += 1
        self.move(1 / self.param_groups[0]["counts"][0] + sum(self.last) / 100)
        return loss


class ById(Base):
    """Keeps its memory under the ids and addresses of the parameters."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        own = self.param_groups[0]["params"]
        self.slow = {id(own[0])}
        self.by_id = {}
        self.by_address = {}

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            v = self.by_id.setdefault(id(p), torch.zeros_like(p))
            w = self.by_address.setdefault(p.data_ptr(), torch.zeros_like(p))
            w.mul_(0.8).add_(v.mul_(0.9).add_(p.grad))
            p.data.sub_(w, alpha=0.001 if id(p) in self.slow else 0.01)


class TensorEntries(Base):
    """Tensors as entries of `state`, in the place of dictionaries."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if p not in self.state:
                self.state[p] = torch.zeros_like(p)
            self.state[p].mul_(0.9).add_(p.grad)
            p.data.sub_(self.state[p], alpha=0.02)


class OnParameters(Base):
    """Keeps its averages on the parameters themselves."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.average = getattr(p, "average", 0) * 0.9 + p.grad
            p.data.sub_(p.average, alpha=0.02)


@pytest.mark.parametrize(
    ("cls", "manner", "words"),
    [
        (NoLr, "gradients", []),
        (NoLr, "gradients", ["schedule=constant"]),
        (Tuples, "gradients", []),
        (Tuples, "gradients", ["optimizer.lr=null"]),
        (Tuples, "gradients", ["optimizer.lr=0.01", "+optimizer.betas=[0.1,0.2,0.3]"]),
        (Tuples, "gradients", ["optimizer.betas=[0.1,0.2,0.3,0.4,0.5]"]),
        (Remembers, "closure", []),
        (ById, "gradients", []),
        (TensorEntries, "gradients", []),
        (OnParameters, "gradients", []),
    ],
)
def test_values_in_and_beside_the_groups_are_kept(cls, manner, words, tmp_path):
    check(own(cls, *words), manner, tmp_path)


def test_a_schedule_without_an_lr_is_refused_in_words(tmp_path):
    for words in (own(NoLr), own(Tuples, "optimizer.lr=null")):
        with pytest.raises(UserError, match=r"schedule .* cannot be made.*"):
            train([*words, "schedule=cosine"], tmp_path)


@pytest.mark.parametrize("name", ["adam", "sgd", "muon", "lbfgs"])
def test_no_lr_is_refused_where_a_class_needs_one(name, tmp_path):
    with pytest.raises(UserError, match="lr must be a number, not None"):
        train([f"optimizer={name}", "optimizer.lr=null"], tmp_path)


def test_tuples_of_a_wrong_length_are_refused_for_torchs_own(tmp_path):
    with pytest.raises(UserError, match="betas must have 2 values"):
        train(["optimizer=adam", "optimizer.betas=[0.9,0.99,0.999]"], tmp_path)


class FunctionInGroup(Base):
    def __init__(self, params, lr=0.05):
        super().__init__(params, lr, shape=lambda k: 1 / k)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        self.move(self.param_groups[0]["shape"](self.count))


class LockInGroup(Base):
    def __init__(self, params, lr=0.05):
        super().__init__(params, lr, lock=threading.Lock())
        self.count = 0

    def step(self, closure=None):
        with self.param_groups[0]["lock"]:
            self.count += 1
            self.move(1 / self.count)


class LateFunction(Base):
    """A function that only its first step makes."""

    def step(self, closure=None):
        self.rule = lambda: 1.0
        self.move(self.rule())


class IteratorBeside(Base):
    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        self.scales = (1 / k for k in range(1, 999))

    def step(self, closure=None):
        self.move(next(self.scales))


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (FunctionInGroup, "['shape'] is a function"),
        (LockInGroup, "['lock'] is a _thread.lock"),
        (LateFunction, "optimizer.rule is a function"),
        (IteratorBeside, "optimizer.scales is a generator"),
    ],
)
def test_what_no_checkpoint_can_hold_restarts_and_says_so_once(cls, words, tmp_path, capsys):
    check([*own(cls), "checkpoint_seconds=0"], "gradients", tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if words in line]
    assert said
    assert all("it restarts from the beginning" in line for line in said)
    for folder in ("a", "b"):
        assert sum(f"/{folder}/" in line for line in said) in ((1,) if folder == "a" else (1, 2))


# Wrappers


class NoHooks(Optimizer):
    """A wrapper that never calls `Optimizer.__init__`, as several packages have it."""

    def __init__(self, params, lr=0.05):
        self.inner = torch.optim.SGD(params, lr=lr, momentum=0.9)
        self.param_groups, self.state = self.inner.param_groups, self.inner.state
        self.defaults, self.count = self.inner.defaults, 0

    def zero_grad(self, set_to_none=True):
        self.inner.zero_grad(set_to_none)

    def step(self, closure=None):
        self.count += 1
        return self.inner.step(closure)


class Properties(Optimizer):
    """A wrapper whose groups and state are properties."""

    def __init__(self, params, lr=0.05):
        self.inner = torch.optim.Adam(params, lr=lr / 10)

    @property
    def param_groups(self):
        return self.inner.param_groups

    @property
    def state(self):
        return self.inner.state

    @property
    def defaults(self):
        return self.inner.defaults

    def zero_grad(self, set_to_none=True):
        self.inner.zero_grad(set_to_none)

    def step(self, closure=None):
        return self.inner.step(closure)


class WrapperInGroup(Base):
    """Keeps another optimizer within a group."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        for group in self.param_groups:
            group["inner"] = NoHooks(group["params"], lr=lr)

    def step(self, closure=None):
        for group in self.param_groups:
            group["inner"].step()


def averaged(params, lr=0.05):
    return NoHooks(params, lr=lr)


class Delegates(NoHooks):
    """Hands `train` and `eval` on to one that has neither."""

    def train(self):
        self.inner.train()

    def eval(self):
        self.inner.train(False)


@pytest.mark.parametrize("cls", [NoHooks, Properties, WrapperInGroup, averaged, Delegates])
def test_wrappers_without_hooks_are_served(cls, tmp_path):
    check(own(cls), "gradients", tmp_path)


def test_wrappers_follow_a_schedule(tmp_path):
    for cls in (NoHooks, Properties):
        _, whole, again = train([*own(cls), "schedule=cosine"], tmp_path / cls.__name__)
        assert whole == again


class Wraps(Optimizer):
    def __init__(self, optimizer, k=5):
        self.inner = optimizer
        super().__init__(optimizer.param_groups, {})


class WrapsBase(Base):
    def __init__(self, params, base_optimizer, rho=0.05):
        super().__init__(params)
        self.base = base_optimizer(self.param_groups, lr=0.1)


class WantsModel(Base):
    def __init__(self, model, lr=0.05):
        super().__init__([p for _, p in model.named_parameters()], lr)


class WantsMuonGroups(Base):
    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        for group in self.param_groups:
            if group["use_muon"]:
                raise AssertionError


class MuonGroupsInStep(Base):
    def step(self, closure=None):
        for group in self.param_groups:
            self.move(group["use_muon"])


class WantsNumber(Base):
    def __init__(self, params, num_moons, lr=0.05):
        super().__init__(params, lr)


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Wraps, r"wraps another optimizer.*function of yours.*def \w+\(params"),
        (WrapsBase, r"wraps another optimizer.*function of yours.*def \w+\(params"),
        (WantsModel, "takes the model itself.*gives.*parameters"),
        (WantsMuonGroups, r"use_muon.*function of yours.*optimizer=muon"),
        (MuonGroupsInStep, r"use_muon.*function of yours.*optimizer=muon"),
        (WantsNumber, r"needs num_moons: give \+optimizer\.num_moons=VALUE"),
    ],
)
def test_what_a_class_wants_is_said(cls, words, tmp_path):
    with pytest.raises(UserError, match=words):
        train(own(cls), tmp_path)
    assert not list(tmp_path.rglob("run.json")) or cls is MuonGroupsInStep


# Two sets of weights


class EvalNeedsState(Base):
    """Two sets of weights; it cannot be asked for the averaged one before its first step."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, lr)
        self.training = False

    @torch.no_grad()
    def eval(self):
        for p in self.param_groups[0]["params"]:
            self.state[p]["fast"].copy_(p)
            p.copy_(self.state[p]["mean"])
        self.training = False

    @torch.no_grad()
    def train(self):
        for p in self.param_groups[0]["params"]:
            if "fast" in self.state[p]:
                p.copy_(self.state[p]["fast"])
        self.training = True

    @torch.no_grad()
    def step(self, closure=None):
        if not self.training:
            raise RuntimeError("call train() first")
        self.move()
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            state.setdefault("fast", p.clone())
            state.setdefault("mean", p.clone()).lerp_(p, 0.1)


def test_eval_is_not_called_before_the_first_step(tmp_path):
    words = [*own(EvalNeedsState), "log.eval_epochs=1"]
    _, whole, again = train(words, tmp_path)
    assert whole == again
    _, seldom, _ = train([*words, "log.eval_epochs=9"], tmp_path / "seldom")
    assert whole == seldom


# Sparse gradients and complex weights


class AllSparse(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.table = nn.Embedding(16, classes, sparse=True)

    def forward(self, x):
        return self.table((x.flatten(1)[:, 300:500:9] * 7).long().clamp(0, 15)).mean(1) * 5


class PartSparse(AllSparse):
    def __init__(self, shape, classes):
        super().__init__(shape, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(super().forward(x))


class Complex(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.wave = nn.Parameter(torch.randn(28, 8, dtype=torch.complex64) / 8)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head((x.squeeze(1).to(torch.complex64) @ self.wave).abs().mean(1))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("SparseAdam", AllSparse), ("SGD", AllSparse), ("SGD", PartSparse),
        ("Adagrad", AllSparse), ("Adagrad", PartSparse),
        ("SGD", Complex), ("Adam", Complex), ("AdamW", Complex), ("Adagrad", Complex),
        ("RMSprop", Complex),
    ],
)  # fmt: skip
def test_sparse_gradients_and_complex_weights_are_served_unfused(
    name, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(plain_loop, "FUSED", ())
    words = [f"optimizer._target_=torch.optim.{name}", "optimizer.lr=0.05"]
    check(words, "gradients", tmp_path, f"{__name__}.{model.__name__}")


@pytest.mark.parametrize(
    ("name", "model", "words"),
    [
        ("SparseAdam", PartSparse, "dense gradients"),
        ("Adam", AllSparse, "sparse gradients"),
        ("Adam", PartSparse, "sparse gradients"),
        ("RMSprop", AllSparse, "sparse gradients"),
    ],
)
def test_gradients_of_a_wrong_kind_are_refused_in_words(name, model, words, tmp_path):
    with pytest.raises(UserError, match=f"(?s)a step with {name} failed.*{words}"):
        train([f"optimizer._target_=torch.optim.{name}"], tmp_path, f"{__name__}.{model.__name__}")


# torch's schedules


def rates(folder):
    with next(folder.rglob("steps.csv")).open() as file:
        return [float(row["lr"]) for row in csv.DictReader(file)]


def by_torch(make):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler, found = make(optimizer), []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


SCHEDULES = {
    "StepLR": {"step_size": 7, "gamma": 0.5},
    "CosineAnnealingLR": {"T_max": 20},
    "OneCycleLR": {"max_lr": 0.5},
    "ExponentialLR": {"gamma": 0.9},
    "MultiStepLR": {"milestones": [5, 20]},
    "LinearLR": {},
    "ConstantLR": {},
    "PolynomialLR": {},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.1, "cycle_momentum": False},
    "CosineAnnealingWarmRestarts": {"T_0": 6},
}


def schedule(name, options):
    words = [f"schedule._target_=torch.optim.lr_scheduler.{name}"]
    return [*words, *(f"+schedule.{k}={v}".replace("'", "") for k, v in options.items())]


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules_of_torch_are_called_by_name(name, tmp_path):
    options = SCHEDULES[name]
    _, whole, again = train(
        ["optimizer=sgd", "optimizer.lr=0.1", *schedule(name, options)], tmp_path
    )
    assert whole == again
    more = {"total_steps": STEPS} if name == "OneCycleLR" else {}
    expected = by_torch(lambda opt: getattr(lr_scheduler, name)(opt, **options, **more))
    assert rates(tmp_path / "a") == pytest.approx(expected, rel=1e-7)
    assert rates(tmp_path / "b") == rates(tmp_path / "a")


@pytest.mark.parametrize("val_size", [0.1, 0])
def test_a_plateau_is_told_the_validation_loss(val_size, tmp_path):
    """Of each evaluation but the first; without validation examples, the training loss."""
    words = schedule("ReduceLROnPlateau", {"patience": 0, "factor": 0.5, "threshold": 0.2})
    words += ["optimizer=sgd", "optimizer.lr=0.1", f"data.val_size={val_size}", "log.eval_epochs=1"]
    _, whole, again = train(words, tmp_path)
    assert whole == again
    with next((tmp_path / "a").rglob("epochs.csv")).open() as file:
        rows = list(csv.DictReader(file))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=0.2)
    found, expected = rates(tmp_path / "a"), [0.1] * int(float(rows[1]["step"]))
    for row, after in pairwise(rows[1:]):
        plateau.step(float(row["val_loss" if val_size else "train_loss"]))
        steps = int(float(after["step"])) - int(float(row["step"]))
        expected += [optimizer.param_groups[0]["lr"]] * steps
    assert found == expected
    assert len(set(found)) > 1
    assert rates(tmp_path / "b") == found


WRONG = {
    "StepLR without its size": ("StepLR", {}, "step_size"),
    "an unknown argument": ("StepLR", {"step_size": 5, "gama": 0.5}, "gama.*gamma"),
    "a text for a number": ("StepLR", {"step_size": "many"}, "StepLR"),
    "no length": ("CosineAnnealingLR", {}, "T_max"),
    "no peak": ("OneCycleLR", {}, "max_lr"),
    "a factor above 1": ("ReduceLROnPlateau", {"factor": 2}, "[Ff]actor"),
    "no such class": ("NoSuchLR", {}, "NoSuchLR"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_schedules_are_refused_in_words(name, tmp_path):
    cls, options, words = WRONG[name]
    with pytest.raises(UserError, match=words):
        train(["optimizer=sgd", *schedule(cls, options)], tmp_path)
    # a text shows itself in the first step
    assert not list(tmp_path.rglob("run.json")) or name == "a text for a number"
