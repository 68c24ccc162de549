"""Recurrent networks: their shapes, initial weights and refusals."""

from functools import partial
from math import log

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optbench import models
from optbench.common.errors import UserError
from optbench.initializers import initialize
from optbench.models import draw_from, lstm


def made(*shape_and_classes, seed=0, **settings):
    model = lstm(*shape_and_classes, **settings)
    initialize(model, torch.Generator().manual_seed(seed))
    return model


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_outputs_are_per_token_or_of_the_last_step(cell, bidirectional, layers):
    settings = {"cell": cell, "bidirectional": bidirectional, "layers": layers, "hidden": 6}
    tokens, vectors = torch.randint(9, (3, 7)), torch.randn(3, 7, 4)
    each = made((7,), 9, vocabulary=9, per_token=True, **settings)
    assert each(tokens).shape == (3, 7, 9)
    assert made((7,), 5, vocabulary=9, **settings)(tokens).shape == (3, 5)
    assert made((7, 4), 2, per_token=True, **settings)(vectors).shape == (3, 7, 2)
    assert made((7, 4), 2, **settings)(vectors).shape == (3, 2)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_number_of_parameters_is_that_of_the_formula(cell):
    h, v, gates = 128, 75, {"lstm": 4, "gru": 3}[cell]
    model = lstm((64,), v, vocabulary=v, per_token=True, cell=cell, hidden=h, layers=2)
    expected = v * h + 2 * gates * (2 * h * h + 2 * h) + h * v + v
    assert sum(p.numel() for p in model.parameters()) == expected


def test_two_layers_are_torchs_own_two():
    model = made((7, 4), 3, hidden=6, layers=2, per_token=True)
    own = nn.LSTM(4, 6, num_layers=2, batch_first=True)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    with torch.no_grad():
        for i, layer in enumerate(model.stack):
            for name in names:
                getattr(own, f"{name}_l{i}").copy_(getattr(layer, f"{name}_l0"))
    x = torch.randn(3, 7, 4)
    torch.testing.assert_close(model(x), model.head(own(x)[0]))


def test_the_backward_direction_ends_at_the_first_step():
    model = made((7, 4), 3, hidden=6, bidirectional=True)
    x = torch.randn(2, 7, 4)
    (ends,) = model.stack[0](x)[1][:1]  # of each direction, (directions, n, hidden)
    torch.testing.assert_close(model(x), model.head(torch.cat([ends[0], ends[1]], dim=1)))


def test_published_weights_are_orthogonal_with_a_forget_gate_of_1():
    model = made((64,), 80, vocabulary=80, per_token=True, hidden=32)
    layer = model.stack[0]
    for gate in layer.weight_hh_l0.chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(32), atol=1e-5, rtol=0)
    for gate in layer.weight_ih_l0.chunk(4):
        assert gate.std().item() == pytest.approx((1 / 32) ** 0.5, rel=0.05)
    biases = (layer.bias_ih_l0 + layer.bias_hh_l0).chunk(4)
    assert [b.unique().tolist() for b in biases] == [[0.0], [1.0], [0.0], [0.0]]
    assert model.embedding.weight.abs().max().item() == pytest.approx(0.1, rel=0.01)
    gru = made((64,), 80, vocabulary=80, cell="gru")
    assert all((p == 0).all() for name, p in gru.named_parameters() if "bias" in name)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("vocabulary", [30, 80, 256])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_first_loss_is_that_of_an_even_guess(cell, vocabulary, layers):
    settings = {"vocabulary": vocabulary, "per_token": True, "cell": cell, "layers": layers}
    model = made((64,), vocabulary, **settings)
    tokens = torch.randint(vocabulary, (32, 65), generator=torch.Generator().manual_seed(1))
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(log(vocabulary), rel=0.02)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_no_step_sees_a_later_one_unless_both_directions_are_read(cell):
    tokens = torch.randint(9, (2, 12))
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 9
    for bidirectional in (False, True):
        settings = {"vocabulary": 9, "per_token": True, "cell": cell, "layers": 2}
        model = made((12,), 9, bidirectional=bidirectional, **settings)
        before, after = model(tokens), model(changed)
        assert torch.equal(before[:, :7], after[:, :7]) is not bidirectional
        assert not torch.equal(before[:, 7:], after[:, 7:])


