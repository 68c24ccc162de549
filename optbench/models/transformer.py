"""GPT: a decoder of tokens, in three sizes."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from math import sqrt
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from optbench.common.errors import UserError, check_choice
from optbench.models.layers import check_tokens, count_of, dropout_layers

STD = 0.02  # of GPT-2's weights
ROTARY_BASE = 10_000.0
MOST_PLAIN_TOKENS = 128


class ReluSquared(nn.Module):
    """max(x, 0)^2 (So et al. 2021, Primer)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


NORMS: dict[str, type[nn.Module]] = {"layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm}
MLP_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu_squared": ReluSquared}
POSITIONS = ("learned", "rotary")


class Size(NamedTuple):
    """The size of a decoder.

    There are 12 * layers * width^2 weights, beside embeddings and norms.
    """

    layers: int
    width: int
    heads: int


# micro is nanoGPT's setting for a CPU
SIZES = {"nano": Size(2, 64, 2), "micro": Size(4, 128, 4), "mini": Size(4, 256, 8)}


class Settings(NamedTuple):
    """The parts that all blocks of a decoder share."""

    size: Size
    norm: str
    activation: str
    rotary: bool
    bias: bool
    dropout: float

    def make_norm(self) -> nn.Module:
        """Return a new norm of the width; RMSNorm has no bias."""
        if self.norm == "rmsnorm":
            return nn.RMSNorm(self.size.width)
        return nn.LayerNorm(self.size.width, bias=self.bias)

    def make_dropout(self) -> nn.Module:
        """Return a new dropout layer, or one that changes nothing."""
        return nn.Sequential(*dropout_layers("model.dropout", self.dropout))


class Attention(nn.Module):
    """Causal self-attention of several heads, by `scaled_dot_product_attention`."""

    def __init__(self, s: Settings, context: int) -> None:
        super().__init__()
        width, self.heads = s.size.width, s.size.heads
        self.qkv = nn.Linear(width, 3 * width, bias=s.bias)
        self.out = nn.Linear(width, width, bias=s.bias)
        self.rotary = Rotary(width // self.heads, context) if s.rotary else None
        self.dropout = s.make_dropout()

    def forward(self, x: Tensor) -> Tensor:  # (n, tokens, width)
        n, tokens, width = x.shape
        heads = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (n, heads, tokens, width / heads)
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        with attention_kernel(q):
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(n, tokens, width)
        return self.dropout(self.out(mixed))


def attention_kernel(q: Tensor) -> AbstractContextManager[object]:
    """Return the context in which torch takes the faster kernel for these queries.

    q: (n, heads, tokens, width). On the CPU torch's fused kernel multiplies small tiles. Where
    products are oneDNN's (`training.device`), which is slow to begin one, two plain products of all
    are faster for few tokens: on a CPU of AMD 10 ms in place of 41 for 128 texts of 64 tokens.
    """
    if torch.compiler.is_compiling():
        return nullcontext()  # from its cache of compiled steps torch 2.13 takes wrong shapes
    onednn = torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # type: ignore[attr-defined]
    plain = q.device.type == "cpu" and q.shape[-2] <= MOST_PLAIN_TOKENS and onednn
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): pairs of dimensions turn with the position."""

    cos: Tensor
    sin: Tensor

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        rates = ROTARY_BASE ** -(torch.arange(0, width, 2).double() / width)
        angles = torch.outer(torch.arange(context).double(), rates)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # (n, heads, tokens, width)
        a, b = x.chunk(2, dim=-1)
        cos, sin = self.cos[: x.shape[2]].to(x.dtype), self.sin[: x.shape[2]].to(x.dtype)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Block(nn.Module):
    """Attention and an MLP, each behind a norm and added to the stream."""

    def __init__(self, s: Settings, context: int) -> None:
        super().__init__()
        width = s.size.width
        self.attention_norm, self.attention = s.make_norm(), Attention(s, context)
        self.mlp_norm = s.make_norm()
        self.mlp_in = nn.Linear(width, 4 * width, bias=s.bias)
        self.activation = MLP_ACTIVATIONS[s.activation]()
        self.mlp_out = nn.Linear(4 * width, width, bias=s.bias)
        self.dropout = s.make_dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.dropout(self.mlp_out(self.activation(self.mlp_in(self.mlp_norm(x)))))


class GPT(nn.Module):
    """A decoder (Radford et al. 2019) of tokens (n, tokens).

    Outputs are logits (n, tokens, classes) if `per_token`, else those of the last token.
    """

    def __init__(
        self,
        s: Settings,
        context: int,
        vocabulary: int,
        classes: int,
        *,
        tied: bool,
        per_token: bool,
    ) -> None:
        super().__init__()
        self.per_token, width = per_token, s.size.width
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = None if s.rotary else nn.Embedding(context, width)
        self.dropout = s.make_dropout()
        self.blocks = nn.Sequential(*(Block(s, context) for _ in range(s.size.layers)))
        self.norm = s.make_norm()
        self.head = None if tied else nn.Linear(width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        x = self.embedding(x)
        if self.positions is not None:
            x = x + self.positions.weight[:tokens]
        x = self.norm(self.blocks(self.dropout(x)))
        if not self.per_token:
            x = x[:, -1]
        return F.linear(x, self.embedding.weight) if self.head is None else self.head(x)

    @torch.no_grad()
    def published_init(self, generator: torch.Generator) -> None:
        """Fill all weights, as `initializer=default` does, by Radford et al. 2019.

        Weights are normal of std 0.02, those that end a residual branch of 0.02 / sqrt(2 layers).
        Biases are 0. An embedding that is the head as well keeps the length that its vectors have
        at width 64: longer ones would begin with a guess that a token repeats itself.
        """
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=STD, generator=generator)
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if self.head is None:
            self.embedding.weight.mul_(min(1.0, sqrt(64 / self.embedding.embedding_dim)))
        for layer in self.modules():
            ends = [layer.attention.out, layer.mlp_out] if isinstance(layer, Block) else []
            for last in ends:
                last.weight.mul_(1 / sqrt(2 * len(self.blocks)))


def gpt(
    input_shape: Sequence[int],
    classes: int,
    *,
    vocabulary: int = 0,
    per_token: bool = False,
    size: str = "nano",
    layers: int | None = None,
    width: int | None = None,
    heads: int | None = None,
    positions: str = "learned",
    norm: str = "layernorm",
    activation: str = "gelu",
    tied: bool = False,
    bias: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """Return a decoder of tokens `(tokens,)`, which are integers below `vocabulary`.

    per_token: logits for each token, `(n, tokens, classes)`; else for the last, `(n, classes)`.
    size: nano, micro or mini, of which layers, width and heads may be set by themselves. tied: the
    head has the weights of the embedding. bias: of linear layers and LayerNorm. dropout: of the
    embedded tokens, and at the end of each residual branch. A token sees earlier tokens only.
    """
    sized = _checked_size(size, layers, width, heads, rotary=positions == "rotary")
    check_choice("model.positions", positions, POSITIONS)
    check_choice("model.norm", norm, NORMS)
    check_choice("model.activation", activation, MLP_ACTIVATIONS)
    for key, value in (("tied", tied), ("bias", bias)):
        if not isinstance(value, bool):
            raise UserError(f"model.{key} must be true or false, not {value!r}")
    context = check_tokens("gpt", input_shape, vocabulary)
    if tied and classes != vocabulary:
        raise UserError(
            f"model.tied=true gives the head the embedding's weights, of {vocabulary} tokens, and "
            f"this dataset has {classes} classes: set model.tied=false"
        )
    settings = Settings(sized, norm, activation, positions == "rotary", bias, dropout)
    return GPT(settings, context, vocabulary, classes, tied=tied, per_token=per_token)


def _checked_size(
    name: str, layers: int | None, width: int | None, heads: int | None, *, rotary: bool
) -> Size:
    check_choice("model.size", name, SIZES)
    given = {"layers": layers, "width": width, "heads": heads}
    size = SIZES[name]._replace(
        **{
            key: count_of(f"model.{key}", value)
            for key, value in given.items()
            if value is not None
        }
    )
    if size.width % size.heads or (rotary and size.width // size.heads % 2):
        even = ", and each an even number for model.positions=rotary" if rotary else ""
        raise UserError(
            f"model.heads={size.heads} must divide model.width={size.width} into equal parts{even}"
        )
    return size
