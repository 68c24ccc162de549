"""The kinds of figures, and which of them a sweep draws by default.

A kind is drawn from a `Comparison`. Its function also takes a tidy table, returns a matplotlib
figure, and can be called alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from optbench.analysis.comparison import Comparison
from optbench.analysis.leader import at_best_settings
from optbench.analysis.over_problems import has_profile, profile_of
from optbench.analysis.time_to_target import asked_times
from optbench.common.errors import UserError
from optbench.common.metrics import main_metric, metric_of
from optbench.common.names import did_you_mean
from optbench.figures.axes import NothingFinite
from optbench.figures.cost import cost
from optbench.figures.curves import curves
from optbench.figures.depth import layers_by_depth
from optbench.figures.finals import finals
from optbench.figures.over_problems import profile_figure, ranks_figure
from optbench.figures.panels import TooManyPanels, add_note
from optbench.figures.sensitivity import sensitivity
from optbench.figures.time_to_target import shown_rows, time_to_target_figure
from optbench.figures.trials import rate_scatter, tuning_budget
from optbench.figures.tuned.rate_decay import rate_decay

MAX_ROWS = 40  # of a default figure of times to target
ALL = "all"


class FigureKind(NamedTuple):
    """One kind of figure."""

    function: Callable[..., Figure]  # for callers such as notebooks
    title: str  # of the figure, in the caption
    stem: Callable[[Comparison], str]  # the name of the files
    draw: Callable[[Comparison], Figure]  # raises UserError if the kind does not apply
    by_default: Callable[[Comparison], bool]  # whether a sweep draws the kind unasked
    compares: bool = True  # whether caveats belong below the figure


def draw_curves(made: Comparison) -> Figure:
    asked = made.options
    return draw_or_best(
        made,
        lambda m: curves(m, m.y, m.x, asked.facet, asked.lines, asked.log, asked.rows),
    )


def draw_or_best(made: Comparison, draw: Callable[[Comparison], Figure]) -> Figure:
    """Draw all settings, or each optimizer's best one if all need too many panels."""
    try:
        return draw(made)
    except TooManyPanels:
        if made.options.facet or made.options.lines:
            raise
        best = at_best_settings(made)
        if best.table["run"].nunique() == made.table["run"].nunique():
            raise
    figure = draw(best)
    column = made.final.replace("_", " ")
    add_note(figure, f"each optimizer at its best setting by final {column}; all: summary.md")
    return figure


def tested(made: Comparison) -> str:
    """Return the column of the task's first metric on the test set, or the test loss."""
    return main_metric(made.table, "test")


def tested_once(made: Comparison) -> bool:
    """Return whether the test set was measured once, at the end, as in a tuned study."""
    values = made.table[np.isfinite(made.table[tested(made)])]
    return len(values) > 0 and not values["run"].duplicated().any()


def test_x(made: Comparison) -> str:
    """Return the clock of test results: epochs, unless all runs have equal seconds."""
    return "seconds" if made.x == "seconds" else "epoch"


def draw_test(made: Comparison) -> Figure:
    if tested_once(made):
        raise UserError("the test set was measured once, at the end: --kind finals shows that")
    asked = made.options
    return draw_or_best(made, lambda m: curves(m, tested(m), test_x(m), asked.facet, asked.lines))


def draw_grid(made: Comparison) -> Figure:
    keys = list(made.plan.facet)
    if len(keys) != 2:
        found = f"these runs differ in {', '.join(keys)}" if keys else "these are of one problem"
        raise UserError(f"a grid has two keys, and {found}: name them with --facet KEY KEY")
    return curves(made, made.y, made.x, keys, made.options.lines, made.options.log)


def draw_rates(made: Comparison) -> Figure:
    # Trials never see the test set, and are judged by the validation split.
    if made.tuned:
        return rate_scatter(made.of_trials, *made.protocol, facet=made.options.facet)
    return sensitivity(made, made.final, facet=made.options.facet, lines=made.options.lines)


def draw_budget(made: Comparison) -> Figure:
    if not made.tuned:
        raise UserError("a tuning budget is of a tuned study's trials (hydra/sweeper=tuned)")
    return tuning_budget(made.of_trials, *made.protocol, facet=made.options.facet)


def has_map(made: Comparison) -> bool:
    """Return whether a tuned study searched learning rate and weight decay together."""
    return made.tuned and any("weight_decay" in key for key in made.searched_in_trials)


def draw_rate_decay(made: Comparison) -> Figure:
    if not made.tuned:
        raise UserError("a map of rate and decay is of a tuned study's trials")
    return rate_decay(made.of_trials, *made.protocol)


def draw_times(made: Comparison) -> Figure:
    if (found := asked_times(made)) is None:
        raise UserError("times to target need two optimizers or settings of one problem")
    return time_to_target_figure(found)


def times_fit(made: Comparison) -> bool:
    """Return whether times to target exist, after a step, and as many as a figure shows."""
    found = asked_times(made)
    if found is None or (found.frame["steps"] == 0).all():
        return False
    return 2 <= len(shown_rows(found)) <= MAX_ROWS


