"""How an optimizer looks: colour, line style and marker, the same in every figure.

Based on the colour-blind-safe palette of Okabe and Ito (2008) without its yellow, which vanishes
on white, and on Tol's muted palette for the rest. Line styles and markers differ as well, so that
the lines can be told apart in a black-and-white print.
"""

import hashlib
from typing import Any, NamedTuple

from matplotlib.colors import to_rgb

SOLID, DASHED, DASHDOT, DOTTED = "-", (0, (5, 1.6)), (0, (5, 1.4, 1.2, 1.4)), (0, (1.2, 1.4))
LONG: tuple[int, tuple[float, ...]] = (0, (9, 2))
Dashes = str | tuple[int, tuple[float, ...]]
DASHES: tuple[Dashes, ...] = (SOLID, DASHED, DASHDOT, DOTTED, LONG)
MARKERS = "os^Dv<>pPh"


class Look(NamedTuple):
    color: str | tuple[float, float, float]
    dashes: Dashes = SOLID
    marker: str = "o"


LOOKS = {
    "sgd": Look("#000000", SOLID, "o"),
    "momentum": Look("#E69F00", DASHED, "s"),
    "nesterov": Look("#56B4E9", SOLID, "^"),
    "adagrad": Look("#009E73", DASHDOT, "D"),
    "rmsprop": Look("#CC79A7", DASHED, "v"),
    "adadelta": Look("#0072B2", DASHDOT, "P"),
    "adam": Look("#D55E00", SOLID, "p"),
    "adamw": Look("#882255", DASHED, "h"),
    "adamax": Look("#999933", DASHDOT, "<"),
    "nadam": Look("#AA4499", SOLID, ">"),
    "radam": Look("#661100", LONG, "s"),
    "asgd": Look("#777777", DASHED, "o"),
    "rprop": Look("#44AA99", DASHDOT, "^"),
    "adafactor": Look("#332288", LONG, "D"),
    "lbfgs": Look("#A6761D", DOTTED, "v"),
    "muon": Look("#117733", SOLID, "h"),
}
OTHERS = ("#6699CC", "#994455", "#997700", "#004488", "#CC6677", "#5D7A1F", "#7E5BB5", "#3E8E8E")

# for `rc_context`: sizes for a column of print, fonts that stay text in PDF, stable SVG ids
RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "pdf.fonttype": 42,
    "svg.hashsalt": "optbench",
    "savefig.dpi": 200,
}


def look(name: str) -> Look:
    """The look of an optimizer; for an unknown name from its hash, whatever else is drawn."""
    name = name.lower()
    if name in LOOKS:
        return LOOKS[name]
    if name == "amsgrad":
        return LOOKS["adam"]._replace(dashes=DOTTED, marker="X")
    if name.startswith("textbook_"):
        sibling = look(name.removeprefix("textbook_"))
        other = DASHES[(DASHES.index(sibling.dashes) + 1) % len(DASHES)]
        return sibling._replace(dashes=other, marker="x")
    digest = hashlib.sha256(name.encode()).digest()
    return Look(
        OTHERS[digest[0] % len(OTHERS)],
        DASHES[digest[1] % len(DASHES)],
        MARKERS[digest[2] % len(MARKERS)],
    )


def shade(base: Look, index: int, count: int) -> Look:
    """The look of setting `index` of `count` of one optimizer: its colour, dark to light."""
    if count < 2:
        return base
    weight = 0.55 * index / (count - 1)
    red, green, blue = (channel + (1 - channel) * weight for channel in to_rgb(base.color))
    start = DASHES.index(base.dashes) + index
    marker = MARKERS[index % len(MARKERS)] if index else base.marker
    return Look((red, green, blue), DASHES[start % len(DASHES)], marker)


def choice(index: int, count: int) -> Look:
    """The look of setting `index` where the lines are settings without an order (names)."""
    looks = list(LOOKS.values())
    return looks[index % len(looks)]


def ramp(index: int, count: int) -> Look:
    """The look of setting `index` of `count` where lines are settings: viridis without its
    yellow end."""
    from matplotlib import colormaps

    red, green, blue, _ = colormaps["viridis"](0.82 * index / max(count - 1, 1))
    return Look((red, green, blue), DASHES[index % 4], MARKERS[index % len(MARKERS)])
