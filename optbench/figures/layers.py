"""Figures of `layers.csv`: pure functions from its tidy table to a figure.
By depth, they show whether activations and gradients keep their size. Over the training, they show
whether the effective step fades. The gradient of outputs is drawn against the error, by formula and
as measured.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optbench.analysis.claims.values import column_values
from optbench.analysis.columns import resolve, short_name
from optbench.analysis.final_values import seeds_text
from optbench.common.errors import UserError
from optbench.common.text import show, sort_key
from optbench.figures import style
from optbench.figures.axes import end_at_data, set_log_y, set_title
from optbench.figures.depth import WEIGHTED, band
from optbench.figures.looks import look_of
from optbench.figures.panels import add_legend, caption

NARROW = 5.0  # inches
NAMES = {
    "activation_std": "activations: standard deviation",
    "output_grad_std": "gradients to them: standard deviation",
    "update_norm / grad_norm": "effective step: update / gradient",
    "weight_rank": "rank of the weights",
    "saturated_fraction": "outputs in the flat ends: share",
    "grad_variance": "variance of the gradient",
    "update_norm": "length of the step",
}


def by_depth(
    layers: pd.DataFrame, values: Sequence[str], kind: str, lines: str = "initializer"
) -> Figure:
    """Draw columns at the first step against the depth of modules, a panel each.

    kind: of the modules. lines: the config key that makes the lines. A line is the median over the
    seeds, a band minimum to maximum. The y axes are those of `axes.set_log_y`.
    """
    rows = layers[(layers["kind"] == kind) & (layers["step"] == 1)]
    if rows.empty:
        raise UserError(f"layers.csv has no first step of a layer of kind {kind!r}")
    with style.rc():
        figure = style.blank(1.2 + 3.1 * len(values), 3.0)
        notes = []
        for number, value in enumerate(values):
            axes = figure.add_subplot(1, len(values), number + 1)
            note = set_log_y([axes], draw(axes, rows, value, "depth", lines))
            notes.append(note.replace("axis", f"axis of {NAMES.get(value, value)}", 1))
            set_title(figure, axes, [NAMES.get(value, value)], 0.35)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.set_xlabel(f"depth ({kind} layer)")
        describe_lines(figure, rows, lines, "at the first step", "".join(notes))
    return figure


def over_time(
    layers: pd.DataFrame, value: str, lines: str = "optimizer", depth: int | None = None
) -> Figure:
    """Draw a column, or the quotient of two, against epochs; lines as in `by_depth`.
    The values are those of the whole model, or of the weight layer at `depth`."""
    rows = layers[layers["layer"] == "all"]
    if depth is not None:
        rows = layers[(layers["depth"] == depth) & (layers["kind"].isin(WEIGHTED))]
    if rows.empty:
        raise UserError(f"layers.csv has no weight layer at depth {depth}")
    with style.rc():
        figure = style.blank(5.2, 3.2)
        axes = figure.add_subplot()
        note = set_log_y([axes], draw(axes, rows, value, "epoch", lines))
        end_at_data(axes)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=(1, 2, 5, 10)))
        axes.set_xlabel("passes over the training set (epochs)")
        axes.set_ylabel(NAMES.get(value, value))
        where = "whole model" if depth is None else f"weight layer {depth}"
        describe_lines(figure, rows, lines, where, note)
    return figure


OUTPUT_LOOKS = {  # losses of sigmoid outputs by configured name: words, color and dashes
    "mse_sigmoid": ("squared error", style.style_of("momentum")),
    "bce": ("cross-entropy", style.style_of("adadelta")),
}


def gradient_by_error(layers: pd.DataFrame, epochs: pd.DataFrame) -> Figure:
    """Draw the gradient of sigmoid outputs against their error, for two losses.
    The left panel shows one output by the formulas, the right panel the runs' measurements."""
    with style.rc():
        figure = style.blank(7.4, 3.2)
        narrow = figure.get_figwidth() < NARROW
        if narrow:  # one panel below the other
            figure.set_figheight(2 * figure.get_figheight())
        formula, measured = figure.subplots(*((2, 1) if narrow else (1, 2)))
        draw_formula(formula)
        points = measured_gradients(layers, epochs)
        for loss, (name, look) in OUTPUT_LOOKS.items():
            part = points[points["loss"] == loss]
            measured.plot(
                part["error"], part["gradient"], linestyle="none", marker=look.marker, ms=3.5,
                color=look.color, alpha=0.5, label=name,
            )  # fmt: skip
        if note := set_log_y([measured], points["gradient"]).removeprefix("; "):
            caption(figure, note)
        set_title(figure, measured, ["measured, each run at each logged step"], 0.35)
        measured.set_xlabel("error: share of training examples wrong")
        measured.set_ylabel("gradient to the outputs: std")
        measured.legend(loc="lower left")
    return figure


