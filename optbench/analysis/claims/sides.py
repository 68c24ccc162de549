"""One side of a claim's check: its values by seed, at one of several settings.

A side stands at the setting at which the fewest runs diverge. Among several such settings, the best
mean over the seeds decides: a single collapse counts. Both sides are chosen by this rule, on the
tested seeds. Which setting comes first is partly chance, and the chance is the same for all seeds:
in studies of SGD against itself, resampled from runs of which some collapse, a test of the two
chosen settings alone called 20 % different. So the side that is ahead must be ahead of *every*
setting of the other. Its p-value is the largest of these comparisons, times `choice_factor` if the
side was chosen itself. Then 1 % were called different.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.claims.values import measure_runs
from optbench.analysis.columns import filter_runs, resolve, short_name
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import show, sort_key
from optbench.stats.estimates import median
from optbench.stats.paired_tests import differences, signed_rank
from optbench.stats.power import rank_biserial

ACROSS_WAYS = ("best", "spread")
SETTING_RULE = (
    "Where a side has several settings, such as learning rates, it stands at the one at which the "
    "fewest runs diverge, and of those at which the mean over the seeds is best, chosen by this "
    "rule for both sides alike and on the same seeds. Its p-value is then the largest of those "
    "against every setting of the other side, doubled (from ten settings on, tripled) where the "
    "side that is ahead was itself chosen among several."
)


class Side(NamedTuple):
    """The runs that one side of a check has."""

    name: str
    tried: pd.DataFrame  # seeds by settings, each a combination of values of `keys`
    keys: tuple[str, ...]  # whose best value is chosen
    chosen: int  # the column of `tried`
    notes: tuple[str, ...]  # the chosen settings

    @property
    def best(self) -> np.ndarray:
        """Return the value of each seed at the chosen setting, (seeds,)."""
        return self.tried.iloc[:, self.chosen].to_numpy(dtype=float)

    def setting(self, column: int) -> str:
        """Return the values of a column's keys, as in "lr 0.1"."""
        return setting_text(self.keys, self.tried.columns[column])


def setting_text(keys: Iterable[str], values: Iterable[Any]) -> str:
    """Return the values of keys, as in "lr 0.1"."""
    return ", ".join(f"{short_name(k)} {show(v)}" for k, v in zip(keys, values, strict=True))


def side_of(
    source: pd.DataFrame,
    table: pd.DataFrame,
    check: Mapping[str, Any],
    conditions: Mapping[str, Any],
) -> Side:
    """Return the side of a check whose runs meet the conditions.

    source: the table whose column is compared; table: that of `epochs.csv`. For each key with
    several values on a side, the check's `across` is "best" (take one value) or "spread" (the
    largest minus the smallest value of each seed). The last key is the outermost. Raises UserError
    if runs are missing, if several runs of a seed are left, and if `across` names the seed.
    """
    texts = {k: _condition_text(v) for k, v in conditions.items()}
    filters = [f"{key}={text}" for key, text in texts.items()]
    name = ", ".join(f"{short_name(resolve(table, k))} {text}" for k, text in texts.items())
    values = measure_runs(filter_runs(source, filters), check)
    runs = filter_runs(table, filters).groupby("run", observed=True, sort=False).first()
    asked = check.get("across", {})
    if not isinstance(asked, Mapping):
        raise UserError(f"across: {asked!r} is not of the form {{KEY: best}} or {{KEY: spread}}")
    across = [(resolve(table, key), how) for key, how in asked.items()]
    if unknown := {how for _, how in across} - set(ACROSS_WAYS):
        raise UserError(
            f"across: {', '.join(sorted(map(str, unknown)))} is not one of {', '.join(ACROSS_WAYS)}"
        )
    if "seed" in dict(across):  # the sides are paired by seed
        raise UserError(
            "across: no value of seed is chosen, because each seed of one side is compared with "
            "the same seed of the other; leave seed out"
        )
    runs = runs[["seed", *(key for key, _ in across)]].astype(object)
    runs["value"] = values.reindex(runs.index)
    outer = len(across)
    while outer and across[outer - 1][1] == "best":
        outer -= 1
    keys = [key for key, _ in across[outer:]]
    smaller = metric_of(str(check["value"])).smaller
    notes: list[str] = []
    parts = runs.groupby(keys, sort=False, dropna=False) if keys else [((), runs)]
    tried = {
        tuple(at): seed_values(part, across[:outer], smaller, name, notes) for at, part in parts
    }
    ordered = sorted(tried, key=lambda values: [sort_key(value) for value in values])
    frame = one_frame({values: tried[values] for values in ordered}, keys, name)
    chosen = best_column(frame.to_numpy(dtype=float), smaller)
    made = Side(name, frame, tuple(keys), chosen, ())
    if set(keys) - {resolve(table, key) for key in conditions}:
        notes.append(f"best {made.setting(chosen)} ({name}{edge(frame, chosen)})")
    return made._replace(notes=tuple(notes))


