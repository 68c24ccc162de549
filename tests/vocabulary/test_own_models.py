"""Models of a user's own: trained as torch would train them, or refused in words."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from optbench import models
from optbench.common.errors import UserError
from optbench.config import build
from optbench.datasets import prepare
from optbench.datasets.torchvision_shim import import_torchvision, with_torchvision
from optbench.model_calls import arguments, call_model
from optbench.problem import build_model, stream
from optbench.runner import run
from optbench.training.layer_stats import gradient_noise
from optbench.training.loop import Training


class WithPart(nn.Module):
    """A model whose own part is called generator."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.generator, self.drop = nn.Linear(width, 4), models.Dropout(0.5)
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.drop(self.generator(x)))


def with_part(input_shape, classes):
    return WithPart(*input_shape, classes)


def test_part_called_generator_stays_the_models_own(make_problem):
    problem = make_problem(with_part)
    training = Training(problem, torch.optim.SGD)
    model = training.model
    assert [name for name, _ in models.drawing_layers(model)] == ["drop"]
    assert isinstance(model.generator, nn.Linear)
    assert "generator" not in vars(model)
    assert model.drop.generator is training.noise
    assert list(training.updates())[-1].status == "completed"


def test_noise_scale_puts_back_every_generator_that_a_model_holds():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.source = nn.Linear(3, 2), stream(0, "own")

        def forward(self, x):
            return self.layer(x + torch.randn(x.shape, generator=self.source))

    model = Own()
    before = model.source.get_state()
    gradient_noise(model, lambda x, y: model(x).square().mean(), torch.ones(16, 3), torch.ones(16))
    assert torch.equal(model.source.get_state(), before)


SHAPE, CLASSES = (3, 4, 5), 7


class Linear(nn.Module):
    def __init__(self, in_features, out_features, bias=True):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features, bias)


class Layers(nn.Module):
    def __init__(self, width, depth):
        raise AssertionError("a shape is no width")


def of_keywords(*, weights=None, progress=True, **kwargs):
    return None, weights, progress, kwargs


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        (lambda input_shape, classes: 0, ([], {"input_shape": SHAPE, "classes": CLASSES})),
        (lambda classes, input_shape: 0, ([], {"input_shape": SHAPE, "classes": CLASSES})),
        (lambda s, c: 0, ([SHAPE, CLASSES], {})),
        (lambda *_: 0, ([SHAPE, CLASSES], {})),
        (lambda shape, c, width=3: 0, ([SHAPE, CLASSES], {})),
        (lambda input_shape, n_classes, shape_of=3: 0, {"n_classes": CLASSES}),
        (lambda num_classes, in_channels=1: 0, ([], {"num_classes": CLASSES, "in_channels": 3})),
        (lambda width=3: 0, ([], {})),
        (of_keywords, ([], {"num_classes": CLASSES})),
        (partial(of_keywords, num_classes=5), ([], {})),
        (nn.Linear, ([], {"in_features": 60, "out_features": CLASSES})),
        (partial(nn.Linear, out_features=9), ([], {"in_features": 60})),
        (lambda weights_backbone="ImageNet": 0, ([], {"weights_backbone": None})),
    ],
)
def test_functions_are_called_as_their_signatures_say(factory, expected):
    if isinstance(expected, dict):
        expected = ([], {"input_shape": SHAPE} | expected)
    assert arguments(factory, SHAPE, CLASSES) == expected


@pytest.mark.parametrize(
    ("factory", "named"),
    [
        (Layers, "needs width and depth"),
        (lambda hidden, classes: 0, "needs hidden"),
        (lambda input_shape, width: 0, "needs width"),
        (nn.Conv2d, "needs out_channels and kernel_size"),
        (nn.Sequential, "does not say"),
        (nn.Linear(3, 4), "made already"),
        (partial(nn.Linear(3, 4)), "made already"),
    ],
)
def test_functions_that_do_not_say_how_are_refused(factory, named):
    with pytest.raises(UserError, match=f"{named}.*def net"):
        arguments(factory, SHAPE, CLASSES)


def test_classes_of_vectors_are_given_flat_examples():
    model = call_model(nn.Linear, SHAPE, CLASSES)
    assert model(torch.zeros(2, *SHAPE)).shape == (2, CLASSES)


class Own(nn.Module):
    """Gives what its function makes of the logits."""

    def __init__(self, width, classes, function):
        super().__init__()
        self.layer, self.function = nn.Linear(width, classes), function

    def forward(self, x):
        return self.function(self.layer(x), self)


def own(function):
    return lambda shape, classes: Own(*shape, classes, function)


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda o, _: (o, o), r"a tuple \(a tensor of shape \(2, 3\)"),
        (lambda o, _: {"logits": o}, r"a dict \(logits: a tensor"),
        (lambda o, _: None, "gives None"),
        (lambda o, _: o.detach().numpy(), "gives a ndarray"),
        (lambda o, _: o[:, None], r"shape \(2, 1, 3\)"),
        (lambda o, _: o[:, :2], r"one logit per class"),
        (lambda o, _: o.argmax(1), "outputs of torch.int64"),
        (lambda o, _: o * 1j, "outputs of torch.complex64"),
        (lambda o, _: o.to_sparse(), "outputs of torch.sparse"),
        (lambda o, _: o.detach(), "no weight of the model"),
        (lambda o, m: (o, o) if m.training else o, "tuple .* while training"),
        (lambda o, _: {}["gone"], r"KeyError: 'gone' \(test_own_models.py, line \d+\)"),
        (lambda o, _: 1 / 0, "ZeroDivisionError"),
        (lambda o, m: m.register_parameter("p", nn.Parameter(o[0])) or o, "all in __init__"),
    ],
)
def test_outputs_that_no_loss_takes_are_refused_in_words(make_problem, function, named):
    with pytest.raises(UserError, match=named):
        build_model(make_problem(own(function)), 0)


