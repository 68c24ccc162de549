"""Every optimizer's YAML runs, learns and resumes; groups, fused kernels, Muon and messages."""

import copy
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer

from optbench import schedules
from optbench.common.errors import UserError
from optbench.config.build import build as configured
from optbench.optimizers import MuonWithAdamW, build, learning_rate

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
# those of packages, which have manners that a step by itself does not heed, are in
# test_named_optimizers.py
NAMES = sorted(
    str(path.relative_to(CONF).with_suffix(""))
    for path in CONF.rglob("*.yaml")
    if not {"pytorch_optimizer", "schedulefree", "prodigyopt"}
    & {*re.split(r"\W", path.read_text())}
)
SLOW = ("textbook/weight_perturbation",)  # an evaluation for each weight: test_perturbation.py
every_yaml = pytest.mark.parametrize("name", [name for name in NAMES if name not in SLOW])


def load(name: str, **changes: Any) -> Callable[..., Optimizer]:
    config: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    return configured("optimizer", config | changes)


class Quadratic(nn.Module):
    """(1/2) sum of c_i x_i^2 over a matrix and a vector, from x = 1."""

    def __init__(self, condition: float) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(4, 4, dtype=torch.float64))
        self.vector = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.c = torch.logspace(0, -torch.tensor(condition).log10().item(), 4, dtype=torch.float64)

    def forward(self) -> Tensor:
        return (self.c * self.matrix**2).sum() / 2 + (self.c * self.vector**2).sum() / 2


