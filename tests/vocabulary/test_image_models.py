"""Residual networks and torchvision's: parameters, norms, adapted layers, clear refusals."""

import pytest
import torch
from torch import nn

from optbench import models
from optbench.common.errors import UserError
from optbench.datasets.torchvision_shim import import_torchvision
from optbench.models import resnet, torchvision_model
from optbench.models.resnet import ResidualBlock


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("depth", "millions"),  # He et al. 2016, table 6
    [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)],
)
def test_parameters_are_those_of_the_paper(depth, millions):
    assert count(resnet((3, 32, 32), 10, depth=depth)) / 1e6 == pytest.approx(millions, abs=0.035)


def test_parameters_of_the_small_ones_are_counted_by_hand():
    def by_hand(n, channels=3, classes=10):
        convs = 9 * (16 * channels + 2 * n * 16 * 16)
        convs += 9 * (16 * 32 + (2 * n - 1) * 32 * 32 + 32 * 64 + (2 * n - 1) * 64 * 64)
        norms = 2 * (16 + 2 * n * (16 + 32 + 64))
        return convs + norms + 64 * classes + classes

    for n, depth in ((1, 8), (2, 14), (3, 20)):
        assert count(resnet((3, 32, 32), 10, depth=depth)) == by_hand(n)
        assert count(resnet((1, 28, 28), 4, depth=depth)) == by_hand(n, 1, 4)
    assert by_hand(3) == 269_722
    extra = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64  # two 1x1 convolutions with their norms
    assert count(resnet((3, 32, 32), 10, shortcut="B")) == 269_722 + extra


def test_layers_with_weights_are_as_many_as_the_depth():
    for depth in (8, 14, 20):
        model = resnet((1, 8, 8), 3, depth=depth)
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == depth
        assert all(m.bias is None for m in layers[:-1])


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 7), (2, 32, 16), (1, 1, 1)])
def test_images_of_any_size_give_logits(shape, shortcut):
    model = resnet(shape, 5, depth=8, width=8, shortcut=shortcut)
    assert model(torch.zeros(3, *shape)).shape == (3, 5)


def test_stages_halve_the_image_and_double_the_channels():
    model = resnet((1, 12, 12), 3, depth=14, width=4)
    shapes = []
    for block in model.children():
        if isinstance(block, ResidualBlock):
            block.register_forward_hook(lambda m, i, o: shapes.append(tuple(o.shape[1:])))
    model(torch.zeros(2, 1, 12, 12))
    assert shapes == 2 * [(4, 12, 12)] + 2 * [(8, 6, 6)] + 2 * [(16, 3, 3)]


def test_shortcut_a_takes_every_second_pixel_and_adds_zeros():
    block = ResidualBlock(2, 4, 2, nn.BatchNorm2d, "A")
    x = torch.randn(3, 2, 6, 6)
    short = block.shortcut(x)
    assert torch.equal(short[:, :2], x[:, :, ::2, ::2])
    assert not short[:, 2:].any()
    for conv in (block.conv1, block.conv2):
        nn.init.zeros_(conv.weight)
    assert torch.equal(block(x), short.relu())  # the identity where the rest is zero


@pytest.mark.parametrize(("norm", "groups"), [("layer", 1), ("group", 4)])
def test_norms_of_examples_do_not_depend_on_the_batch(norm, groups):
    model = resnet((1, 8, 8), 3, depth=8, width=8, norm=norm, groups=4).train()
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert {m.num_groups for m in norms} == {groups}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    x = torch.randn(5, 1, 8, 8)
    assert torch.allclose(model(x)[:2], model(x[:2]), atol=1e-5)
    values = 3 + 2 * torch.randn(2, 8, 4, 4)
    own = nn.functional.layer_norm(values, (8, 4, 4))
    if norm == "layer":
        assert torch.allclose(norms[0](values), own, atol=1e-5)


def test_batch_norm_depends_on_the_batch():
    model = resnet((1, 8, 8), 3, depth=8, width=8).train()
    x = torch.randn(5, 1, 8, 8)
    assert not torch.allclose(model(x)[:2], model(x[:2]), atol=1e-3)


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_a_residual_network_computes_the_same_in_any_layout(norm):
    model = resnet((3, 12, 12), 3, depth=8, norm=norm)
    assert models.takes_any_layout(model)
    x = torch.randn(4, 3, 12, 12)
    before = model(x)
    model.to(memory_format=torch.channels_last)
    assert torch.allclose(model(x), before, atol=1e-4)