def test_dropout_is_between_layers_with_a_generator_of_its_own():
    model = made((5, 4), 3, hidden=64, layers=2, dropout=0.5)
    assert sum(isinstance(m, models.Dropout) for m in model.modules()) == 2
    outputs = []
    for _ in range(2):
        draw_from(model, torch.Generator().manual_seed(1))
        torch.manual_seed(len(outputs))
        outputs.append(model.train()(torch.ones(2, 5, 4)))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], model.eval()(torch.ones(2, 5, 4)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"input_shape": (1, 28, 28)}, "sequences of vectors"),
        ({"input_shape": (13,), "vocabulary": 0}, "real numbers of shape"),
        ({"cell": "rnn"}, "lstm, gru"),
        ({"hidden": 0}, "model.hidden"),
        ({"layers": 1.5}, "model.layers"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"bidirectional": 1}, "true or false"),
        ({"bidirectional": True, "causal": True}, "has to predict"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(change, named):
    settings = {"input_shape": (8,), "classes": 9, "vocabulary": 9} | change
    with pytest.raises(UserError, match=named):
        lstm(**settings)


@pytest.mark.parametrize("module", [nn.LSTM(6, 5, num_layers=2), nn.GRUCell(6, 5), nn.RNN(6, 5)])
def test_an_initializer_fills_each_gates_matrix_by_itself(module):
    seen = []

    def fill(tensor):
        seen.append(tuple(tensor.shape))
        tensor.fill_(len(seen))

    initialize(module, torch.Generator(), weight=fill, bias=0.25)
    gates = {"LSTM": 4, "GRUCell": 3, "RNN": 1}[type(module).__name__]
    assert len(seen) == gates * sum(p.ndim == 2 for p in module.parameters())
    assert set(seen) <= {(5, 6), (5, 5)}
    for name, p in module.named_parameters():
        if p.ndim == 2:
            assert len(p.unique()) == gates
        else:
            assert (p == (0.25 if "bias_ih" in name else 0)).all()


def test_an_initializer_fills_embeddings_and_attention():
    module = nn.Sequential(nn.Embedding(9, 8, padding_idx=2), nn.MultiheadAttention(8, 2))
    weight = partial(nn.init.constant_, val=0.5)
    initialize(module, torch.Generator(), weight=weight, bias=0.25)
    expected = torch.full((9, 8), 0.5)
    expected[2] = 0
    assert torch.equal(module[0].weight, expected)
    for name, p in module[1].named_parameters():
        assert (p == (0.5 if "weight" in name else 0.25)).all()


def test_the_default_leaves_embeddings_of_other_models_as_torch_made_them():
    module = nn.Sequential(nn.Embedding(9, 8), nn.LSTM(8, 4), nn.MultiheadAttention(4, 2))
    before = {name: p.clone() for name, p in module.named_parameters()}
    initialize(module, torch.Generator())
    for name, p in module.named_parameters():
        assert torch.equal(p, before[name]) is not name.startswith("2.out_proj.")


def test_a_constant_bias_also_holds_beside_published_weights():
    model = lstm((7,), 9, vocabulary=9)
    initialize(model, torch.Generator().manual_seed(0), bias=0.5)
    assert (model.stack[0].bias_ih_l0 == 0.5).all()
    assert (model.head.bias == 0.5).all()
    gate = model.stack[0].weight_hh_l0.chunk(4)[0]
    torch.testing.assert_close(gate @ gate.T, torch.eye(128), atol=1e-5, rtol=0)
