"""Texts: a novelist's bundled works, or files of the user's, as windows of tokens.

The target of each token of a window is the token that follows in the text. The parts for training,
validation and test are passages of the text without a common character.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from optbench.common.errors import UserError, check_choice
from optbench.datasets.prepare import Dataset
from optbench.datasets.text_files import read_novels, read_texts
from optbench.tasks import Bytes, Characters

UNITS = ("characters", "bytes")
UNKNOWN = 0  # the token of all characters that the training part lacks
CODE_POINTS = 0x110000  # of Unicode


@dataclass(frozen=True, eq=False)
class Text:
    """A text before it is split and numbered. train: validation is taken out of it.

    context: tokens of a window. unit: what a token is, characters or bytes of UTF-8.
    """

    train: str
    test: str
    context: int
    unit: str

    def prepare(
        self,
        *,
        preprocessing: str,
        val_size: float | int,
        split_seed: int,
        subset: int | None,
        targets: str,
    ) -> Dataset:
        """Split the text, number its tokens and cut it into windows.

        Validation is one passage at a place that `split_seed` draws: a share `val_size` of the
        training text, or so many windows. The text around the passage is joined, for training.
        subset: the most windows of the training text (before the split) and of the test text, each
        in one passage. Characters are numbered by the training part; all others are `UNKNOWN`.
        """
        if preprocessing != "integers":
            raise UserError(
                f"preprocessing={preprocessing} scales numbers, and a text is characters: leave it "
                f"out, or set preprocessing=integers"
            )
        if targets != "labels":
            raise UserError(
                f"data.targets={targets}: the targets of a text are its next characters. Leave it "
                f"out"
            )
        generator = torch.Generator().manual_seed(split_seed)
        train, test = self._tokens(self.train), self._tokens(self.test)
        if subset is not None:
            train, test = (_passage(t, self._span(subset), generator)[0] for t in (train, test))
        val, train = _passage(train, self._val_span(val_size, len(train)), generator)
        classes = 256
        if self.unit == "characters":
            known = np.unique(train)
            numbers = np.full(CODE_POINTS, UNKNOWN)
            numbers[known] = 1 + np.arange(len(known))
            train, val, test = numbers[train], numbers[val], numbers[test]
            classes = 1 + len(known)
        for name, part in (("training", train), ("validation", val), ("test", test)):
            if len(part) <= self.context and (len(part) or name != "validation"):
                raise UserError(
                    f"the {name} part of the text has {len(part)} {self.unit}, and a window takes "
                    f"{self.context + 1} (dataset.context and one more, to predict): take a longer "
                    f"text, a smaller dataset.context, or other shares (data.val_size, "
                    f"dataset.test_size, data.subset)"
                )
        task = Characters(classes) if self.unit == "characters" else Bytes()
        train_x, train_y = _windows(train, self.context, 1)
        val_x, val_y = _windows(val, self.context, self.context)
        test_x, test_y = _windows(test, self.context, self.context)
        return Dataset(
            train_x=train_x,
            train_y=train_y,
            val_x=val_x,
            val_y=val_y,
            test_x=test_x,
            test_y=test_y,
            task=task,
            digest=self._digest(),
            stride=self.context,
        )

    def _tokens(self, text: str) -> np.ndarray:
        """Return the text as code points, or as bytes."""
        if self.unit == "bytes":
            return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
        return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)

    def _span(self, windows: int) -> int:
        """Return how many tokens such a number of windows takes, with the last target."""
        return windows * self.context + 1

    def _val_span(self, val_size: float | int, tokens: int) -> int:
        """Return how many tokens the validation passage has."""
        whole = isinstance(val_size, int) and not isinstance(val_size, bool)
        if not (whole and val_size >= 0) and not (
            isinstance(val_size, float) and 0 <= val_size < 1
        ):
            raise UserError(
                f"data.val_size={val_size!r} is neither a share nor a count; allowed: a share of "
                f"the text from 0 to below 1 (0.1), or a whole number of windows"
            )
        if not val_size:
            return 0
        span = self._span(int(val_size)) if whole else round(val_size * tokens)
        if span + self.context >= tokens and tokens > self.context:  # else there is no window
            raise UserError(
                f"data.val_size={val_size!r} leaves no window to train on: {span} of {tokens} "
                f"{self.unit} would be held out. Lower it, or raise data.subset if it is set"
            )
        return span

    def _digest(self) -> str:
        """Return 16 hex digits of the SHA-256 of both texts."""
        sha = hashlib.sha256()
        for name, text in (("train", self.train), ("test", self.test)):
            content = text.encode()
            sha.update(f"{name} {len(content)}\n".encode() + content)
        return sha.hexdigest()[:16]


def _passage(
    tokens: np.ndarray, length: int, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a passage of a length, at a random place, and the tokens around it."""
    length = min(length, len(tokens))
    start = int(torch.randint(len(tokens) - length + 1, (), generator=generator))
    around = np.concatenate([tokens[:start], tokens[start + length :]])
    return tokens[start : start + length], around


def _windows(tokens: np.ndarray, context: int, step: int) -> tuple[Tensor, Tensor]:
    """Return windows of a text, and windows of the next tokens.

    Both have the shape (n, context), and share memory.
    """
    text = torch.from_numpy(np.ascontiguousarray(tokens))
    if not len(text):
        return text.new_empty(0, context), text.new_empty(0, context)
    return text[:-1].unfold(0, context, step), text[1:].unfold(0, context, step)


def text(
    path: str | None,
    context: int = 64,
    unit: str = "characters",
    test_size: float = 0.1,
) -> Text:
    """Return the text of a UTF-8 file, or of a folder's files in order of their paths.

    test_size: the share at the end that is the test text.
    """
    share = isinstance(test_size, int | float) and not isinstance(test_size, bool)
    if not share or not 0 < test_size < 1:
        raise UserError(f"dataset.test_size must be a share above 0 and below 1, not {test_size!r}")
    content = read_texts(path)
    start = len(content) - max(1, round(test_size * len(content)))
    return _checked(Text(content[:start], content[start:], context, unit))


def austen(context: int = 64, unit: str = "characters") -> Text:
    """Return five novels by Jane Austen, and the sixth, Persuasion, for test."""
    *train, test = read_novels()
    return _checked(Text("\n\n\n".join(train), test, context, unit))


def _checked(made: Text) -> Text:
    check_choice("dataset.unit", made.unit, UNITS)
    context = made.context
    if not isinstance(context, int) or isinstance(context, bool) or context < 1:
        raise UserError(f"dataset.context must be a whole number of at least 1, not {context!r}")
    return made
