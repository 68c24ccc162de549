"""Every kind of figure: its function, what it is called, and which ones a sweep draws by itself.

A kind is drawn of a `Study`; its function takes a tidy table (or two words more) and gives a
matplotlib figure, and can be called by itself as well.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from optbench.analysis.comparison import has_rates, profile_times, ranks_figure
from optbench.analysis.series import layout
from optbench.analysis.time_to_target import Reach, reach_figure
from optbench.common.errors import UserError
from optbench.figures.axes import NothingFinite
from optbench.figures.cost import cost
from optbench.figures.curves import curves
from optbench.figures.depth import layers_by_depth
from optbench.figures.finals import finals
from optbench.figures.panels import TooManyPanels
from optbench.figures.profile import profile_figure
from optbench.figures.sensitivity import sensitivity
from optbench.figures.trials import rate_scatter, tuning_budget
from optbench.formats.study import Protocol

MOST_ROWS = 40  # of a figure of times to target that nobody asked for
ALL = "all"


class Study(NamedTuple):
    """What the figures of one folder are drawn from."""

    table: pd.DataFrame  # epochs.csv of the runs that are compared
    main: pd.DataFrame  # the same, or their steps.csv: of the curves
    trials: pd.DataFrame  # of a tuned study; without one `table` again
    layers: Callable[[], pd.DataFrame] | None  # reads layers.csv; None: no run has one
    protocol: Protocol
    y: str
    x: str
    final: str  # the column by which runs are ranked
    facet: Sequence[str] | None
    lines: str | None
    log: bool | None
    found: Reach | None  # times to target
    matrix: pd.DataFrame | None  # steps to target, optimizers by problems

    @property
    def tuned(self) -> bool:
        return self.trials is not self.table

    @property
    def judged(self) -> str:
        """The column by which the final results are compared: in a tuned study the test set's."""
        return self.protocol.metric.replace("val_", "test_") if self.tuned else self.final


class Kind(NamedTuple):
    """One kind of figure."""

    function: Callable[..., Figure]  # what a notebook calls
    title: str  # of the figure, in its caption
    stem: Callable[[Study], str]  # of its files
    draw: Callable[[Study], Figure]  # raises UserError where it does not apply
    automatic: Callable[[Study], bool]  # whether a sweep draws it unasked
    compares: bool = True  # so that what a reviewer would object to belongs below it


def draw_curves(s: Study) -> Figure:
    return curves(s.main, s.y, s.x, s.facet, s.lines, s.log)


def tested(s: Study) -> str:
    """The test accuracy, or the loss where there is none."""
    accuracy = np.isfinite(s.table["test_accuracy"]).any()
    return "test_accuracy" if accuracy else "test_loss"


def tested_once(s: Study) -> bool:
    """Whether the test set was measured at the end alone, as in a tuned study."""
    values = s.table[np.isfinite(s.table[tested(s)])]
    return len(values) > 0 and not values["run"].duplicated().any()


def draw_test(s: Study) -> Figure:
    if tested_once(s):
        raise UserError("the test set was measured once, at the end: --kind finals shows that")
    return curves(s.table, tested(s), "epoch", s.facet, s.lines)


def draw_grid(s: Study) -> Figure:
    keys = list(layout(s.table, s.facet, s.lines).facet)
    if len(keys) != 2:
        found = f"these runs differ in {', '.join(keys)}" if keys else "these are of one problem"
        raise UserError(f"a grid has two keys, and {found}: name them with --facet KEY KEY")
    return curves(s.table, s.y, s.x, keys, s.lines, s.log)


def draw_rates(s: Study) -> Figure:
    # trials never see the test set, and are judged by the validation split
    if s.tuned:
        return rate_scatter(s.trials, *s.protocol, facet=s.facet)
    return sensitivity(s.table, s.final, facet=s.facet)


def draw_budget(s: Study) -> Figure:
    if not s.tuned:
        raise UserError("a tuning budget is of a tuned study's trials (hydra/sweeper=tuned)")
    return tuning_budget(s.trials, *s.protocol, facet=s.facet)


def draw_times(s: Study) -> Figure:
    if s.found is None:
        raise UserError("times to target need two optimizers or settings of one problem")
    return reach_figure(s.found)


def draw_profile(s: Study) -> Figure:
    if s.found is None:
        raise UserError("a performance profile needs two optimizers, and two problems of each")
    note = f"target: {s.found.rule} ({s.found.column.replace('_', ' ')})"
    return profile_figure(profile_times(s.found), note=note)


