"""Recurrent networks of tokens, or of sequences of vectors."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from optbench.common.errors import UserError, check_choice
from optbench.models.layers import count_of, dropout_layers

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"lstm": nn.LSTM, "gru": nn.GRU}
GATES = {"lstm": 4, "gru": 3}
FORGET_GATE = 1  # its place among the four gates of torch's LSTM


class Recurrent(nn.Module):
    """Layers of one recurrent cell behind an embedding, before a linear head.

    Tokens `(n, time)`, or vectors `(n, time, features)`, to outputs `(n, time, classes)` if
    `per_token`, else to `(n, classes)` of the last step.
    """

    takes_any_layout = True

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        vocabulary: int,
        per_token: bool,
        hidden: int,
        layers: int,
        cell: str,
        dropout: float,
        bidirectional: bool,
    ) -> None:
        super().__init__()
        self.per_token, self.bidirectional = per_token, bidirectional
        self.embedding = nn.Embedding(vocabulary, hidden) if vocabulary else None
        directions = 2 if bidirectional else 1
        width = hidden if vocabulary else features
        stack: list[nn.Module] = []
        for _ in range(layers):
            # one module a layer, since torch's own dropout draws from the global generator
            made: nn.Module = CELLS[cell](
                width, hidden, batch_first=True, bidirectional=bidirectional
            )
            width = directions * hidden
            stack += [made, *dropout_layers("model.dropout", dropout)]
        self.stack = nn.ModuleList(stack)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.embedding is not None:
            x = self.embedding(x)
        for layer in self.stack:
            x = layer(x)[0] if isinstance(layer, nn.RNNBase) else layer(x)
        if not self.per_token:
            x = self._last(x)
        return self.head(x)

    def _last(self, x: Tensor) -> Tensor:
        """Return the state after the last step of each direction, `(n, width)`."""
        if not self.bidirectional:
            return x[:, -1]
        forward, backward = x.chunk(2, dim=2)
        return torch.cat([forward[:, -1], backward[:, 0]], dim=1)  # backward ends at step 0

    @torch.no_grad()
    def published_init(self, generator: torch.Generator) -> None:
        """Fill all weights, as `initializer=default` does.

        Input matrices and the head are uniform (Glorot & Bengio 2010), recurrent ones orthogonal
        (Saxe et al. 2014), each gate's for itself; biases are 0, of LSTM's forget gate 1
        (Gers et al. 2000, Jozefowicz et al. 2015). Embeddings are uniform in +-0.1 (Zaremba et al.
        2014).
        """
        if self.embedding is not None:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1, generator=generator)
        for layer in self.stack:
            if isinstance(layer, nn.RNNBase):
                _fill_cell(layer, generator)
        nn.init.xavier_uniform_(self.head.weight, generator=generator)
        nn.init.zeros_(self.head.bias)


def _fill_cell(layer: nn.RNNBase, generator: torch.Generator) -> None:
    gates = GATES[layer.mode.lower()]
    for name, tensor in layer.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(tensor)
            if name.startswith("bias_ih") and isinstance(layer, nn.LSTM):
                tensor.chunk(gates)[FORGET_GATE].fill_(1)
            continue
        orthogonal = name.startswith("weight_hh")
        fill = nn.init.orthogonal_ if orthogonal else nn.init.xavier_uniform_
        for part in tensor.chunk(gates):
            fill(part, generator=generator)


def lstm(
    input_shape: Sequence[int],
    classes: int,
    *,
    vocabulary: int = 0,
    per_token: bool = False,
    causal: bool = False,
    hidden: int = 128,
    layers: int = 1,
    cell: str = "lstm",
    dropout: float = 0.0,
    bidirectional: bool = False,
) -> nn.Module:
    """Return a recurrent network of tokens `(time,)` or of vectors `(time, features)`.

    vocabulary: the number of tokens; 0: the inputs are vectors. per_token: outputs for each step,
    `(n, time, classes)`; else for the last step, `(n, classes)`. causal: the outputs of a step may
    not depend on later ones, so that `bidirectional` is refused. cell: lstm (Hochreiter &
    Schmidhuber 1997, with the forget gate of Gers et al. 2000) or gru (Cho et al. 2014). dropout:
    between the layers, and before the head (Zaremba et al. 2014).
    """
    check_choice("model.cell", cell, CELLS)
    for key, value in (("model.hidden", hidden), ("model.layers", layers)):
        count_of(key, value)
    if not isinstance(bidirectional, bool):
        raise UserError(f"model.bidirectional must be true or false, not {bidirectional!r}")
    if bidirectional and causal:
        raise UserError(
            "model.bidirectional=true reads a text backwards too, and so sees the token that it "
            "has to predict: set model.bidirectional=false, or take a dataset of whole sequences"
        )
    if len(input_shape) != (1 if vocabulary else 2):
        raise UserError(
            f"model=lstm needs tokens (time,), or sequences of vectors (time, features), and this "
            f"dataset's examples are {'integers' if vocabulary else 'real numbers'} of shape "
            f"{tuple(input_shape)}. Use model=mlp or model=cnn, or a dataset of sequences or text"
        )
    return Recurrent(
        input_shape[-1],
        classes,
        vocabulary=vocabulary,
        per_token=per_token,
        hidden=hidden,
        layers=layers,
        cell=cell,
        dropout=dropout,
        bidirectional=bidirectional,
    )
