"""Which figures and tables the runs of a folder get: those that apply, and those asked for."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from optbench.cd_plot import cd_diagram
from optbench.errors import UserError
from optbench.estimates import by_seed, smaller_is_better
from optbench.layout import layout
from optbench.paired_tests import enough_seeds
from optbench.panels import TooManyPanels
from optbench.profile_plot import profile_figure, scores
from optbench.ranks import by_problem, cliques, mean_ranks, nemenyi
from optbench.reach import Reach, phases, reach, reach_figure
from optbench.sensitivity import sensitivity
from optbench.study_files import Protocol
from optbench.targets import time_matrix
from optbench.trial_plots import rate_scatter, tuning_budget

MOST_ROWS = 40  # of a figure of times to target


class Extras(NamedTuple):
    """What is drawn and written beside the main figure and the ranked table."""

    figures: dict[str, Figure]
    tables: dict[str, pd.DataFrame]
    left_out: list[str]  # one line per figure that was too large


def extras(
    table: pd.DataFrame,
    trials: pd.DataFrame,
    protocol: Protocol,
    final: str,
    facet: Sequence[str] | None,
    lines: str | None,
    target: str | None,
) -> Extras:
    """The figures of learning rates, tuning budgets, times to target, profiles and ranks.

    table: the runs that are compared. trials: a tuned study's (or `table` again). final: the
    column that the ranked table is ranked by. target: a rule of `reach`, None for its default.
    Raises UserError only for what was asked for: a target that cannot be had.
    """
    jobs: dict[str, Callable[[], Figure]] = {}
    tables: dict[str, pd.DataFrame] = {}
    tuned = trials is not table
    if "optimizer.lr" not in (facet or ()):
        if tuned:
            # trials never see the test set, and are judged by the validation split
            name = f"final_{protocol.metric}-lr"
            jobs[name] = lambda: rate_scatter(trials, *protocol, facet=facet)
        elif has_rates(table):
            jobs[f"final_{final}-lr"] = lambda: sensitivity(table, final, facet=facet)
    if tuned:
        jobs["tuning_budget"] = lambda: tuning_budget(trials, *protocol, facet=facet)
    found = times_to_target(table, protocol.metric, final, facet, lines, target)
    if found is not None:
        tables["time_to_target"] = found.frame
        if len(found.frame) <= MOST_ROWS:
            jobs["time_to_target"] = lambda: reach_figure(found)
        matrix = times_by_problem(found)
        if matrix is not None:
            tables["benchmark_score"] = scores(matrix)
            note = f"target: {found.rule} ({found.column.replace('_', ' ')})"
            jobs["performance_profile"] = lambda: profile_figure(matrix, note=note)
    if not lines:
        column = protocol.metric.replace("val_", "test_") if tuned else final
        jobs["critical_difference"] = lambda: ranks_figure(table, column, facet)
    figures, left_out = {}, []
    for name, job in jobs.items():
        try:
            figures[name] = job()
        except TooManyPanels as error:
            left_out.append(f"{name}: {error}")
        except UserError:
            continue  # nobody asked for it, and it does not apply
    return Extras(figures, tables, left_out)


def has_rates(table: pd.DataFrame) -> bool:
    """Whether some optimizer has two learning rates."""
    if "optimizer.lr" not in table:
        return False
    pairs = table[["optimizer", "optimizer.lr"]].drop_duplicates().dropna()
    return bool(pairs["optimizer"].duplicated().any())


def times_to_target(
    table: pd.DataFrame,
    metric: str,
    y: str,
    facet: Sequence[str] | None,
    lines: str | None,
    target: str | None,
) -> Reach | None:
    """When each optimizer reached the target; None where nobody asked and nothing is compared.

    The target is one of `y` if that is a validation column, else of the metric by which trials
    are judged, else of the training loss: never of the test set.
    """
    names = [y if y.startswith("val_") else metric, "val_loss", "train_loss"]
    known = [name for name in names if name in table and np.isfinite(table[name]).any()]
    try:
        # where the lines are of different problems, a target for each of them compares nothing
        if target is None and (lines or len(layout(table, facet).runs["variant"].unique()) < 2):
            return None
        return reach(table, known[0], target, facet)
    except UserError:
        if target is not None:
            raise
        return None


def times_by_problem(found: Reach) -> pd.DataFrame | None:
    """Steps to target, optimizers by problems; None where a profile over problems means nothing."""
    try:
        matrix = time_matrix(found.times)
        if len(matrix) > 1 and not any(" " in str(name) for name in matrix.index):
            scores(matrix)
            return matrix
    except UserError:
        pass
    return None


def ranks_figure(table: pd.DataFrame, column: str, facet: Sequence[str] | None) -> Figure:
    """The critical-difference diagram of the final `column`. Raises UserError as `ranked`."""
    values, blocks = ranked(table, column, facet)
    smaller = smaller_is_better(column)
    ranks = mean_ranks(values, smaller)
    groups = cliques(ranks, nemenyi(values, smaller))
    return cd_diagram(ranks, groups, len(values), blocks=f"{blocks}, by final {column}")


def ranked(
    table: pd.DataFrame, column: str, facet: Sequence[str] | None
) -> tuple[pd.DataFrame, str]:
    """What ranks are taken over, a line per problem or per seed of the only one, and its name.

    Raises UserError with fewer than three optimizers or six seeds, or several settings of one
    optimizer."""
    part = phases(table).get("tuned", table)
    frame = by_seed(part, column, [key for key in facet or () if key != "optimizer"] or None)
    if len(frame.columns) < 3 or any(" " in str(name) for name in frame):
        raise UserError("ranks need three optimizers, with one setting each on a problem")
    problems = frame.index.get_level_values("problem").nunique()
    if problems > 1:
        return by_problem(frame), "problems"
    values = frame.dropna()
    if len(values) < enough_seeds():
        raise UserError("too few seeds to rank over")
    return values, "seeds of one problem"