def test_trial_changes_neither_the_model_nor_its_draws(make_problem):
    def counted(o, model):
        model.calls = getattr(model, "calls", 0) + 1
        return o

    model = build_model(make_problem(own(counted)), 0)
    assert not hasattr(model, "calls")
    assert all(p.grad is None for p in model.parameters())
    norm = build_model(make_problem(partial(models.mlp, hidden=[4], batch_norm=True)), 0)
    assert [b.tolist() for n, b in norm.named_buffers() if "num_batches" in n] == [0]


def lazy(input_shape, classes):
    return nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(classes))


def test_lazy_layers_start_from_the_weights_of_the_seed(make_problem):
    problem = make_problem(lazy)
    plain = make_problem(
        lambda s, c: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, c))
    )
    first, again, other, known = (
        build_model(p, seed).state_dict()
        for p, seed in ((problem, 0), (problem, 0), (problem, 1), (plain, 0))
    )
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        assert torch.equal(weight, known[name])
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert list(Training(problem, torch.optim.SGD).updates())[-1].status == "completed"

    def unused(input_shape, classes):
        model = nn.Linear(5, classes)
        model.other = nn.LazyLinear(3)
        return model

    with pytest.raises(UserError, match="lazy layers that its forward does not use"):
        build_model(make_problem(unused), 0)


def test_images_of_other_channels_are_told_what_to_do(make_problem):
    grey = prepare.prepare((torch.rand(9, 1, 8, 8), torch.arange(9) % 3) * 2)
    problem = replace(make_problem(lambda s, c: nn.Conv2d(3, 4, 3)), dataset=grey)
    with pytest.raises(UserError, match=r"images of 3 channels, and these have 1.*Conv2d"):
        build_model(problem, 0)


def test_torchvisions_models_are_called_by_name(monkeypatch):
    torchvision = import_torchvision()
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda *a, **k: pytest.fail("fetched")
    )
    node = {"_target_": "torchvision.models.mobilenet_v3_small", "_partial_": True}
    model = call_model(build.build("model", node), (3, 32, 32), 10)
    assert isinstance(model, torchvision.models.MobileNetV3)
    assert model.classifier[-1].out_features == 10


def test_import_of_torchvision_beside_torch_for_cpus_is_tried_again():
    tried = []

    def call():
        tried.append(1)
        if len(tried) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")
        return "made"

    assert with_torchvision(call) == "made"
    with pytest.raises(RuntimeError, match="another"):
        with_torchvision(lambda: (_ for _ in ()).throw(RuntimeError("another")))


class Unfreezing(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.first, self.head, self.k = nn.Linear(shape[0], 4), nn.Linear(4, classes), 0
        self.first.weight.requires_grad_(False)

    def forward(self, x):
        self.k += self.training
        if self.k > 2:
            self.first.weight.requires_grad_(True)
        return self.head(self.first(x))


def test_a_layer_that_is_unfrozen_later_is_refused(make_problem):
    with pytest.raises(UserError, match="frozen when the optimizer was made"):
        list(
            Training(make_problem(Unfreezing, epochs=80, batch_size=8), torch.optim.Adam).updates()
        )


class Unseeded(nn.Linear):
    def __init__(self, shape, classes):
        super().__init__(shape[0], classes)
        self.rng = np.random.default_rng(self.seed)

    seed: int | None = None


class SeededOne(Unseeded):
    seed = 3


@pytest.mark.parametrize(("model", "told"), [(Unseeded, True), (SeededOne, False)])
def test_a_generator_without_a_seed_is_told(make_problem, capsys, model, told):
    asked = {"problem": make_problem(model), "optimizer": torch.optim.Adam}
    run.warn_of_unseeded(Training(**asked), asked)
    assert ("model.rng draws random numbers that no seed sets" in capsys.readouterr().err) == told


class Boom(nn.Linear):
    def __init__(self, shape, classes):
        super().__init__(shape[0], classes)
        self.calls, self.last = 0, 0

    def forward(self, x):
        self.calls += 1
        if self.calls > self.last:
            raise RuntimeError("my bug")
        return super().forward(x)


def test_error_that_a_model_raises_is_named_with_its_line_and_without_advice(make_problem):
    with pytest.raises(
        UserError, match=r"RuntimeError: my bug \(test_own_models.py, line"
    ) as found:
        Training(make_problem(Boom), torch.optim.Adam)
    assert "Linear takes" not in str(found.value)


class LateBoom(Boom):
    def forward(self, x):
        self.last = 4
        return super().forward(x) if self.training else nn.Linear.forward(self, x)


def test_error_of_a_models_forward_is_not_blamed_on_the_optimizer(make_problem):
    training = Training(make_problem(LateBoom, epochs=9), torch.optim.Adam)
    with pytest.raises(UserError, match="the model's forward failed in a step with Adam: Runtime"):
        list(training.updates())
