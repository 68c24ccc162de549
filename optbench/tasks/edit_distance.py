"""Greedy decoding of CTC's outputs, and the edit distance of label sequences."""

import torch
from torch import Tensor

BLANK = 0  # the class of CTC's blank
PADDING = -1  # behind the labels of a sequence


def greedy_decode(logits: Tensor) -> Tensor:
    """Return the labels of the best path of each example, (n, time), padded by -1.

    logits: (n, time, classes). Equal neighbours of the path are one label, and blanks none (Graves
    et al. 2006, "best path decoding").
    """
    path = logits.argmax(dim=2)
    new = torch.ones_like(path, dtype=torch.bool)
    new[:, 1:] = path[:, 1:] != path[:, :-1]
    kept = new & (path != BLANK)
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)  # labels first, in their order
    labels = path.masked_fill(~kept, PADDING).gather(1, order)
    return labels[:, : max(1, int(kept.sum(dim=1).max()) if len(kept) else 1)]


def edit_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return the Levenshtein distance of each row of `a` to that of `b`, (n,) int64.

    a, b: labels (n, most labels), padded by -1. The distance is the least number of insertions,
    deletions and substitutions of one label (Levenshtein 1966), by the rows of Wagner and Fischer
    (1974), of all pairs together.
    """
    n, width = b.shape
    lengths_a, lengths_b = ((labels != PADDING).sum(dim=1) for labels in (a, b))
    row = torch.arange(width + 1, device=b.device).expand(n, width + 1)  # distances of a[:0]
    found = row.gather(1, lengths_b[:, None])[:, 0]  # of an empty `a`
    for i in range(a.shape[1]):
        before, cells = row, [row[:, 0] + 1]
        replaced = before[:, :-1] + (a[:, i : i + 1] != b)
        best = torch.minimum(before[:, 1:] + 1, replaced)
        for j in range(width):
            cells.append(torch.minimum(best[:, j], cells[-1] + 1))
        row = torch.stack(cells, dim=1)
        at_end = row.gather(1, lengths_b[:, None])[:, 0]
        found = torch.where(lengths_a == i + 1, at_end, found)
    return found
