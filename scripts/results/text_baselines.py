"""Print what a bigram and xz need for a text, beside which models of it are judged.

    python -m scripts.results.text_baselines problem=austen_gpt

The words are those of a run. The bigram is of counts with one added to each (Laplace), from the
training part alone. xz has no part to learn from but what it packs: "alone" are the bits of the
packed part, "after training" the bits that the part adds to the packed training part.
"""

import lzma
import sys
from collections.abc import Sequence
from math import log
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from optbench.common.errors import UserError
from optbench.config import build
from optbench.config.hydra_internals import VERSION_BASE
from optbench.config.resolve import resolve
from optbench.datasets.prepare import Dataset
from optbench.formats.groups import config_folder
from optbench.tasks import Characters
from scripts.tables import markdown

PRESET = 9 | lzma.PRESET_EXTREME


def bigram_nats(data: Dataset, x: Tensor, y: Tensor) -> float:
    """Return the mean loss of a bigram with counts of the training part, each plus one."""
    size = data.classes
    pairs = data.train_x[:, 0] * size + data.train_y[:, 0]
    counts = torch.bincount(pairs, minlength=size**2).view(size, size).double() + 1
    chances = counts / counts.sum(dim=1, keepdim=True)
    return float(-chances[x, y].log().mean())


def packed_bits(tokens: Tensor) -> int:
    """Return the bits of xz for a part; tokens of characters must be at most 256."""
    return 8 * len(lzma.compress(bytes(tokens.tolist()), preset=PRESET))


def rows_of(data: Dataset) -> list[dict[str, Any]]:
    """Return a row for the validation and one for the test part."""
    assert isinstance(data.task, Characters)
    train = torch.cat([data.train_x[:, 0], data.train_y[-1]])
    known = packed_bits(train)
    rows = []
    for name, x, y in (("validation", data.val_x, data.val_y), ("test", data.test_x, data.test_y)):
        characters = int(data.task.characters(y).sum())
        nats = bigram_nats(data, x, y)
        after = packed_bits(torch.cat([train, y.flatten()])) - known
        bits = {
            "bigram": nats * y.numel() / log(2) / characters,
            "xz alone": packed_bits(y.flatten()) / characters,
            "xz after training": after / characters,
        }
        row = {"part": name, "characters": characters, "bigram, nats": f"{nats:.3f}"}
        rows.append(row | {f"{key}, bits": f"{value:.3f}" for key, value in bits.items()})
    return rows


def main(words: Sequence[str]) -> int:
    if {"-h", "--help"} & {*words}:
        print(__doc__)
        return 0
    try:
        with initialize_config_dir(str(config_folder()), **VERSION_BASE):
            config = resolve(compose("config", list(words)), words)
        data = build.load_dataset(config)
        if not isinstance(data.task, Characters) or data.classes > 256:
            raise UserError("this is no text of at most 256 different tokens")
        print("\n".join(markdown(rows_of(data))))
    except UserError as error:
        print(f"text_baselines: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