def _condition_text(value: Any) -> str:
    """Return a condition's value as text in the form of the table, such as "null"."""
    return json.dumps(value) if value is None or isinstance(value, list) else show(value)


def number_side(value: float, seeds: pd.Index) -> Side:
    """Return the side of a check that is a number, the same for all seeds."""
    return Side("", pd.DataFrame({(): value}, index=seeds), (), 0, ())


def one_frame(
    tried: Mapping[tuple[Any, ...], "pd.Series[float]"], keys: list[str], name: str
) -> pd.DataFrame:
    """Return seeds by settings. Raises UserError if a setting lacks another's seed."""
    seeds = sorted({seed for part in tried.values() for seed in part.index})
    for values, part in tried.items():
        if lacking := sorted(set(seeds) - set(part.index)):
            raise UserError(
                f"{name}, {setting_text(keys, values)} has no run of seed "
                f"{', '.join(map(str, lacking))}; runs are missing: the same command again makes "
                "them"
            )
    cells = np.array([part.loc[seeds].to_numpy(dtype=float) for part in tried.values()]).T
    frame = pd.DataFrame(cells, index=pd.Index(seeds), columns=range(len(tried)))
    frame.columns = pd.Index(list(tried), tupleize_cols=False)
    return frame


def seed_values(
    runs: pd.DataFrame,
    across: list[tuple[str, str]],
    smaller: bool,
    name: str,
    notes: list[str],
) -> "pd.Series[float]":
    """Return the value of each seed from its runs by `across`, last key outermost.

    Choices inside a spread are added to `notes`.
    """
    if not across:
        if runs["seed"].duplicated().any():
            raise UserError(
                f"{name} has several runs of a seed: name one setting in the check, or say how "
                "several are combined with across: {KEY: best} or {KEY: spread}"
            )
        return runs.set_index("seed")["value"].astype(float)
    *inner, (key, how) = across
    groups = sorted(runs.groupby(key, dropna=False), key=lambda group: sort_key(group[0]))
    values = [value for value, _ in groups]
    parts = {
        (v,): seed_values(part, inner, smaller, f"{name}, {show(v)}", notes) for v, part in groups
    }
    frame = one_frame(parts, [key], name)
    cells = frame.to_numpy(dtype=float)
    if how == "best":
        chosen = best_column(cells, smaller)
        notes.append(f"best {short_name(key)} {show(values[chosen])} ({name}{edge(frame, chosen)})")
        return frame.iloc[:, chosen]
    finite = np.isfinite(cells).all(axis=1)
    ends = np.where(finite[:, None], cells, 0.0)
    spread = np.where(finite, ends.max(axis=1) - ends.min(axis=1), math.inf)
    return pd.Series(np.where(np.isnan(cells).any(axis=1), math.nan, spread), frame.index)


