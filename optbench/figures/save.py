"""Save figures as files without dates, each with a caption in words."""

import os
import re
import warnings
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from optbench.common.errors import UserError
from optbench.common.files import replace_bytes, replace_text
from optbench.common.text import capital
from optbench.figures import style

LAYOUT_ATTEMPTS = 6  # each with a higher figure than the last
FORMATS = ("png", "pdf", "svg")
# Dates off, so that the same CSV files give the same bytes.
UNDATED: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save(
    figure: Figure,
    folder: Path,
    stem: str,
    formats: Sequence[str] = ("png", "pdf"),
    title: str = "",
    caveats: Sequence[str] = (),
) -> list[Path]:
    """Write the figure in each format, and the caption to STEM.txt; return the paths.

    The paths have that order. Raises UserError if a file cannot be written.
    """
    stem = re.sub(r"[^\w.-]", "_", stem)  # a column may have any name, a file may not
    paths = [folder / f"{stem}.{suffix}" for suffix in formats]
    caption = folder / f"{stem}.txt"
    path = caption
    try:
        with style.rc():
            lay_out(figure)
            for path in paths:
                drawn, suffix = BytesIO(), path.suffix[1:]
                figure.savefig(drawn, format=suffix, metadata=UNDATED.get(suffix))
                replace_bytes(path, drawn.getvalue())
        path = caption
        replace_text(caption, caption_text(figure, title, caveats))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another folder") from None
    return [*paths, caption]


def lay_out(figure: Figure) -> None:
    """Lay the figure out once for all formats, with more height if texts need room."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        for _ in range(LAYOUT_ATTEMPTS):
            try:
                figure.draw_without_rendering()
                thin_ticks(figure)
                break
            except UserWarning:
                figure.set_figheight(1.3 * figure.get_figheight())
    figure.set_layout_engine("none")


def thin_ticks(figure: Figure) -> None:
    """Take ticks away from each linear x axis until their labels stand apart."""
    for axes in figure.axes:
        locator = axes.xaxis.get_major_locator()
        if not isinstance(locator, MaxNLocator):
            continue
        for intervals in range(len(axes.get_xticks()) - 2, 0, -1):
            boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
            if all(b.x0 - a.x1 > a.height / 2 for a, b in pairwise(boxes)):
                break
            locator.set_params(nbins=intervals)


def caption_text(figure: Figure, title: str = "", caveats: Sequence[str] = ()) -> str:
    """Return what the figure shows in words: title, axes, panels, series, n and notes.
    Every caveat is included."""
    panels = [axes for axes in figure.axes if axes.axison]
    named = [tuple(map(whole_label, (axes.yaxis.label, axes.xaxis.label))) for axes in panels]
    both = [pair for pair in named if all(pair)]
    # Panels that share an axis name its label once.
    labels = dict.fromkeys(" against ".join(filter(None, pair)) for pair in both or named)
    labels.pop("", None)
    titles = [
        flat(str(axes.get_label()) or text) for axes in panels if (text := axes.get_title("left"))
    ]
    legends = [legend for axes in panels if (legend := axes.get_legend()) is not None]
    series = dict.fromkeys(
        flat(text.get_text())
        for legend in [*legends, *figure.legends]
        for text in legend.get_texts()
    )
    lines = [
        title,
        capital("; ".join(labels)),
        f"{'Panels' if len(titles) > 1 else 'Panel'}: {'; '.join(titles)}" if titles else "",
        f"Shown: {', '.join(series)}" if series else "",
        capital(str(figure.get_label())),
        *(f"Warning: {text}" for text in caveats),
    ]
    return "".join(f"{sentence(line)}\n" for line in lines if line)


def whole_label(label: Text) -> str:
    """Return an axis label as it was before it was broken into lines."""
    return flat(str(label.get_label()) or label.get_text())


def flat(text: str) -> str:
    """Return the text on one line."""
    return " ".join(text.split())


def sentence(text: str) -> str:
    """Return the text with a full stop."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


def writable(out: Path) -> Path:
    """Return the folder, created if missing. Raise UserError unless it is writable."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another folder") from None
    if not os.access(out, os.W_OK):
        raise UserError(f"cannot write to {out}: permission denied; choose another folder")
    return out
