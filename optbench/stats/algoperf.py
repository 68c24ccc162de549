"""AlgoPerf's performance profiles and score: `python -m optbench score times.csv`.

Dahl et al. 2023, "Benchmarking Neural Network Training Algorithms", section 4.3, and the scoring
code of mlcommons/algorithmic-efficiency. A CSV has a row for each optimizer, a column for each
workload and times to target as cells, `inf` for a miss.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from optbench.common.errors import UserError
from optbench.common.text import count, is_number
from optbench.stats.paired_tests import Values, check_whole

Times = pd.DataFrame | np.ndarray | Sequence[Sequence[float]]  # (optimizers, workloads)
R_MAX = 4.0
PROFILE_POINTS = 100
CSV_FORM = (
    "a header with the workloads, then per line an optimizer and its times, inf for a miss; the "
    "header, the optimizers' names or both may be missing"
)


def check_times(times: Times) -> pd.DataFrame:
    """Return the times as a frame of floats; UserError for NaN and other non-times."""
    try:
        values = pd.DataFrame(times).astype(float)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"times must be a table of numbers, optimizers by workloads: {error}"
        ) from None
    if values.empty:
        raise UserError("there are no times to score")
    bad = ~(values > 0)  # NaN as well: a missing run is not a miss
    if bad.to_numpy().any():
        row, column = np.argwhere(bad.to_numpy())[0]
        value = values.iloc[row, column]
        missing = " (a missing run is no miss)" if math.isnan(value) else ""
        raise UserError(
            f"{values.index[row]} on {values.columns[column]}: {value:g} is not a time{missing}; "
            "times are above 0, and inf where the target was not reached"
        )
    return values


def check_limit(r_max: float) -> None:
    """Raise UserError unless the largest ratio that counts is a number above 1."""
    if not 1 < r_max < math.inf:
        raise UserError(f"r_max must be a number above 1, not {r_max!r}")


def ratios(times: Times) -> pd.DataFrame:
    """Return r = t / (fastest t on that workload); inf for a miss, even if all missed."""
    values = check_times(times)
    best = values.min(axis=0)
    return (values / best.where(np.isfinite(best), 1.0)).where(np.isfinite(values), math.inf)


def profile(times: Times, taus: Values | None = None) -> pd.DataFrame:
    """Return rho(tau), the share of workloads with r <= tau (Dolan and More 2002).

    Optimizers by taus, by default AlgoPerf's 100 points on [1, 4]. Raises UserError for NaN.
    """
    taus = np.linspace(1, R_MAX, PROFILE_POINTS) if taus is None else np.asarray(taus, dtype=float)
    if np.isnan(taus).any():
        raise UserError("a profile needs numbers as taus, and NaN is among them")
    r = ratios(times)
    shares = (r.to_numpy()[:, :, None] <= taus).mean(axis=1)
    return pd.DataFrame(shares, r.index, taus)


def closed_form(times: Times, r_max: float = R_MAX) -> "pd.Series[float]":
    """Return the profile's exact integral over [1, r_max], divided by r_max - 1.

    1 / n * sum over workloads of max(0, r_max - r) / (r_max - 1).
    """
    check_limit(r_max)
    gain = (r_max - ratios(times)).clip(lower=0) / (r_max - 1)
    return gain.mean(axis=1).rename("score")


def trapezoid(
    times: Times, r_max: float = R_MAX, points: int = PROFILE_POINTS
) -> "pd.Series[float]":
    """Return AlgoPerf's own score, by the trapezoidal rule over the profile's points.

    Its error per workload is at most half a grid step before normalization: (r_max - 1) / 198 with
    100 points.
    """
    check_limit(r_max)
    check_whole("points", points, 2)
    taus = np.linspace(1, r_max, points)
    shares = profile(times, taus)
    area = np.trapezoid(shares.to_numpy(), taus, axis=1) / (r_max - 1)
    return pd.Series(area, shares.index, name="score")


def over_studies(trials: pd.DataFrame) -> pd.DataFrame:
    """Return one time per optimizer and workload from the times of single trials.

    AlgoPerf's external tuning: the median over studies of the minimum over a study's trials.
    Columns needed: optimizer, workload, study, time. Raises UserError if studies are missing.
    """
    keys = ["optimizer", "workload", "study"]
    if lacking := [name for name in (*keys, "time") if name not in trials]:
        raise UserError(f"the trials lack the column(s) {', '.join(lacking)}")
    if trials.empty or trials[keys].isna().any(axis=None):
        raise UserError("each trial needs an optimizer, a workload and a study")
    spent = pd.to_numeric(trials["time"], errors="coerce")
    if not (spent > 0).all():  # NaN as well: a missing trial is not a miss
        raise UserError("each time of a trial must be a number above 0, and inf for a miss")
    fastest = trials.assign(time=spent).groupby(keys, sort=False)["time"].min()
    counts = fastest.groupby(["optimizer", "workload"], sort=False).size()
    if counts.min() < counts.max():
        raise UserError(f"unequal numbers of studies: {counts.min()} to {counts.max()}")
    with np.errstate(invalid="ignore"):
        medians = fastest.groupby(["optimizer", "workload"], sort=False).median().reset_index()
    return medians.pivot_table(index="optimizer", columns="workload", values="time", sort=False)


def held_out(times: Times, variants: Mapping[str, str], r_max: float = R_MAX) -> pd.DataFrame:
    """Return the times on base workloads, inf unless the variant was reached as well.

    AlgoPerf's rule: a base workload counts if its target was reached within r_max times the
    fastest, and its variant's target within r_max times the fastest of those that reached the
    base's. variants: base workload to variant; columns that are neither are kept.
    """
    check_limit(r_max)
    values = check_times(times)
    names = {*variants, *variants.values()}
    if lacking := sorted(name for name in names if name not in values):
        raise UserError(
            f"no workload {', '.join(lacking)}; there are: {', '.join(map(str, values))}"
        )
    result = values.drop(columns=list(variants.values()))
    for base, variant in variants.items():
        first = values[base].where(values[base] <= r_max * values[base].min(), math.inf)
        second = values[variant].where(np.isfinite(first), math.inf)
        passed = np.isfinite(second) & (second <= r_max * second.min())
        result[base] = first.where(passed, math.inf)
    return result


def speed_up(times: Times, optimizer: str, baseline: str) -> tuple[float, int]:
    """Return how many times faster an optimizer is than a baseline, and the workloads.

    The first value is the geometric mean over workloads of t_baseline / t_optimizer. The second is
    the number of workloads on which both have a time. A miss of one optimizer makes the mean 0 or
    inf, a miss of both NaN. AlgoPerf counts a miss as its budget + 1 s, which is the caller's part.
    """
    values = check_times(times)
    for name in (optimizer, baseline):
        if name not in values.index:
            raise UserError(
                f"no optimizer {name!r}; there are: {', '.join(map(str, values.index))}"
            )
    a, b = values.loc[baseline].to_numpy(), values.loc[optimizer].to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = float(np.exp(np.mean(np.log(a) - np.log(b))))
    return mean, int((np.isfinite(a) & np.isfinite(b)).sum())


def read_times(path: str | Path) -> pd.DataFrame:
    """Read the CSV of times; a UserError names its fault and the form it should have."""
    try:
        text = Path(path).read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text. It needs {CSV_FORM}") from None
    rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    rows = with_names(rows)
    if len(rows) < 2 or len(rows[0]) < 2:
        raise UserError(f"{path} holds no times. It needs {CSV_FORM}")
    head = [cell.strip() for cell in rows[0][1:]]
    names = [row[0].strip() for row in rows[1:]]
    for article, what, words in (("a", "workload", head), ("an", "optimizer", names)):
        if "" in words or len(set(words)) < len(words):
            raise UserError(
                f"{path}: {article} {what} has no name, or two have the same. It needs {CSV_FORM}"
            )
    for name, row in zip(names, rows[1:], strict=True):
        if len(row) != len(rows[0]):
            raise UserError(
                f"{path}: {name} has {count(len(row) - 1, 'time')} for "
                f"{count(len(head), 'workload')}. "
                f"It needs {CSV_FORM}"
            )
        for workload, cell in zip(head, row[1:], strict=True):
            if "_" in cell or not is_number(cell):  # Python reads 1_0 as ten
                raise UserError(
                    f"{path}: {name} on {workload}: {cell.strip()!r} is not a number. "
                    f"It needs {CSV_FORM}"
                )
    values = [[float(cell) for cell in row[1:]] for row in rows[1:]]
    return check_times(pd.DataFrame(values, names, head))


def with_names(rows: list[list[str]]) -> list[list[str]]:
    """Return the rows with a header and a column of names, numbered if missing.

    If the first cell is empty or "optimizer", the first row and the first column are names, even if
    they look like numbers.
    """
    if not rows or rows[0][0].strip().lower() in ("", "optimizer"):
        return rows
    header = not all(map(is_number, rows[0][1:] or rows[0]))
    body = rows[header:]
    names = not all(is_number(row[0]) for row in body)
    head = rows[0][names:] if header else list(map(str, range(1, len(rows[0]) + 1 - names)))
    return [["", *head], *(row if names else [str(n), *row] for n, row in enumerate(body, 1))]