class Network(nn.Module):
    """Convolution, batch norm, two linear layers; its own loss on fixed random images."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(1, 3, 3, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.hidden = nn.Linear(3 * 36, 8)
        self.head = nn.Linear(8, 4)
        for p in self.parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.1, generator=generator)
            elif p is not self.norm.weight:
                nn.init.zeros_(p)
        self.x = torch.randn(16, 1, 8, 8, generator=generator).to(dtype)
        self.y = torch.arange(16) % 4
        self.to(dtype)

    def forward(self) -> Tensor:
        h = torch.relu(self.norm(self.conv(self.x))).flatten(1)
        return nn.functional.cross_entropy(self.head(torch.tanh(self.hidden(h))), self.y)


def steps(model: nn.Module, opt: Optimizer, n: int) -> list[float]:
    losses = []

    def closure() -> Tensor:
        opt.zero_grad()
        loss = model()
        loss.backward()
        return loss

    for _ in range(n):
        losses.append(opt.step(closure).item())
    return losses


def values(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@every_yaml
@pytest.mark.parametrize(
    "problem",
    [partial(Quadratic, 1), partial(Quadratic, 1000), Network],
    ids=["round", "ill", "net"],
)
def test_every_yaml_learns(name: str, problem: Callable[[], nn.Module]) -> None:
    model = problem()
    opt = build(load(name), model)
    losses = [*steps(model, opt, 60), model().item()]
    assert torch.tensor(losses).isfinite().all()
    assert losses[-1] < 0.99 * losses[0]  # RAdam, the slowest to start, reaches 0.98


@every_yaml
def test_every_yaml_resumes_exactly(name: str) -> None:
    torch.manual_seed(0)
    model = Network()
    opt = build(load(name), model)
    steps(model, opt, 3)
    other = copy.deepcopy(model)
    resumed = build(load(name), other)
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert steps(model, opt, 5) == steps(other, resumed, 5)
    assert torch.equal(values(model), values(other))


@every_yaml
def test_every_yaml_follows_a_schedule(name: str) -> None:
    model = Network()
    opt = build(load(name), model)
    bases = [group["lr"] for group in opt.param_groups]
    scheduler = schedules.trapezoid(opt, 5, warmup=0.4, cooldown=0.4)
    for factor in (1 / 3, 2 / 3, 1, 1, 1 / 2):
        assert learning_rate(opt) == pytest.approx(bases[0] * factor)
        for group, base in zip(opt.param_groups, bases, strict=True):
            assert group["lr"] == pytest.approx(base * factor)
        steps(model, opt, 1)
        scheduler.step()


def test_every_class_of_torch_has_a_yaml() -> None:
    classes = {
        name
        for name, thing in vars(torch.optim).items()
        if isinstance(thing, type) and issubclass(thing, Optimizer) and thing is not Optimizer
    }
    targets = {OmegaConf.load(CONF / f"{name}.yaml")._target_ for name in NAMES}
    reached = {target.removeprefix("torch.optim.") for target in targets}
    if "optbench.optimizers.MuonWithAdamW" in targets:
        reached.add("Muon")
    assert classes - reached == {"SparseAdam"}  # sparse gradients only


def test_names_are_unique_and_follow_the_file() -> None:
    for name in NAMES:
        config = OmegaConf.load(CONF / f"{name}.yaml")
        assert config.name == name.replace("/", "_")
        assert config._partial_ is True
        assert isinstance(config.lr, float)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sgd", {}),
        ("sgd", {"weight_decay": 0.01}),
        ("momentum", {"weight_decay": 0.01}),
        ("nesterov", {"weight_decay": 0.01}),
        ("adagrad", {"weight_decay": 0.01}),
        ("adam", {"weight_decay": 0.01}),
        ("amsgrad", {"weight_decay": 0.01}),
        ("adamw", {}),
        ("adamw", {"amsgrad": True}),
        ("muon", {}),
    ],
)
def test_fused_equals_plain(name: str, changes: dict[str, Any]) -> None:
    runs = []
    for fused in (None, False):
        model = Network()
        opt = build(load(name, **changes, **({} if fused is None else {"fused": fused})), model)
        assert opt.param_groups[-1]["fused"] is (fused is None)
        steps(model, opt, 20)
        runs.append(values(model))
    # Adam divides rounding noise by rounding noise where a gradient is nearly 0
    torch.testing.assert_close(*runs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("key", ["fused", "foreach", "differentiable"])
def test_what_is_configured_is_not_overruled(key: str) -> None:
    opt = build(partial(torch.optim.Adam, **{key: False}), Network())
    assert not opt.param_groups[0]["fused"]


def test_decay_can_be_on_weights_only() -> None:
    model = Network()
    opt = build(load("adamw", weight_decay=0.5), model, decay_biases_and_norms=False)
    decay = {id(p): group["weight_decay"] for group in opt.param_groups for p in group["params"]}
    assert {key: decay[id(p)] for key, p in model.named_parameters()} == {
        "conv.weight": 0.5,
        "norm.weight": 0,
        "norm.bias": 0,
        "hidden.weight": 0.5,
        "hidden.bias": 0,
        "head.weight": 0.5,
        "head.bias": 0,
    }


def test_frozen_parameters_are_left_out() -> None:
    model = Network()
    model.conv.requires_grad_(False)
    opt = build(load("adam"), model)
    assert all(p is not model.conv.weight for p in opt.param_groups[0]["params"])
    model.requires_grad_(False)
    with pytest.raises(UserError, match="nothing to train"):
        build(load("adam"), model)


class Forgetful(torch.optim.SGD):
    """Owns all parameters but the first."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(list(params)[1:], lr)


