"""The style of figures: style file, size, and the style of each optimizer.

An optimizer looks the same in every figure of a study. Colours are the colour-blind-safe palette of
Okabe and Ito (2008) without yellow, which vanishes on white, and Tol's muted palette for the rest.
Line styles and markers differ too, so that lines differ in a black-and-white print.
"""

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context, rc_params_from_file
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from optbench.common.errors import UserError

SOLID, DASHED, DASHDOT, DOTTED = "-", (0, (5, 1.6)), (0, (5, 1.4, 1.2, 1.4)), (0, (1.2, 1.4))
LONG: tuple[int, tuple[float, ...]] = (0, (9, 2))
Dashes = str | tuple[int, tuple[float, ...]]
DASHES: tuple[Dashes, ...] = (SOLID, DASHED, DASHDOT, DOTTED, LONG)
MARKERS = "os^Dv<>pPh"


class LineStyle(NamedTuple):
    color: str | tuple[float, float, float]
    dashes: Dashes = SOLID
    marker: str = "o"


LOOKS = {
    "sgd": LineStyle("#000000", SOLID, "o"),
    "momentum": LineStyle("#E69F00", DASHED, "s"),
    "nesterov": LineStyle("#56B4E9", SOLID, "^"),
    "adagrad": LineStyle("#009E73", DASHDOT, "D"),
    "rmsprop": LineStyle("#CC79A7", DASHED, "v"),
    "adadelta": LineStyle("#0072B2", DASHDOT, "P"),
    "adam": LineStyle("#D55E00", SOLID, "p"),
    "adamw": LineStyle("#882255", DASHDOT, "h"),
    "adamax": LineStyle("#999933", DASHDOT, "<"),
    "nadam": LineStyle("#AA4499", SOLID, ">"),
    "radam": LineStyle("#661100", LONG, "s"),
    "asgd": LineStyle("#777777", DASHED, "o"),
    "rprop": LineStyle("#44AA99", DASHED, "^"),
    "adafactor": LineStyle("#332288", LONG, "D"),
    "lbfgs": LineStyle("#A6761D", DOTTED, "v"),
    "muon": LineStyle("#117733", SOLID, "h"),
    "textbook_adam_no_bias_correction": LineStyle("#4477AA", DASHDOT, "d"),  # beside Adam
}
SIBLINGS = {  # the colour of the named optimizer, with another line
    "amsgrad": ("adam", DOTTED, "X"),
    "rmsprop_centered": ("rmsprop", DOTTED, "X"),
    "textbook_gradient_descent": ("sgd", LONG, "d"),
}
FIELD = (  # optimizers of other packages; the place in this list gives the style
    "lion", "soap", "shampoo", "sophia", "prodigy", "adan", "ademamix", "adopt", "lamb", "mars",
    "schedulefree_adamw", "schedulefree_sgd", "sam", "adahessian", "textbook_weight_perturbation",
)  # fmt: skip
OTHERS = ("#6699CC", "#994455", "#997700", "#004488", "#CC6677", "#5D7A1F", "#7E5BB5", "#3E8E8E")

STYLE_FILE = Path(__file__).parent.parent / "paper.mplstyle"
STYLES = {"paper": (1.0, 1.0), "notebook": (1.25, 1.2), "talk": (1.8, 1.4)}  # text, size
WIDTHS = {1: 3.25, 2: 6.75}  # inches: a column of a two-column page, and the full page


RC: dict[Any, Any] = dict(rc_params_from_file(STYLE_FILE, use_default_template=False))


class PageSpec(NamedTuple):
    """The medium that figures are drawn for."""

    style: str = "paper"
    columns: int | None = None  # of a printed page; None: the width that the figure needs
    names: tuple[str, ...] = ()  # all optimizers of the study


SHEET: ContextVar[PageSpec] = ContextVar("sheet", default=PageSpec())  # noqa: B039


@contextmanager
def use(
    style: str = "paper", columns: int | None = None, names: Iterable[str] = ()
) -> Iterator[None]:
    """Draw the figures made inside for a `paper`, a `notebook` or a `talk`.

    columns: 1 or 2, the width on a page with two columns; small print then goes to the caption.
    names: all optimizers of a study, so that no two of them share a style in any figure.
    Raises UserError for unknown styles and columns.
    """
    if style not in STYLES:
        raise UserError(f"unknown style {style!r}; allowed: {', '.join(STYLES)}")
    if columns is not None and columns not in WIDTHS:
        raise UserError(f"columns must be 1 or 2, not {columns!r}")
    token = SHEET.set(PageSpec(style, columns, tuple(sorted(set(names)))))
    try:
        yield
    finally:
        SHEET.reset(token)


