"""GPT and the bigram: their sizes, initial weights, causality and refusals."""

from functools import partial
from math import inf, log, sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from optbench import models
from optbench.common.errors import UserError
from optbench.initializers import initialize
from optbench.models import bigram, draw_from, gpt
from optbench.models.transformer import MOST_PLAIN_TOKENS, Rotary, attention_kernel
from optbench.training import device

VARIANTS = [
    {"positions": positions, "norm": norm, "activation": activation, "tied": tied}
    for positions in ("learned", "rotary")
    for norm in ("layernorm", "rmsnorm")
    for activation, tied in (("gelu", False), ("relu_squared", True))
]


def made(factory=gpt, context=64, vocabulary=75, seed=0, **settings):
    given = {"vocabulary": vocabulary, "per_token": True} | settings
    model = factory((context,), vocabulary, **given)
    initialize(model, torch.Generator().manual_seed(seed))
    return model


def size_of(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("size", "layers", "width", "about"),
    [("nano", 2, 64, 0.11e6), ("micro", 4, 128, 0.8e6), ("mini", 4, 256, 3.2e6)],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_number_of_parameters_is_that_of_the_formula(size, layers, width, about, variant):
    model = made(size=size, **variant)
    norms = (1 + 2 * layers) * width
    tables = 75 * width * (1 if variant["tied"] else 2)
    positions = 64 * width if variant["positions"] == "learned" else 0
    assert size_of(model) == 12 * layers * width**2 + norms + tables + positions
    assert size_of(model) == pytest.approx(about, rel=0.12)
    with_biases = 0 if variant["norm"] == "rmsnorm" else norms
    assert size_of(made(size=size, bias=True, **variant)) == (
        size_of(model) + layers * 9 * width + with_biases
    )


@pytest.mark.parametrize("vocabulary", [30, 82])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", ["nano", "micro", "mini"])
def test_the_first_loss_is_that_of_an_even_guess(size, variant, vocabulary):
    model = made(size=size, vocabulary=vocabulary, **variant)
    tokens = torch.randint(vocabulary, (8, 65), generator=torch.Generator().manual_seed(1))
    loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(log(vocabulary), rel=0.02)


def test_the_first_loss_of_a_bigram_is_that_of_an_even_guess():
    tokens = torch.randint(75, (3, 65))
    loss = F.cross_entropy(made(bigram)(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(log(75), rel=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_token_sees_a_later_one(variant):
    model = made(context=16, vocabulary=9, **variant)
    tokens = torch.randint(9, (2, 16))
    before = model(tokens)
    for place in range(1, 16):
        changed = tokens.clone()
        changed[:, place:] = (changed[:, place:] + 1) % 9
        after = model(changed)
        assert torch.equal(before[:, :place], after[:, :place])
        assert not torch.equal(before[:, place], after[:, place])
    # and by the gradient: of a token's loss to the embedded later ones there is none
    embedded = model.embedding(tokens).detach().requires_grad_()
    model.embedding.forward = lambda x: embedded
    (gradient,) = torch.autograd.grad(model(tokens)[:, 7].sum(), embedded)
    assert (gradient[:, 8:] == 0).all()
    assert gradient[:, :8].abs().sum(dim=(0, 2)).gt(0).all()


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_the_order_of_earlier_tokens_counts(positions):
    model = made(context=8, vocabulary=9, positions=positions)
    a, b = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[3, 2, 1, 4]])
    assert not torch.allclose(model(a)[:, -1], model(b)[:, -1], atol=1e-6)


def test_rotary_products_depend_on_the_distance_alone():
    turn = Rotary(8, 32)
    q, k = torch.randn(8), torch.randn(8)
    every = torch.ones(1, 1, 32, 8)
    products = turn(every * q)[0, 0] @ turn(every * k)[0, 0].T
    for distance in range(5):
        along = products.diagonal(distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(products[0, 0], q @ k)
    torch.testing.assert_close(turn(every * q).norm(dim=-1), q.norm().expand(1, 1, 32))


def test_a_block_is_that_of_the_formula():
    model = made(context=6, vocabulary=9)
    tokens = torch.randint(9, (2, 6))
    x = model.embedding.weight[tokens] + model.positions.weight
    block, (mask, heads) = model.blocks[0], (torch.ones(6, 6).tril() == 0, 2)
    q, k, v = F.linear(F.layer_norm(x, (64,)), block.attention.qkv.weight).chunk(3, dim=2)
    mixed = []
    for a, b, c in zip(*(part.chunk(heads, dim=2) for part in (q, k, v)), strict=True):
        weights = (a @ b.transpose(1, 2) / sqrt(32)).masked_fill(mask, -torch.inf).softmax(dim=2)
        mixed.append(weights @ c)
    y = x + torch.cat(mixed, dim=2) @ block.attention.out.weight.T
    inner = F.gelu(F.layer_norm(y, (64,)) @ block.mlp_in.weight.T)
    torch.testing.assert_close(block(x), y + inner @ block.mlp_out.weight.T, atol=1e-5, rtol=1e-4)


def test_published_weights_are_those_of_gpt_2():
    model = made(size="micro", bias=True)
    for name, p in model.named_parameters():
        if "norm" in name:
            assert (p == (1 if "weight" in name else 0)).all()
        elif name.endswith("bias"):
            assert (p == 0).all()
        else:
            ends = name.endswith(("out.weight", "mlp_out.weight"))
            std = 0.02 / sqrt(8) if ends else 0.02
            assert p.std().item() == pytest.approx(std, rel=0.03)
    again = made(size="micro", bias=True)
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_a_tied_embedding_has_vectors_of_one_length_in_every_size():
    for size in ("nano", "micro", "mini"):
        model = made(size=size, tied=True)
        lengths = model.embedding.weight.norm(dim=1)
        assert lengths.mean().item() == pytest.approx(0.16, rel=0.05)


def test_another_initializer_fills_every_matrix_and_no_norm():
    model = gpt((8,), 9, vocabulary=9)
    initialize(model, torch.Generator(), weight=partial(nn.init.constant_, val=0.5), bias=0.0)
    for name, p in model.named_parameters():
        assert (p == (1 if "norm" in name else 0.5)).all()
    table = bigram((8,), 9, vocabulary=9, per_token=True)
    initialize(table, torch.Generator(), weight=partial(nn.init.constant_, val=0.5))
    assert (table.table.weight == 0.5).all()


def test_without_labels_for_each_token_the_last_one_answers():
    for factory in (gpt, bigram):
        torch.manual_seed(0)
        each, last = (factory((8,), 9, vocabulary=9, per_token=p) for p in (True, False))
        last.load_state_dict(each.state_dict())
        tokens = torch.randint(9, (4, 8))
        torch.testing.assert_close(last(tokens), each(tokens)[:, -1])


def test_dropout_draws_from_its_own_generator():
    model = made(context=8, vocabulary=9, dropout=0.2).train()
    assert sum(isinstance(m, models.Dropout) for m in model.modules()) == 5
    outputs = []
    for _ in range(2):
        draw_from(model, torch.Generator().manual_seed(1))
        torch.manual_seed(len(outputs))
        outputs.append(model(torch.ones(2, 8, dtype=torch.int64)))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_other_precisions_train(precision):
    model = made(context=8, vocabulary=9, positions="rotary", norm="rmsnorm")
    tokens = torch.randint(9, (2, 8))
    if precision is torch.float64:
        out = model.double()(tokens)
        assert out.dtype == torch.float64
    else:
        with torch.autocast("cpu", precision):
            out = model(tokens)
    out.float().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"input_shape": (1, 28, 28), "vocabulary": 0}, "real numbers of shape .1, 28, 28."),
        ({"input_shape": (1, 28, 28)}, "for images model=cnn"),
        ({"vocabulary": 0}, "needs tokens"),
        ({"size": "huge"}, "nano, micro, mini"),
        ({"layers": 0}, "model.layers"),
        ({"heads": 3}, "must divide model.width=64"),
        ({"heads": 64, "positions": "rotary"}, "an even number for model.positions=rotary"),
        ({"positions": "alibi"}, "learned, rotary"),
        ({"norm": "batch"}, "layernorm, rmsnorm"),
        ({"activation": "relu"}, "gelu, relu_squared"),
        ({"tied": 1}, "true or false"),
        ({"tied": True, "classes": 8}, "set model.tied=false"),
        ({"dropout": 1}, "model.dropout"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(change, named):
    with pytest.raises(UserError, match=named):
        gpt(**({"input_shape": (8,), "classes": 9, "vocabulary": 9} | change))


def test_a_bigram_of_images_is_refused():
    with pytest.raises(UserError, match="model=bigram needs tokens"):
        bigram((1, 28, 28), 10)


@pytest.mark.parametrize("precision", ["bf16", "none"])
def test_attention_is_that_of_the_formula_with_either_kernel(precision):
    """Products of oneDNN, for which few tokens take another kernel, and torch's own."""
    if precision == "bf16" and not device.route_products_to_onednn(on_intel=True):
        pytest.skip("oneDNN is not as accurate as float32 here")
    before, device.MATMUL.fp32_precision = device.MATMUL.fp32_precision, precision
    try:
        for tokens in (MOST_PLAIN_TOKENS, MOST_PLAIN_TOKENS + 1):
            torch.manual_seed(0)
            q, k, v = (torch.randn(2, 3, tokens, 8, requires_grad=True) for _ in range(3))
            with attention_kernel(q):
                mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            mixed.square().sum().backward()
            exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
            scores = exact[0] @ exact[1].transpose(-1, -2) / sqrt(8)
            later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
            right = scores.masked_fill(later, -inf).softmax(-1) @ exact[2]
            right.square().sum().backward()
            torch.testing.assert_close(mixed.double(), right, rtol=1e-5, atol=1e-5)
            for own, other in zip((q, k, v), exact, strict=True):
                torch.testing.assert_close(own.grad.double(), other.grad, rtol=1e-4, atol=1e-4)
    finally:
        device.MATMUL.fp32_precision = before
