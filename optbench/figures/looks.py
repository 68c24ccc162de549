"""The styles of series, the same in all figures of a comparison and on its page.

The colour is the optimizer's. Shade, marker and dashes tell its settings apart: shade and marker by
the setting with the most values, dashes by the others. There is one exception: lines by a setting
of the problem that is no number (`--lines initializer`) have colours that none of the figure's
optimizers has.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from optbench.analysis.columns import is_variant
from optbench.analysis.series import Layout
from optbench.common.text import sort_key
from optbench.figures import style
from optbench.figures.style import DASHES, LOOKS, MARKERS, OTHERS, LineStyle

# Lightness of an optimizer's first and last setting; 1 is white. A grey of 0.58 has a contrast of 3
# to white, which WCAG 2.2 (1.4.11) asks of graphics; a lighter thin line is hard to see.
DARKEST, LIGHTEST = 0.2, 0.58
Setting = Mapping[str, Any]  # the values of an optimizer's settings, as `sort_key` gives them


def series_of(runs: pd.DataFrame, plan: Layout) -> list[tuple[str, list[str], LineStyle]]:
    """Return (label, runs, style) of a panel's series, ordered by `Layout.series_of`."""
    looks = looks_of_runs(plan)
    return [
        (text, sorted(own["run"]), looks[own["run"].iloc[0]])
        for _, text, own in plan.series_of(runs)
    ]


def looks_of_runs(plan: Layout) -> dict[str, LineStyle]:
    """Return the style of each run's series.

    Values are ranked over all panels, so that a setting looks the same in each panel.
    """
    runs = plan.runs
    base = style.looks(map(str, runs["optimizer"].unique()))
    # Keys of this figure's panels may be keys of another's series: styles must be the same.
    by_problem = not any(is_variant(key) for keys in runs["keys"] for key in keys)
    shared = [] if by_problem else [key for key in plan.facet if is_variant(key)]
    settings: list[Setting] = []
    for keys, values, *more in runs[["keys", "setting", *shared]].itertuples(index=False):
        own = zip((*keys, *shared), (*values, *more), strict=True)
        settings.append({key: sort_key(value) for key, value in own})
    known = {key for own in settings for key in own}
    ranks = {key: sorted({own[key] for own in settings if key in own}) for key in known}
    lines_of = list(base) if plan.sequential else []
    return {
        str(run): look_of(base[str(name)], own, ranks, lines_of, shared)
        for run, name, own in zip(runs["run"], runs["optimizer"], settings, strict=True)
    }


def look_of(
    base: LineStyle,
    own: Setting,
    ranks: Mapping[str, Sequence[Any]],
    lines_of: Sequence[str] = (),
    shared: Sequence[str] = (),
) -> LineStyle:
    """Return the style of one setting. ranks: all values of each key, in order.

    lines_of: the optimizers, if the lines of a panel are settings of one of them. shared: the keys
    of which a panel has one value.
    """
    if not own:
        return base

    def preference(key: str) -> tuple[bool, bool, int, bool, str]:
        return key in shared, is_variant(key), -len(ranks[key]), key != "optimizer.lr", key

    first, *others = sorted(own, key=preference)
    index, count = ranks[first].index(own[first]), len(ranks[first])
    dash = 0
    for key in others:
        dash = dash * len(ranks[key]) + ranks[key].index(own[key])
    if lines_of:  # no other optimizer in the panel: dashes and marker are the setting's alone
        base = LineStyle(base.color)
        if not is_variant(first) and all(kind != 0 for kind, *_ in ranks[first]):
            return categorical_style(index, lines_of, dash if others else None)
    return shade(base, index, count, dash if others else index)


def shade(base: LineStyle, index: int, count: int, dash: int | None = None) -> LineStyle:
    """Return the style of setting `index` of `count`, from dark to light.

    All have the optimizer's hue. dash: how many dashes after the optimizer's own, by default
    `index`.
    """
    start = DASHES.index(base.dashes) + (index if dash is None else dash)
    found = base._replace(dashes=DASHES[start % len(DASHES)])
    if count < 2:
        return found
    own = lightness(base.color)
    low, high = min(own, DARKEST), max(own, LIGHTEST)
    want = low + (high - low) * index / (count - 1)
    white = max(0.0, (want - own) / (1 - own))
    black = min(1.0, want / own) if own else 1.0
    red, green, blue = (black * part + white * (1 - part) for part in to_rgb(base.color))
    marker = (MARKERS.find(base.marker) + index) % len(MARKERS)
    return found._replace(
        color=(red, green, blue), marker=MARKERS[marker] if index else base.marker
    )


def lightness(color: str | tuple[float, float, float]) -> float:
    """Return the perceived lightness of a colour, 0 (black) to 1 (white)."""
    red, green, blue = to_rgb(color)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def categorical_style(index: int, optimizers: Iterable[str], dash: int | None = None) -> LineStyle:
    """Return the style of value `index` of a setting, in a colour of no optimizer.

    optimizers: those whose colours are taken. dash: the index of the dashes, by default another one
    for each value."""
    taken = {look.color for look in style.looks(optimizers).values()}
    colors = [*(look.color for look in LOOKS.values()), *OTHERS]
    free = [color for color in colors if color not in taken]
    dash = index + index // len(free) if dash is None else dash
    dashes = DASHES[dash % len(DASHES)]
    return LineStyle(free[index % len(free)], dashes, MARKERS[index % len(MARKERS)])


def handle_of(line: Line2D, looks: Sequence[LineStyle]) -> Line2D:
    """Return the legend's handle for a line that several panels draw.

    looks: the line's style in each panel. If the styles differ in colour the handle is grey. It
    leaves out dashes or markers in which they differ.
    """
    color, dashes, marker = ({look[part] for look in looks} for part in range(3))
    if len({*looks}) == 1:
        return line
    grey = lightness(looks[0].color)
    return Line2D(
        [], [], linewidth=line.get_linewidth(),
        color=looks[0].color if len(color) == 1 else (grey, grey, grey),
        marker=looks[0].marker if len(marker) == 1 else "",
        linestyle=looks[0].dashes if len(dashes) == 1 else "-",  # type: ignore[arg-type]
    )  # fmt: skip