def measured_gradients(layers: pd.DataFrame, epochs: pd.DataFrame) -> pd.DataFrame:
    """Return loss, error and gradient of each run at each logged step.

    The error is 1 - accuracy on the training set, the gradient `output_grad_std` of the last linear
    layer. An epoch's first step goes with the evaluation before, its last step with the one after,
    so that error and gradient belong to nearly the same weights.
    """
    rows = layers[layers["kind"] == "linear"]
    rows = rows[rows["depth"] == rows.groupby("run", observed=True)["depth"].transform("max")]
    rows = rows.assign(epoch=np.floor(rows["epoch"].astype(float)), run=rows["run"].astype(str))
    other = epochs[["run", "epoch", "train_accuracy"]].assign(
        epoch=epochs["epoch"].astype(float), run=epochs["run"].astype(str)
    )
    both = rows.merge(other, on=["run", "epoch"])
    if both.empty:
        raise UserError("no step of layers.csv has an evaluation of its epoch in epochs.csv")
    return pd.DataFrame(
        {
            "loss": both[resolve(both, "loss")].astype(str),
            "error": 1 - both["train_accuracy"].astype(float),
            "gradient": both["output_grad_std"].astype(float),
        }
    )


def draw_formula(axes: Axes) -> None:
    """Draw |dL/dz| of one sigmoid output against its error e = |sigmoid(z) - y|.
    It is 2 e^2 (1 - e) for squared error (2 e times sigmoid's derivative), e for cross-entropy."""
    error = np.linspace(0.001, 0.999, 400)
    sizes = {"mse_sigmoid": 2 * error**2 * (1 - error), "bce": error}
    for key, size in sizes.items():
        name, look = OUTPUT_LOOKS[key]
        axes.plot(error, size, color=look.color, linestyle=look.dashes, label=name)
    axes.set_title("one output, from the formulas", loc="left")
    axes.set_xlabel("error of the output |sigmoid(z) - y|")
    axes.set_ylabel("size of its gradient |dL/dz|")
    axes.legend(loc="upper left")


def draw(axes: Axes, rows: pd.DataFrame, value: str, x: str, lines: str) -> "pd.Series[float]":
    """Draw a line with a band for each value of the key `lines`; return all values."""
    key = resolve(rows, lines)
    at, values = rows[x].astype(float), column_values(rows, value)
    names = sorted(rows[key].unique(), key=sort_key)
    owners = list(map(str, rows["optimizer"].unique()))
    looks = style.looks(owners)
    ranks = {key: [sort_key(name) for name in names]}
    for name in names:
        look = looks.get(str(name)) if key == "optimizer" else None
        look = look or look_of(looks[owners[0]], {key: sort_key(name)}, ranks, owners)
        band(axes, at[rows[key] == name], values[rows[key] == name], look, show(name))
    return values


def describe_lines(figure: Figure, rows: pd.DataFrame, lines: str, where: str, note: str) -> None:
    """Describe lines and bands in the caption. note: on the scales, by `set_log_y`."""
    key, drawn = resolve(rows, lines), figure.axes[0].lines
    title = None if key == "optimizer" else short_name(key)
    add_legend(figure, drawn, [str(line.get_label()) for line in drawn], title)
    seeds = rows["seed"].nunique()
    text = f"{where}; median of {seeds_text([seeds])}, band: min to max"
    caption(figure, (text if seeds > 1 else f"{where}; one seed") + note)


FIGURES: dict[str, Callable[..., Figure]] = {  # the functions that a claim may name
    "by_depth": by_depth,
    "over_time": over_time,
    "gradient_by_error": gradient_by_error,
}