def test_a_subclass_of_a_residual_block_is_not_taken_for_one():
    class Own(ResidualBlock):
        def forward(self, x):
            return super().forward(x.flatten().view(x.shape))

    assert not models.takes_any_layout(Own(4, 4, 1, nn.BatchNorm2d, "A"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"depth": 10}, r"model\.depth must be 6 n \+ 2"),
        ({"depth": 2}, r"model\.depth"),
        ({"depth": "20"}, r"model\.depth"),
        ({"norm": "bath"}, r"model\.norm must be one of batch, layer, group.*mean batch"),
        ({"shortcut": "C"}, r"model\.shortcut must be one of A, B"),
        ({"width": 0}, r"model\.width"),
        ({"norm": "group", "width": 12}, r"model\.groups must divide model\.width=12.*take 6"),
    ],
)
def test_bad_settings_are_named(given, words):
    with pytest.raises(UserError, match=words):
        resnet((1, 8, 8), 3, **given)


@pytest.mark.parametrize("make", [resnet, lambda s, c: torchvision_model(s, c, network="resnet18")])
def test_vectors_are_refused_in_words(make):
    with pytest.raises(UserError, match="needs images"):
        make((13,), 3)


@pytest.mark.parametrize(
    ("network", "first"),
    [
        ("resnet18", "conv1"),
        ("mobilenet_v3_small", "features.0.0"),
        ("squeezenet1_1", "features.0"),
        ("shufflenet_v2_x0_5", "conv1.0"),
    ],
)
def test_a_network_of_torchvision_has_our_channels_and_classes(network, first):
    model = torchvision_model((1, 28, 28), 7, network=network)
    conv = model.get_submodule(first)
    published = import_torchvision().models.get_model(network, weights=None)
    theirs = published.get_submodule(first)
    assert (conv.in_channels, conv.out_channels) == (1, theirs.out_channels)
    for name in ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
        assert getattr(conv, name) == getattr(theirs, name)
    assert (conv.bias is None) == (theirs.bias is None)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 7)
    assert model.training


def test_three_channels_are_left_as_they_are():
    model = torchvision_model((3, 32, 32), 1000, network="resnet18")
    assert count(model) == 11_689_512  # torchvision's own number


def test_a_vision_transformer_gets_the_images_size():
    model = torchvision_model((1, 32, 32), 3, network="vit_b_32")
    assert model.image_size == 32


@pytest.mark.parametrize(
    ("network", "shape", "words"),
    [
        ("resnet19", (1, 28, 28), r"no network 'resnet19' .*Did you mean resnet18\?"),
        ("fcn_resnet50", (1, 28, 28), "no network 'fcn_resnet50' for classification"),
        ("alexnet", (1, 28, 28), r"does not take images of 28x28 pixels .*dataset\.size=224"),
        ("vit_b_16", (1, 28, 28), "does not take images of 28x28"),
        ("vit_b_16", (1, 32, 16), "needs square images, not 32x16"),
    ],
)
def test_networks_that_do_not_fit_are_refused_in_words(network, shape, words):
    with pytest.raises(UserError, match=words):
        torchvision_model(shape, 3, network=network)


def test_an_output_of_another_size_is_refused(monkeypatch):
    library = import_torchvision().models
    monkeypatch.setattr(library, "get_model", lambda name, **given: nn.Conv2d(3, 3, 1))
    with pytest.raises(
        UserError, match=r"outputs of shape \(2, 3, 8, 8\) for 2 examples; \(2, 5\)"
    ):
        torchvision_model((3, 8, 8), 5, network="resnet18")


def test_weights_are_never_asked_for(monkeypatch):
    library, seen = import_torchvision().models, []
    made = library.get_model

    def get_model(name, **given):
        seen.append(given["weights"])
        return made(name, **given)

    monkeypatch.setattr(library, "get_model", get_model)
    torchvision_model((3, 32, 32), 5, network="squeezenet1_1")
    assert seen == [None]