class ShownFigure(Figure):
    """A figure that a notebook displays without pyplot."""

    def _repr_png_(self) -> bytes:
        self.savefig(drawn := io.BytesIO(), format="png")
        return drawn.getvalue()


def rc() -> Any:
    """Return a context with the style file, scaled for the current medium."""
    text = STYLES[SHEET.get().style][0]
    lengths = ("size", "width")
    scaled = {key: value * text if key.endswith(lengths) else value for key, value in RC.items()}
    return rc_context(scaled)


def blank(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, or of a column's width."""
    sheet = SHEET.get()
    factor = STYLES[sheet.style][1]
    if sheet.columns is None:
        size = (width * factor, height * factor)
    else:
        share = WIDTHS[sheet.columns] / width
        size = (WIDTHS[sheet.columns], height * min(max(share, 0.85), 1.1) * factor)
    return ShownFigure(figsize=size, layout="constrained")


def points(size: float) -> float:
    """Scale a size of text, or a length beside text, for the current medium."""
    return size * STYLES[SHEET.get().style][0]


def scaled(inches: float) -> float:
    """Scale a length in a picture for the current medium."""
    return inches * STYLES[SHEET.get().style][1]


def columns() -> int | None:
    """Return the page columns that figures are drawn for, or None without a page."""
    return SHEET.get().columns


def across(most: int, names: float = 0.0) -> int:
    """Return how many of `most` panels fit in a row. names: inches of names in each."""
    sheet = SHEET.get()
    if sheet.columns is None:
        return most
    return max(1, min(most, int(WIDTHS[sheet.columns] / (points(1.35) + names))))


def style_of(name: str) -> LineStyle:
    """Return the style of an optimizer, which no other of the study has.
    Unknown names get a style from their hash."""
    return looks((name, *SHEET.get().names))[name]


def looks(names: Iterable[str]) -> dict[str, LineStyle]:
    """Return a style for each name, distinct in colour and line as far as possible."""
    every = sorted({*names, *SHEET.get().names}, key=lambda name: (fixed(name) is None, name))
    found: dict[str, LineStyle] = {}
    for name in every:
        own = fixed(name)
        lines = {look[:2] for look in found.values()}
        free = set(OTHERS) - {look.color for look in found.values()}
        many = len(OTHERS) * len(DASHES) * len(MARKERS)
        for attempt in range(2 * many):
            chosen = own or hashed(f"{name.lower()}{attempt or ''}")
            new = chosen.color in free if free else chosen[:2] not in lines
            if own or new or (attempt > many and chosen not in found.values()):
                break
        found[name] = chosen
    return found


def fixed(name: str) -> LineStyle | None:
    """Return the fixed style of a known optimizer, or None for other names."""
    name = name.lower()
    if name in LOOKS:
        return LOOKS[name]
    if name in FIELD:
        line, color = divmod(FIELD.index(name), len(OTHERS))
        return LineStyle(OTHERS[color], DASHES[1 + line], MARKERS[line])
    if name in SIBLINGS:
        sibling, dashes, marker = SIBLINGS[name]
        return LOOKS[sibling]._replace(dashes=dashes, marker=marker)
    if name.startswith("textbook_") and (sibling_look := fixed(name.removeprefix("textbook_"))):
        other = DASHES[(DASHES.index(sibling_look.dashes) + 1) % len(DASHES)]
        return sibling_look._replace(dashes=other, marker="x")
    return None


def hashed(text: str) -> LineStyle:
    """Return a style from the hash of a text."""
    digest = hashlib.sha256(text.encode()).digest()
    return LineStyle(
        OTHERS[digest[0] % len(OTHERS)],
        DASHES[digest[1] % len(DASHES)],
        MARKERS[digest[2] % len(MARKERS)],
    )


def mark(artists: Iterable[Artist], name: str, where: str = "0") -> None:
    """Give an optimizer's artists SVG ids, by which the report's page finds them.
    An id is `group_of(name)`, a dot, and a unique end. where: the artists' place in the figure."""
    for index, artist in enumerate(artists):
        artist.set_gid(f"{group_of(name)}.{where}-{index}")


def group_of(name: str) -> str:
    """Return a name as a word that XML allows in an id."""
    return "optimizer-" + re.sub(r"[^a-zA-Z0-9_-]", lambda found: f"_{ord(found[0]):x}_", name)
