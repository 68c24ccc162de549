"""The bigram: a table of logits of the next token by the last one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from optbench.models.layers import check_tokens


class Bigram(nn.Module):
    """A row of logits for each token.

    Tokens (n, tokens) to logits (n, tokens, classes) if `per_token`, else to (n, classes).
    """

    def __init__(self, vocabulary: int, classes: int, *, per_token: bool) -> None:
        super().__init__()
        self.per_token = per_token
        self.table = nn.Embedding(vocabulary, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x if self.per_token else x[:, -1])

    @torch.no_grad()
    def published_init(self, generator: torch.Generator) -> None:
        """Fill the table with zeros, an even guess; the loss is convex in the table."""
        nn.init.zeros_(self.table.weight)


def bigram(
    input_shape: Sequence[int], classes: int, *, vocabulary: int = 0, per_token: bool = False
) -> nn.Module:
    """Return a table of logits by the last token alone, the baseline for texts."""
    check_tokens("bigram", input_shape, vocabulary)
    return Bigram(vocabulary, classes, per_token=per_token)
