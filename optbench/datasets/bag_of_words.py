"""Documents as counts of their words: sparse features, of which most are rare."""

import re
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import torch

from optbench.common.errors import UserError
from optbench.datasets.raw import RawDataset
from optbench.datasets.text_files import NOVELS, read_novels

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
TEST_EVERY = 5  # one of so many paragraphs of each text is for the test


def novels_by_name() -> dict[str, str]:
    """Return the six bundled novels by Jane Austen."""
    return dict(zip(NOVELS, read_novels(), strict=True))


def bag_of_words(
    words: int = 2000,
    shortest: int = 20,
    texts: Callable[[], Mapping[str, str]] = novels_by_name,
) -> RawDataset:
    """Return paragraphs as counts of frequent words; the labels number the texts.

    Every fifth paragraph of a text is for the test. The words are the most frequent ones of the
    other paragraphs. words: their number. shortest: the fewest words of a paragraph that is used.
    texts: returns the texts by name, with empty lines between paragraphs. The counts are uint8.
    """
    for key, value in (("words", words), ("shortest", shortest)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"dataset.{key} must be a whole number of at least 1, not {value!r}")
    parts: dict[bool, list[tuple[Counter[str], int]]] = {False: [], True: []}
    for label, text in enumerate(texts().values()):
        counts = [count for count in map(_counted, paragraphs(text)) if count.total() >= shortest]
        for place, count in enumerate(counts, start=1):
            parts[place % TEST_EVERY == 0].append((count, label))
    if not parts[True]:
        raise UserError(
            f"no text has {TEST_EVERY} paragraphs of {shortest} words: lower dataset.shortest"
        )
    total: Counter[str] = Counter()
    for count, _ in parts[False]:
        total.update(count)
    # of equally frequent words the first by letter, so that the order is always the same
    known = sorted(total, key=lambda word: (-total[word], word))[:words]
    place_of = {word: place for place, word in enumerate(known)}
    arrays = [array for part in (False, True) for array in _arrays(parts[part], place_of)]
    return RawDataset(*map(torch.from_numpy, arrays))


def paragraphs(text: str) -> list[str]:
    """Return the parts of a text between empty lines."""
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]


def _counted(paragraph: str) -> Counter[str]:
    return Counter(WORD.findall(paragraph.lower()))


def _arrays(
    examples: list[tuple[Counter[str], int]], place_of: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    x = np.zeros((len(examples), len(place_of)), dtype=np.uint8)
    for row, (count, _) in enumerate(examples):
        for word, number in count.items():
            if (place := place_of.get(word)) is not None:
                x[row, place] = min(number, 255)
    return x, np.array([label for _, label in examples], dtype=np.int64)
