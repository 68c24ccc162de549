"""What several figures and tables of a folder's runs rest on: targets, times, ranks."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from optbench.analysis.pairing import by_seed
from optbench.analysis.series import layout
from optbench.analysis.targets import time_matrix
from optbench.analysis.time_to_target import Reach, phases, reach
from optbench.common.errors import UserError
from optbench.common.metrics import smaller_is_better
from optbench.figures.critical_difference import cd_diagram
from optbench.figures.profile import scores
from optbench.stats.paired_tests import enough_seeds
from optbench.stats.ranks import by_problem, cliques, mean_ranks, nemenyi


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
        if not known:
            raise UserError("there are no times to target: no run logged a finite loss")
        return reach(table, known[0], target, facet)
    except UserError:
        if target is not None:
            raise
        return None


def times_by_problem(found: Reach) -> pd.DataFrame | None:
    """`profile_times`; None where a profile over problems means nothing."""
    try:
        return profile_times(found)
    except UserError:
        return None


def profile_times(found: Reach) -> pd.DataFrame:
    """Steps to target, optimizers by problems. Raises UserError where a profile over problems
    means nothing."""
    matrix = time_matrix(found.times)
    if len(matrix) < 2 or any(" " in str(name) for name in matrix.index):
        raise UserError("a performance profile needs two optimizers, with one setting each")
    if (early := (matrix <= 0).any()).any():
        raise UserError(
            f"a performance profile needs times above 0, and on {early.idxmax()} the target "
            f"({found.rule}) is reached at step 0: choose another with --target"
        )
    scores(matrix)
    return matrix


def ranks_figure(table: pd.DataFrame, column: str, facet: Sequence[str] | None = None) -> Figure:
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