def best_column(cells: np.ndarray, smaller: bool) -> int:
    """Return the column of (seeds, settings) with the fewest infinities and NaN.

    Among equals the best mean decides, then the first column.
    """
    finite = np.isfinite(cells)
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.where(finite, cells, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
    return int(np.lexsort((means if smaller else -means, (~finite).sum(axis=0)))[0])


def edge(frame: pd.DataFrame, chosen: int) -> str:
    """Return a note if the chosen column is the first or last of several values."""
    if frame.shape[1] == 1 or len(frame.columns[0]) != 1:
        return ""
    return ", the edge of those tried" if chosen in (0, frame.shape[1] - 1) else ""


def choice_factor(settings: int) -> int:
    """Return the factor on the p-value of a side chosen of so many settings.

    The worst case was simulated: 8 seeds, all settings of one side equally good, against one
    setting that is as good (normal, skewed, one run in ten collapsing; 2,500 studies each). The
    share of studies called different at 7 to 9 settings was 6.0 to 8.8 % without a factor, and 3.2
    to 5.1 % with factor 2. With factor 3 it was 3.4 to 4.1 % at 12 settings, and 4.8 to 6.0 % at
    24. Between two sides that are alike the share is 1 % or less.
    """
    return 1 if settings == 1 else 2 if settings < 10 else 3


def leading_first(a: Side, b: Side, smaller: bool) -> tuple[Side, Side]:
    """Return both sides, first the one ahead at the chosen settings."""
    return (a, b) if (rank_biserial(differences(a.best, b.best)) < 0) == smaller else (b, a)


def p_of_best(front: Side, other: Side, smaller: bool) -> tuple[float, str]:
    """Return the two-sided p-value of the side ahead, and which setting decides it.

    The side is compared with every setting of the other by signed ranks. The largest p-value counts
    (1 if a setting of the other is ahead), times `choice_factor`. The second value is "" if the
    other side's chosen setting decides.
    """
    p = np.zeros(other.tried.shape[1])
    for column, values in enumerate(other.tried.to_numpy(dtype=float).T):
        if not np.isnan(values).any():  # NaN: a run diverged, and the measure has no worst value
            d = differences(front.best, values)
            p[column] = signed_rank(d) if (rank_biserial(d) < 0) == smaller else 1.0
    largest = float(p.max())
    decides = int(p.argmax()) if largest > p[other.chosen] else other.chosen
    note = "" if decides == other.chosen else f"least sure against {other.setting(decides)}"
    return min(1.0, largest * choice_factor(front.tried.shape[1])), note


def coarse_warnings(part: Side, effect: float, adds: bool) -> list[str]:
    """Return a warning for each key whose values lie too far apart around the choice.

    A neighbour of the chosen setting then differs from it by more than `effect`, the difference
    between two sides, so the best may lie between. Neighbours are the next smaller and larger value
    of a key of numbers. Distances are medians over the seeds. adds: whether a better value would
    only add to the difference.
    """
    settings = list(part.tried.columns)
    at = settings[part.chosen]
    found = []
    for index, key in enumerate(part.keys):
        line = [s for s in settings if s[:index] + s[index + 1 :] == at[:index] + at[index + 1 :]]
        if any(sort_key(s[index])[0] or isinstance(s[index], (bool, np.bool_)) for s in line):
            continue  # some values are no numbers
        here = line.index(at)
        near = [*line[max(here - 1, 0) : here], *line[here + 1 : here + 2]]
        cells = {s[index]: part.tried[s].to_numpy(dtype=float) for s in near}
        gaps = {
            value: abs(float(median(differences(cell, part.best))))
            for value, cell in cells.items()
            if not np.isnan(cell).any()
        }
        steps = [
            f"{show(value)}, where it diverges"
            if math.isinf(gap)
            else f"{show(value)} by {gap:.3g}"
            for value, gap in gaps.items()
            if gap > abs(effect)
        ]
        if steps:
            found.append(
                f"{part.name}, {short_name(key)} {show(at[index])} differs from "
                f"{' and '.join(steps)}, the two sides by {abs(effect):.3g}: a value "
                "between may be better still"
                + (" (which would add to the difference)" if adds else "")
            )
    return found


def three_digits(value: float) -> str:
    """Return three significant digits; an infinite value is "diverged"."""
    return "diverged" if math.isinf(value) else f"{value:.3g}"