def draw_profile(made: Comparison) -> Figure:
    profile = profile_of(made)
    found = asked_times(made)
    assert found is not None
    note = f"target: {found.rule} ({metric_of(found.column).label})"
    return profile_figure(profile, note=note)


def draw_layers(made: Comparison) -> Figure:
    if not made.has_layers:
        raise UserError("no run has a layers.csv: diagnostics=layers writes it")
    return layers_by_depth(made, made.options.lines)


KINDS: dict[str, FigureKind] = {
    "curves": FigureKind(
        curves, "Loss curves",
        lambda m: f"{m.y}-{m.x}" + ("-steps" if m.options.rows == "steps" else ""),
        draw_curves, lambda m: True,
    ),
    "test": FigureKind(
        curves, "Test results over the training",
        lambda m: f"{tested(m)}-{test_x(m)}", draw_test,
        lambda m: tested(m) != "test_loss" and not tested_once(m),
    ),
    "grid": FigureKind(
        curves, "Small multiples: loss curves by two settings",
        lambda m: f"grid_{m.y}-{m.x}", draw_grid, lambda m: False,
    ),
    "learning_rate": FigureKind(
        sensitivity, "Sensitivity to the learning rate",
        lambda m: f"final_{m.protocol.metric if m.tuned else m.final}-lr", draw_rates,
        lambda m: "optimizer.lr" not in (m.options.facet or ()) and (m.tuned or m.has_rates),
    ),
    "finals": FigureKind(
        finals, "Final values of all runs",
        lambda m: f"final_{m.judged}",
        lambda m: finals(m, m.judged, m.options.facet, m.options.lines), tested_once,
    ),
    "ranks": FigureKind(
        ranks_figure, "Mean ranks and critical difference",
        lambda m: "critical_difference", lambda m: ranks_figure(m, m.judged, m.options.facet),
        # of one problem its ranks are over seeds, and the verdict's tests are sharper
        lambda m: not m.options.lines and m.plan.runs["problem"].nunique() > 1,
    ),
    "profile": FigureKind(
        profile_figure, "Performance profile",
        lambda m: "performance_profile", draw_profile, has_profile,
    ),
    "time_to_target": FigureKind(
        time_to_target_figure, "Time to target",
        lambda m: "time_to_target", draw_times, times_fit,
    ),
    "budget": FigureKind(
        tuning_budget, "What n trials of tuning bring",
        lambda m: "tuning_budget", draw_budget, lambda m: m.tuned,
    ),
    "rate_decay": FigureKind(
        rate_decay, "Learning rate by weight decay",
        lambda m: "rate_decay", draw_rate_decay, has_map,
    ),
    "layers": FigureKind(
        layers_by_depth, "Layers by depth",
        lambda m: "layers", draw_layers, lambda m: m.has_layers, compares=False,
    ),
    "cost": FigureKind(
        cost, "What an optimizer's step costs",
        lambda m: "cost", lambda m: cost(m, m.options.facet), lambda m: False, compares=False,
    ),
}  # fmt: skip


def chosen(names: Sequence[str]) -> list[str]:
    """Return the named kinds; `all` is every kind. Raise UserError for unknown names."""
    for name in names:
        if name not in (*KINDS, ALL):
            raise UserError(
                f"no kind of figure {name!r}{did_you_mean(name, [*KINDS, ALL])}\n"
                f"Allowed: {', '.join(KINDS)}, {ALL}. Paths over a function of two variables: "
                "python -m optbench trajectories"
            )
    return list(KINDS) if ALL in names else list(dict.fromkeys(names))


def draw(
    made: Comparison, names: Sequence[str], problems: list[str]
) -> tuple[dict[str, Figure], list[str]]:
    """Return the figures by kind, and the requested kinds that do not apply.
    names: the kinds to draw, by default a sweep's. Defaults that are too large are added to
    `problems`. Raises UserError if none of the named kinds applies."""
    every = ALL in names
    named = bool(names) and not every
    wanted = chosen(names or [name for name, kind in KINDS.items() if kind.by_default(made)])
    drawn: dict[str, Figure] = {}
    skipped = []
    stems: set[str] = set()
    large: dict[str, list[str]] = {}  # the stems of figures that are too large, by the error
    for name in wanted:
        kind = KINDS[name]
        if (stem := kind.stem(made)) in stems:
            continue  # another kind has drawn this figure, as the curves of the test accuracy
        try:
            drawn[name] = kind.draw(made)
        except UserError as error:
            if named:
                skipped.append(f"{name}: {error}")
            elif isinstance(error, TooManyPanels):
                large.setdefault(str(error), []).append(stem)
            elif isinstance(error, NothingFinite):
                skipped += [f"{name}: {error}"] * every  # `caveats` report them in any case
            elif name == "curves":  # only the curves are always expected to apply
                raise
            elif every:
                skipped.append(f"{name}: {error}")
        else:
            stems.add(stem)
            if made.few_searches:
                add_note(drawn[name], made.few_searches)
    problems += [f"{', '.join(names)}: {text}" for text, names in large.items()]
    if named and not drawn:
        raise UserError("; ".join(skipped))
    return drawn, skipped