def draw_layers(s: Study) -> Figure:
    if s.layers is None:
        raise UserError("no run has a layers.csv: diagnostics=layers writes it")
    return layers_by_depth(s.layers(), s.lines)


KINDS: dict[str, Kind] = {
    "curves": Kind(
        curves, "Loss curves",
        lambda s: f"{s.y}-{s.x}" + ("-steps" if s.main is not s.table else ""),
        draw_curves, lambda s: True,
    ),
    "test": Kind(
        curves, "Test results over the training",
        lambda s: f"{tested(s)}-epoch", draw_test,
        lambda s: tested(s) == "test_accuracy" and not tested_once(s),
    ),
    "grid": Kind(
        curves, "Small multiples: loss curves by two settings",
        lambda s: f"grid_{s.y}-{s.x}", draw_grid, lambda s: False,
    ),
    "learning_rate": Kind(
        sensitivity, "Sensitivity to the learning rate",
        lambda s: f"final_{s.protocol.metric if s.tuned else s.final}-lr", draw_rates,
        lambda s: "optimizer.lr" not in (s.facet or ()) and (s.tuned or has_rates(s.table)),
    ),
    "finals": Kind(
        finals, "Final values of all runs",
        lambda s: f"final_{s.judged}",
        lambda s: finals(s.table, s.judged, s.facet, s.lines), tested_once,
    ),
    "ranks": Kind(
        ranks_figure, "Mean ranks and critical difference",
        lambda s: "critical_difference", lambda s: ranks_figure(s.table, s.judged, s.facet),
        lambda s: not s.lines,
    ),
    "profile": Kind(
        profile_figure, "Performance profile",
        lambda s: "performance_profile", draw_profile, lambda s: s.matrix is not None,
    ),
    "time_to_target": Kind(
        reach_figure, "Time to target",
        lambda s: "time_to_target", draw_times,
        lambda s: s.found is not None and len(s.found.frame) <= MOST_ROWS,
    ),
    "budget": Kind(
        tuning_budget, "What n trials of tuning bring",
        lambda s: "tuning_budget", draw_budget, lambda s: s.tuned,
    ),
    "layers": Kind(
        layers_by_depth, "Layers by depth",
        lambda s: "layers", draw_layers, lambda s: s.layers is not None, compares=False,
    ),
    "cost": Kind(
        cost, "What an optimizer's step costs",
        lambda s: "cost", lambda s: cost(s.table, s.facet), lambda s: False, compares=False,
    ),
}  # fmt: skip


def chosen(names: Sequence[str]) -> list[str]:
    """The kinds of these names, `all` among them. Raises UserError for others."""
    for name in names:
        if name not in (*KINDS, ALL):
            near = get_close_matches(name, KINDS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(
                f"no kind of figure {name!r}{hint}; allowed: {', '.join(KINDS)}, {ALL}. Ways over "
                "a function of two variables: python -m optbench trajectories"
            )
    return list(KINDS) if ALL in names else list(dict.fromkeys(names))


def draw(
    study: Study, names: Sequence[str], problems: list[str]
) -> tuple[dict[str, Figure], list[str]]:
    """The figures of these kinds, by name, or of those that a sweep draws by itself; and which of
    those that were asked for do not apply. Adds a line to `problems` for each that nobody named
    and that was too large. Raises UserError where none of those named applies."""
    every = ALL in names
    named = bool(names) and not every
    wanted = chosen(names or [name for name, kind in KINDS.items() if kind.automatic(study)])
    drawn: dict[str, Figure] = {}
    skipped = []
    stems: set[str] = set()
    for name in wanted:
        kind = KINDS[name]
        if (stem := kind.stem(study)) in stems:
            continue  # the curves are those of the test accuracy
        try:
            drawn[name] = kind.draw(study)
        except UserError as error:
            if named:
                skipped.append(f"{name}: {error}")
            elif isinstance(error, TooManyPanels):
                problems.append(f"{stem}: {error}")
            elif isinstance(error, NothingFinite):
                skipped += [f"{name}: {error}"] * every  # `objections` say so in any case
            elif name == "curves":  # they are what was asked for; of the others some do not apply
                raise
            elif every:
                skipped.append(f"{name}: {error}")
        else:
            stems.add(stem)
    if named and not drawn:
        raise UserError("; ".join(skipped))
    return drawn, skipped