@pytest.mark.parametrize(
    ("factory", "decay_all", "words"),
    [
        (partial(torch.optim.SGD, lr=0.1, beta=1), True, "SGD does not accept beta. .*momentum"),
        (partial(torch.optim.Adam, lr=-1.0), True, r"Adam\(lr=-1.0\) was refused: .*betas"),
        (partial(torch.optim.Adam, betas=0.9), True, "betas must have 2 values, not 0.9"),
        (partial(torch.optim.Adam, weight_decay=None), True, "weight_decay must be a number"),
        (partial(torch.optim.Adam, eps="x"), True, "eps must be a number, not 'x'"),
        (partial(torch.optim.Adam, amsgrad="on"), True, "amsgrad must be true or false, not 'on'"),
        (partial(torch.optim.SGD, nesterov=True), True, "requires a momentum"),
        (partial(torch.optim.SGD, fused=True, foreach=True), True, "cannot be `True` together"),
        (torch.optim.LBFGS, False, "single group"),
        (load("textbook/adam"), False, "Adam has none"),
        (load("rprop"), False, "Rprop has none"),
        (torch.optim.Muon, True, "only supports 2D parameters"),
        (partial(Forgetful, lr=0.1), True, "Forgetful owns the parameter conv.weight 0 times"),
        (load("muon", adamw_lr_ratio=-1), True, "adamw_lr_ratio"),
    ],
)
def test_wrong_settings_are_named(factory: Any, decay_all: bool, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build(factory, Network(), decay_biases_and_norms=decay_all)


def test_muon_takes_matrices_and_adamw_the_rest() -> None:
    model = Network()
    every = {"hidden_only": False, "flatten_kernels": False}
    opt = build(load("muon", **every), model)
    muon, adamw = opt.param_groups
    assert [id(p) for p in muon["params"]] == [id(model.hidden.weight), id(model.head.weight)]
    assert (muon["lr"], adamw["lr"]) == (0.02, pytest.approx(3e-4))
    assert len(adamw["params"]) == 5

    outer = build(load("muon", **every | {"hidden_only": True}), model).param_groups
    assert [id(p) for p in outer[0]["params"]] == [id(model.hidden.weight)]

    groups = build(load("muon", **every), model, decay_biases_and_norms=False).param_groups
    assert [g["weight_decay"] for g in groups] == [0.01, 0.01, 0.0]


def test_muon_equals_its_two_parts() -> None:
    model, other = Network(torch.float64), Network(torch.float64)
    opt = build(load("muon", hidden_only=False, flatten_kernels=False), model)
    losses = steps(model, opt, 10)
    two = [p for p in other.parameters() if p.ndim == 2]
    rest = [p for p in other.parameters() if p.ndim != 2]
    muon = torch.optim.Muon(two, lr=0.02, weight_decay=0.01)
    adamw = torch.optim.AdamW(rest, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    for loss in losses:  # one closure call a step, or the losses would part
        other.zero_grad()
        value = other()
        value.backward()
        assert value.item() == loss
        muon.step()
        adamw.step()
    assert torch.equal(values(model), values(other))


@pytest.mark.parametrize(
    "model", [nn.Linear(3, 2, bias=False), nn.BatchNorm1d(3)], ids=["only", "no"]
)
def test_muon_trains_with_only_or_no_matrices(model: nn.Module) -> None:
    opt = build(load("muon"), model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = values(model).clone()
    opt.step()
    assert (values(model) != before).all()
    assert len(opt.param_groups) == 1


def test_muon_survives_a_deep_copy() -> None:
    model = Network()
    opt = build(load("muon"), model)
    steps(model, opt, 2)
    other, twin = copy.deepcopy((model, opt))
    assert isinstance(twin, MuonWithAdamW)
    assert steps(model, opt, 3) == steps(other, twin, 3)
    assert torch.equal(values(model), values(other))


class WithoutBase(torch.optim.Optimizer):
    def __init__(self, params, lr):
        self.lr = lr


class WithoutStep(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})


@pytest.mark.parametrize(
    ("cls", "words"),
    [(WithoutBase, r"its __init__ must call super\(\).__init__"), (WithoutStep, "no method step")],
)
def test_classes_that_forget_what_every_optimizer_has_are_told(cls, words) -> None:
    for _ in range(2):  # torch wraps the step of a class at its first optimizer
        with pytest.raises(UserError, match=words):
            build(partial(cls, lr=0.1), torch.nn.Linear(2, 2))
