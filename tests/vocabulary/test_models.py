"""Models: shapes, layer order, switches, and clear refusals."""

import pytest
import torch
from torch import nn

from optbench import models
from optbench.common.errors import UserError


def kinds(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module.children()]


@pytest.mark.parametrize("activation", models.ACTIVATIONS)
def test_mlp_with_each_activation_gives_logits(activation):
    model = models.mlp((1, 8, 8), 10, hidden=[5, 4], activation=activation)
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert type(models.ACTIVATIONS[activation]()).__name__ in kinds(model)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 11), (1, 28, 28), (3, 32, 32), (2, 8, 64)])
@pytest.mark.parametrize("channels", [[4], [4, 6], [2, 3, 4, 5, 6]])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_cnn_takes_images_of_any_size(shape, channels, batch_norm):
    model = models.cnn(shape, 7, channels=channels, hidden=[9], batch_norm=batch_norm)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("place", ["before", "after"])
def test_batch_norm_stands_where_it_is_asked_for(place):
    model = models.mlp((6,), 3, hidden=[5], batch_norm=True, batch_norm_place=place)
    norm, activation = kinds(model).index("BatchNorm1d"), kinds(model).index("ReLU")
    assert (norm < activation) == (place == "before")
    # the bias that a batch norm would subtract again is not there
    assert (model[1].bias is None) == (place == "before")
    assert model[-1].bias is not None


def test_dropout_on_inputs_and_hidden_units_is_separate():
    assert kinds(models.mlp((6,), 3, hidden=[5])) == ["Flatten", "Linear", "ReLU", "Linear"]
    assert kinds(models.mlp((6,), 3, hidden=[5], input_dropout=0.2))[1] == "Dropout"
    both = models.mlp((6,), 3, hidden=[5, 4], dropout=0.5, input_dropout=0.2)
    assert [layer.p for layer in both.children() if isinstance(layer, models.Dropout)] == [
        0.2, 0.5, 0.5,
    ]  # fmt: skip


def test_dropout_keeps_the_mean_and_is_off_in_evaluation():
    layer = models.Dropout(0.25)
    layer.generator = torch.Generator().manual_seed(0)
    x = torch.ones(400, 500)
    y = layer(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(layer.eval()(x), x)


def test_dropout_draws_from_its_own_generator_only():
    before = torch.get_rng_state()
    layer = models.Dropout(0.5)
    masks = []
    for _ in range(2):
        layer.generator = torch.Generator().manual_seed(3)
        masks.append(layer(torch.ones(4, 4)))
    assert torch.equal(*masks)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("p", [1e-5, 0.1, 0.2, 0.5, 0.9, 0.999])
def test_a_unit_is_kept_where_its_16_bits_are_at_least_p(p):
    layer = models.Dropout(p)
    layer.generator = torch.Generator().manual_seed(5)
    x = torch.full((333, 501), 2.0)
    y = layer(x)
    layer.generator.manual_seed(5)
    shares = (layer.draw(x.shape).double() + 2**15) / 2**16
    kept = shares >= p
    assert torch.equal(y, torch.where(kept, 2.0 / (1 - p), 0.0))
    # within five standard errors, of all units and of each of the four in a word
    for some in (kept.flatten(), *(kept.flatten()[k::4] for k in range(4))):
        error = (p * (1 - p) / some.numel()) ** 0.5
        assert some.double().mean().item() == pytest.approx(1 - p, abs=5 * error + 2**-16)


def test_a_mask_depends_on_neither_memory_layout_nor_precision():
    layer = models.Dropout(0.3)
    x = torch.rand(3, 5, 7, 9) + 1

    def mask(x):
        layer.generator = torch.Generator().manual_seed(1)
        return layer(x) != 0

    for other in (x.to(memory_format=torch.channels_last), x.double(), x.bfloat16()):
        assert torch.equal(mask(other), mask(x))
        assert layer(other).dtype is other.dtype


def test_logreg_is_one_linear_layer():
    assert sum(p.numel() for p in models.logreg((4, 4), 3).parameters()) == 16 * 3 + 3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: models.cnn((13,), 3), "needs images"),
        (lambda: models.cnn((1, 7, 8), 3), "at least 8x8"),
        (lambda: models.cnn((1, 8, 8), 3, kernel=4), "odd"),
        (lambda: models.cnn((1, 8, 8), 3, channels=[0]), "model.channels"),
        (lambda: models.mlp((4,), 3, hidden=[3, -1]), "model.hidden"),
        (lambda: models.mlp((4,), 3, hidden=5), "model.hidden"),
        (lambda: models.mlp((4,), 3, activation="relou"), "leaky_relu"),
        (lambda: models.mlp((4,), 3, dropout=1.0), "model.dropout"),
        (lambda: models.mlp((4,), 3, input_dropout=-0.1), "model.input_dropout"),
        (lambda: models.mlp((4,), 3, batch_norm="yes"), "model.batch_norm"),
        (lambda: models.mlp((4,), 3, batch_norm=True, batch_norm_place="x"), "batch_norm_place"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(UserError, match=message):
        build()
