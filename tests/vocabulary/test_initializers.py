"""Initializers: the statistics they promise, and what they leave alone."""

from functools import partial
from math import sqrt
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from optbench import models
from optbench.common.errors import UserError
from optbench.config import build
from optbench.formats.groups import config_folder
from optbench.initializers import initialize
from optbench.problem import build_model

FILES = sorted((config_folder() / "initializer").glob("*.yaml"))


def load(name: str, **changes) -> dict:
    config = OmegaConf.load(config_folder() / "initializer" / f"{name}.yaml")
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    config = OmegaConf.to_container(config, resolve=True)
    weight = config["weight"] and instantiate(config["weight"])
    return {"weight": weight, "bias": config["bias"]}


def filled(module: nn.Module, seed: int = 0, **arguments) -> nn.Module:
    initialize(module, torch.Generator().manual_seed(seed), **arguments)
    return module


FAN_IN, FAN_OUT = 300, 200
BOUND = 1 / sqrt(FAN_IN)
DEVIATION = {
    "default": BOUND / sqrt(3),
    "zeros": 0.0,
    "constant": 0.0,
    "normal": 0.05,
    "uniform": 0.05 / sqrt(3),
    "alexnet": 0.01,
    "too_small": 1e-4,
    "too_large": 1.0,
    "xavier_uniform": sqrt(2 / (FAN_IN + FAN_OUT)),
    "xavier_normal": sqrt(2 / (FAN_IN + FAN_OUT)),
    "he_uniform": sqrt(2 / FAN_IN),
    "he_normal": sqrt(2 / FAN_IN),
    "lecun": sqrt(1 / FAN_IN),
    "deviation_two_over_fan_in": 2 / FAN_IN,
    "orthogonal": 1 / sqrt(FAN_IN),
    "sparse": 0.1 * sqrt(0.1),
    "truncated_normal": 0.05 * 0.8796,  # of a standard normal without what is beyond two
    "xavier_by_layer": sqrt(2 / (FAN_IN + FAN_OUT)),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_weights_have_the_promised_spread_and_biases_the_promised_value(path: Path):
    layer = filled(nn.Linear(FAN_IN, FAN_OUT), **load(path.stem))
    spread = layer.weight.std(correction=0).item()
    assert spread == pytest.approx(DEVIATION[path.stem], rel=0.02, abs=1e-9)
    if path.stem == "default":
        assert 0 < layer.bias.abs().max() <= BOUND
    else:
        assert layer.bias.eq(0).all()
    if path.stem == "constant":
        assert layer.weight.eq(0.01).all()
    if path.stem == "orthogonal":
        assert torch.allclose(layer.weight @ layer.weight.T, torch.eye(FAN_OUT), atol=1e-5)
    if path.stem == "sparse":
        assert layer.weight.eq(0).float().mean().item() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_convolutions_are_filled_and_batch_norm_keeps_one_and_zero(path: Path):
    model = filled(models.cnn((1, 8, 8), 3, batch_norm=True, hidden=[20]), **load(path.stem))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()
    again = filled(models.cnn((1, 8, 8), 3, batch_norm=True, hidden=[20]), **load(path.stem))
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_he_on_a_convolution_counts_the_kernel_in_the_fan():
    conv = filled(nn.Conv2d(8, 400, 5), **load("he_normal"))
    assert conv.weight.std().item() == pytest.approx(sqrt(2 / (8 * 25)), rel=0.02)


def test_scale_sets_the_spread():
    wide = filled(nn.Linear(FAN_IN, FAN_OUT), **load("normal", scale=0.7))
    assert wide.weight.std().item() == pytest.approx(0.7, rel=0.02)
    flat = filled(nn.Linear(FAN_IN, FAN_OUT), **load("uniform", scale=0.7))
    assert flat.weight.abs().max().item() == pytest.approx(0.7, rel=0.01)


def test_default_is_distributed_as_torchs_own():
    torch.manual_seed(0)
    own, ours = nn.Linear(FAN_IN, FAN_OUT), filled(nn.Linear(FAN_IN, FAN_OUT))
    for a, b in zip(own.parameters(), ours.parameters(), strict=True):
        assert a.abs().max().item() == pytest.approx(b.abs().max().item(), rel=0.02)


def test_bias_may_be_a_constant_and_the_generator_decides_alone():
    torch.manual_seed(1)
    a = filled(nn.Linear(3, 4), weight=nn.init.normal_, bias=0.05)
    torch.manual_seed(2)
    b = filled(nn.Linear(3, 4), weight=nn.init.normal_, bias=0.05)
    assert a.bias.eq(0.05).all()
    assert torch.equal(a.weight, b.weight)
    c = filled(nn.Linear(3, 4), seed=1, weight=partial(nn.init.normal_, std=1.0))
    assert not torch.equal(a.weight, c.weight)


def with_weight(function):
    return partial(initialize, weight=function, bias=None)


def in_place(tensor):
    tensor *= 0  # of a leaf that requires a gradient: refused outside of no_grad
    tensor += 2


def replaces(module, generator):
    module[1].weight = nn.Parameter(torch.full_like(module[1].weight, 3.0))
    return module


def test_initializers_need_not_know_no_grad(make_problem):
    model = build_model(make_problem(initializer=with_weight(in_place)), 0)
    assert (model[1].weight == 2).all()
    assert model[1].weight.requires_grad
    model = build_model(make_problem(initializer=replaces), 0)
    assert (model[1].weight == 3).all()

    def by_hand(module, generator):
        for p in module.parameters():
            p.fill_(0.5)

    model = build_model(make_problem(initializer=by_hand), 0)
    assert all((p == 0.5).all() for p in model.parameters())
    builtin = build_model(make_problem(initializer=with_weight(torch.Tensor.normal_)), 0)
    again = build_model(make_problem(initializer=with_weight(torch.Tensor.normal_)), 0)
    assert torch.equal(builtin[1].weight, again[1].weight)


@pytest.mark.parametrize(
    ("initializer", "named"),
    [
        (with_weight(lambda t: torch.zeros_like(t)), "in place"),
        (with_weight(lambda t: t.set_(torch.zeros(3, 3))), "another tensor"),
        (with_weight(lambda t: {}["gone"]), "KeyError: 'gone'"),
        (lambda module, generator: nn.Linear(5, 3), "another model"),
    ],
)
def test_initializers_that_fill_nothing_are_refused_in_words(make_problem, initializer, named):
    with pytest.raises(UserError, match=named):
        build_model(make_problem(initializer=initializer), 0)


def test_weights_that_are_computed_from_others_are_set_through_them(make_problem):
    wrap = nn.utils.parametrizations.weight_norm
    fill = with_weight(partial(nn.init.constant_, val=0.25))
    problem = make_problem(lambda s, c: wrap(nn.Linear(*s, c)), initializer=fill)
    torch.testing.assert_close(build_model(problem, 0).weight.detach(), torch.full((3, 5), 0.25))


def test_functions_of_ones_own_are_named_in_the_configuration(make_problem):
    """Without `_partial_`, which is no setting of theirs; the whole initializer too."""
    weight = {"_target_": "torch.nn.init.constant_", "val": 0.125}
    for init, expected in (
        ({"name": "own", "weight": weight, "bias": None}, 0.125),
        ({"name": "own", "_target_": "optbench.initializers.initialize", "bias": 0.5}, None),
    ):
        model = build_model(make_problem(initializer=build.build_initializer(init)), 0)
        if expected is None:
            assert (model[1].bias == 0.5).all()
        else:
            assert (model[1].weight == expected).all()
