"""Run folders to one tidy table, and the table to a summary.

Reads `run.json` and the CSV files only: neither the model nor the data is needed, nor torch.
A file that cannot be trusted is left out and named in `table.attrs["problems"]`.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.errors import UserError

FORMAT = 1
COLUMNS = {
    "epochs": [
        *["epoch", "step", "train_loss", "train_accuracy", "running_loss", "val_loss"],
        *["val_accuracy", "test_loss", "test_accuracy", "seconds", "total_seconds"],
    ],
    "steps": ["step", "epoch", "train_loss", "lr", "seconds"],
}
ALWAYS = ("epoch", "step", "train_loss", "seconds")  # never an empty cell
IDENTITY = ("run", "run_id", "problem", "status", "seed", "optimizer", "device")
STATUSES = ("completed", "diverged", "failed", "interrupted", "running")
MAX_PANELS = 24
MAX_LINES = 10  # more than this in one panel cannot be told apart


# ---------------------------------------------------------------------------- reading


def read_json(path: Path) -> dict[str, Any]:
    """One `run.json`, checked for what the table relies on. Raises OSError or ValueError."""
    try:
        run = json.loads(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(run, dict):
        raise ValueError("is not a JSON object")
    if run.get("format") != FORMAT:
        raise ValueError(
            f"has format {run.get('format')!r}; this version of optbench reads format {FORMAT}"
        )
    kinds = {"run_id": str, "problem_hash": str, "name": str, "seed": int}
    kinds |= {"config": dict, "problem": dict}
    for key, kind in kinds.items():
        if not isinstance(run.get(key), kind):
            raise ValueError(f"has no {key!r} ({kind.__name__})")
    if run.get("status") not in STATUSES:
        raise ValueError(f"has status {run.get('status')!r}, not one of {', '.join(STATUSES)}")
    return run


def read_rows(path: Path, needed: Sequence[str]) -> dict[str, np.ndarray]:
    """One CSV file of numbers as columns. Raises OSError or ValueError.

    Strict where `pandas.read_csv` is lenient: a short line would be filled with NaN there, and
    NaN is a legitimate value here (a diverged run).
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    if not text.strip():
        raise ValueError("is empty")
    if not text.endswith("\n"):
        raise ValueError("breaks off in the middle of its last line")
    lines = text.splitlines()
    header = lines[0].split(",")
    if missing := [name for name in needed if name not in header]:
        raise ValueError(f"lacks the column(s) {', '.join(missing)}")
    if len(set(header)) != len(header) or "" in header:
        raise ValueError("has a column without a name, or one name twice")
    filled = [header.index(name) for name in ALWAYS]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split(",")
        if len(cells) != len(header):
            raise ValueError(f"line {number} has {len(cells)} fields instead of {len(header)}")
        if not all(cells[index] for index in filled):
            raise ValueError(f"line {number} has an empty cell among {', '.join(ALWAYS)}")
        try:
            rows.append([float(cell) if cell else math.nan for cell in cells])
        except ValueError:
            raise ValueError(f"line {number} holds something that is not a number") from None
        if "_" in line:  # Python reads 1_0 as ten
            raise ValueError(f"line {number} holds something that is not a number")
    if not rows:
        raise ValueError("has a header and no rows")
    columns = dict(zip(header, np.array(rows).T, strict=True))
    step = columns["step"]
    if not (np.isfinite(step) & (step == np.round(step))).all() or (np.diff(step) <= 0).any():
        raise ValueError("has a column 'step' that does not count upwards in whole numbers")
    for name in ("epoch", "seconds"):
        if not np.isfinite(columns[name]).all() or (np.diff(columns[name]) < 0).any():
            raise ValueError(f"has a column {name!r} that runs backwards or is not finite")
    return columns


def check_length(run: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> None:
    """A completed run whose CSV stops before its budget lost lines: raise ValueError."""
    steps, epochs = run["config"].get("steps"), run["config"].get("epochs")
    if steps is not None:
        if rows["step"][-1] < steps:
            raise ValueError(f"ends at step {rows['step'][-1]:g} of {steps}, yet the run completed")
    # half an epoch of slack: the last, smaller batch may be dropped
    elif epochs is not None and rows["epoch"][-1] < epochs - 0.5:
        raise ValueError(f"ends at epoch {rows['epoch'][-1]:g} of {epochs}, yet the run completed")


def find_runs(folders: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Run folders below the folders, sorted, and what looked like a run and is none."""
    found: dict[str, Path] = {}  # by real path: overlapping folders count once
    problems = []
    for folder in map(Path, folders):
        if not folder.exists():
            raise UserError(f"there is no folder {folder}. {HOW}")
        if not folder.is_dir():
            raise UserError(f"{folder} is a file; give the folder of a run or of a sweep. {HOW}")
        for here, below, files in os.walk(folder):
            if "run.json" in files or "run.json" in below:
                found.setdefault(os.path.realpath(here), Path(here))
            elif "epochs.csv" in files:
                problems.append(f"{Path(here) / 'epochs.csv'}: there is no run.json beside it")
    return sorted(found.values()), sorted(set(problems))


HOW = (
    "A run folder holds run.json and epochs.csv, and `optbench` makes one for each run: "
    "train first, then give its folder (or any folder above it)."
)


def load_runs(*folders: str | Path, rows: str = "epochs") -> pd.DataFrame:
    """All finished runs below `folders` as one tidy table, a line per logged row.

    Columns: run (folder), run_id, problem (hash), status, seed, optimizer, device, the flattened
    config ("optimizer.lr"; lists as text, null as "null", a key that a run lacks as NaN), then
    the columns of `epochs.csv` or `steps.csv`. Of runs with one run_id the newest finished one
    counts. `attrs`: "problems" (one line for each file left out), "problem_keys" (columns that
    define the problem), "measured" (columns of the CSV), "figure" (the figure's options where
    all runs agree), "rows".
    Raises UserError when there is nothing to read.
    """
    if rows not in COLUMNS:
        raise UserError(f"rows is {rows!r}; allowed: {', '.join(COLUMNS)}")
    if not folders:
        raise UserError(f"no folder was given. {HOW}")
    places, problems = find_runs(folders)
    runs: list[tuple[Path, dict[str, Any]]] = []
    for place in places:
        try:
            runs.append((place, read_json(place / "run.json")))
        except (OSError, ValueError) as error:
            problems.append(f"{place / 'run.json'}: {reason(error)}")
    # newest first: the first readable one of each run_id counts
    runs.sort(key=lambda item: (finish_time(item[1]), str(item[0])), reverse=True)
    taken: dict[str, tuple[Path, dict[str, Any], dict[str, np.ndarray]]] = {}
    for place, run in runs:
        if run["status"] not in ("completed", "diverged") or run["run_id"] in taken:
            continue
        try:
            columns = read_rows(place / f"{rows}.csv", COLUMNS[rows])
            if rows == "epochs" and run["status"] == "completed":
                check_length(run, columns)
            taken[run["run_id"]] = (place, run, columns)
        except (OSError, ValueError) as error:
            problems.append(f"{place / f'{rows}.csv'}: {reason(error)}")
    for place, run in runs:
        if run["status"] in ("completed", "diverged") or run["run_id"] in taken:
            continue
        if run["status"] == "failed":
            problems.append(f"{place / 'run.json'}: the run failed: {run.get('error')}")
        else:
            problems.append(f"{place / 'run.json'}: unfinished run (status {run['status']})")
    problems.sort()
    if not taken:
        where = ", ".join(map(str, folders))
        lines = "".join(f"\n  {line}" for line in problems)
        raise UserError(f"no finished run found in {where}. {HOW}{lines}")
    table = assemble(sorted(taken.values(), key=lambda item: str(item[0])))
    table.attrs |= {"problems": problems, "rows": rows}
    return table


def reason(error: OSError | ValueError) -> str:
    """The error without the path, which the line names already."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def finish_time(run: Mapping[str, Any]) -> float:
    """Seconds since 1970 at which a run finished, -inf when it does not say."""
    try:
        moment = datetime.fromisoformat(run["finished"])
    except (KeyError, TypeError, ValueError):
        return -math.inf
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested config to dotted keys; lists as JSON text, None as "null"."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            flat[prefix + key] = json.dumps(value)
        else:
            flat[prefix + key] = "null" if value is None else value
    return flat


def assemble(runs: Sequence[tuple[Path, dict[str, Any], dict[str, np.ndarray]]]) -> pd.DataFrame:
    lengths = [len(columns["step"]) for _, _, columns in runs]
    measured = list(dict.fromkeys(name for _, _, columns in runs for name in columns))
    head: list[tuple[Any, ...]] = []
    flats: list[dict[str, Any]] = []
    problem_keys: dict[str, None] = {}
    for place, run, _ in runs:
        identity = (str(place), run["run_id"], run["problem_hash"], run["status"])
        head.append((*identity, run["seed"], run["name"], run.get("device")))
        config = {key: value for key, value in run["config"].items() if key != "figure"}
        problem = flatten(run["problem"])
        problem_keys |= dict.fromkeys(problem)
        flats.append(flatten(config) | problem)
    keys = dict.fromkeys(key for flat in flats for key in flat)
    data: dict[str, Any] = {}
    for name, values in zip(IDENTITY, zip(*head, strict=True), strict=True):
        data[name] = np.repeat(values, lengths) if name == "seed" else repeat(values, lengths)
    for key in keys:
        if key not in data and key not in measured:
            data[key] = repeat([flat.get(key, math.nan) for flat in flats], lengths)
    for name in measured:
        parts = [
            columns.get(name, np.full(length, math.nan))
            for (_, _, columns), length in zip(runs, lengths, strict=True)
        ]
        data[name] = np.concatenate(parts)
    data["step"] = data["step"].astype(np.int64)
    table = pd.DataFrame(data)
    figures = [run["config"].get("figure") for _, run, _ in runs]
    agreed = figures[0] if all(figure == figures[0] for figure in figures) else None
    table.attrs = {
        "measured": measured,
        "problem_keys": [key for key in problem_keys if key in data and key not in IDENTITY],
        "figure": agreed if isinstance(agreed, dict) else {},
    }
    return table


def repeat(values: Sequence[Any], lengths: Sequence[int]) -> pd.Categorical:
    """One value per run to one per row; a categorical, or 200 rows of text per run are slow."""
    codes, categories = pd.factorize(np.array([*values, None], dtype=object)[:-1])
    return pd.Categorical.from_codes(np.repeat(codes, lengths), categories=pd.Index(categories))


# ---------------------------------------------------------------------------- keys and filters


def show(value: object) -> str:
    """A config value as it would stand in YAML."""
    if isinstance(value, (bool, np.bool_)):
        return str(value).lower()
    if isinstance(value, (float, np.floating)):
        return "unset" if math.isnan(value) else f"{value:g}"
    return str(value)


def short(key: str) -> str:
    """A key as it stands in a label: optimizer.lr -> lr, initializer.name -> initializer."""
    return key.removeprefix("optimizer.").removesuffix(".name")


def order(value: object) -> tuple[int, float, str]:
    """Sort key for mixed config values: numbers, then text, then unset."""
    if isinstance(value, (bool, int, float, np.number, np.bool_)):
        return (2, 0.0, "") if math.isnan(value) else (0, float(value), "")
    return (1, 0.0, str(value))


def measured_columns(table: pd.DataFrame) -> list[str]:
    known = table.attrs.get("measured") or [*COLUMNS["epochs"], "lr"]
    return [name for name in known if name in table]


def resolve(table: pd.DataFrame, key: str) -> str:
    """The column that `key` names; "initializer" stands for "initializer.name"."""
    keys = [name for name in table.columns if name not in measured_columns(table)]
    if key == "optimizer.name":
        key = "optimizer"  # the same, and always there
    for candidate in (key, f"{key}.name"):
        if candidate in keys:
            return candidate
    near = [name for name in keys if name.endswith(f".{key}")]
    near += [name for name in get_close_matches(key, keys, n=5) if name not in near]
    hint = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(keys)}"
    raise UserError(f"no config key {key!r} in these runs; {hint}")


def where(table: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Rows that meet every "KEY=VALUE"; several values of one key are alternatives."""
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals:
            raise UserError(f"cannot read the filter {condition!r}; write KEY=VALUE")
        wanted.setdefault(resolve(table, key.strip()), []).append(value.strip())
    for key, values in wanted.items():
        present = {value: show(value) for value in table[key].unique()}
        keep = [v for v, text in present.items() if any(same(text, value) for value in values)]
        if not keep:
            options = ", ".join(sorted(set(present.values())))
            raise UserError(f"no run with {key} = {' or '.join(values)}; there is: {options}")
        mask = table[key].isin([v for v in keep if not pd.isna(v)])
        if any(pd.isna(v) for v in keep):
            mask |= table[key].isna()
        table = table[mask]
    return table


def same(text: str, value: str) -> bool:
    if text == value or text == value.lower() in ("true", "false", "null"):
        return True
    try:
        return float(text) == float(value)  # 1e-3 and 0.001
    except ValueError:
        return False


# ---------------------------------------------------------------------------- panels and series


class Layout(NamedTuple):
    """Which run is drawn where."""

    runs: pd.DataFrame  # a line per run; adds "panel", "setting" (values), "variant" (name and
    # setting) and "series" (the label in its panel)
    facet: list[str]  # keys whose values make up "panel"
    sequential: bool  # lines differ by a setting rather than by optimizer


def run_frame(table: pd.DataFrame) -> pd.DataFrame:
    """One line per run: the columns that do not change within a run."""
    keys = [name for name in table.columns if name not in measured_columns(table)]
    # positions first: dropping duplicates over all columns would be slow
    first = np.flatnonzero(~table["run"].duplicated().to_numpy())
    return table[keys].iloc[first].astype(dict.fromkeys(keys, object)).reset_index(drop=True)


def differing(runs: pd.DataFrame, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if len(runs[key].unique()) > 1]


def telling(
    runs: pd.DataFrame, keys: Iterable[str], target: Sequence[Any], given: Sequence[str] = ()
) -> list[str] | None:
    """A smallest set of `keys` (greedy) that, beside `given`, tells runs of different `target`
    apart; None where they cannot. Names come first, keys that some runs lack and classes last."""
    codes = {
        key: pd.factorize(runs[key], use_na_sentinel=False)[0].tolist()
        for key in {*given, *differing(runs, keys)}
    }

    def classes(chosen: Sequence[str], *more: Sequence[Any]) -> int:
        columns = [codes[key] for key in [*given, *chosen]]
        return len(set(zip(*columns, *more, strict=True))) if columns or more else 1

    def explained(chosen: Sequence[str]) -> bool:
        return classes(chosen) == classes(chosen, target)

    def preference(key: str) -> tuple[bool, bool, bool]:
        first = key.endswith(".name") or key == "optimizer.lr"
        return ("._" in key, bool(runs[key].isna().any()), not first)

    chosen: list[str] = []
    for key in sorted((key for key in keys if key in codes and key not in given), key=preference):
        if explained(chosen):
            break
        if classes([*chosen, key]) > classes(chosen):
            chosen.append(key)
    for key in chosen[::-1]:
        rest = [other for other in chosen if other != key]
        if explained(rest):
            chosen = rest
    return chosen if explained(chosen) else None


def layout(
    table: pd.DataFrame,
    facet: Sequence[str] | None = None,
    lines: str | None = None,
    within: Sequence[str] = (),
) -> Layout:
    """Panels and series of a figure. A series is one optimizer with one setting on one problem;
    only the seeds (and the keys in `within`) differ inside it.

    Raises UserError where a panel would mix problems, or hold runs that cannot be told apart.
    """
    runs = run_frame(table)
    lines = resolve(table, lines) if lines else None
    lines = None if lines == "optimizer" else lines
    problem_keys = table.attrs.get("problem_keys") or [
        key for key in map(str, runs) if key not in IDENTITY and not is_variant(key)
    ]
    asked = [lines] if lines and lines in problem_keys else []
    keys = list(dict.fromkeys(resolve(table, key) for key in facet or ()))
    if facet:
        check_panels(runs, [*keys, *asked], problem_keys)
    else:
        names = [key for key in problem_keys if not key.endswith(("digest", "hash"))]
        told = telling(runs, names, runs["problem"].tolist(), asked)
        if told is None:
            what = ", ".join(differing(runs, problem_keys)) or "the problem hash alone"
            raise UserError(
                "these runs are not of one problem and no setting tells them apart "
                f"(what differs: {what}): their data or code changed between them. "
                "Give folders that belong together"
            )
        keys = told
    settings = variant_settings(runs, keys, lines, within, problem_keys)
    runs["setting"] = [tuple(setting.values()) for setting in settings]
    runs["panel"] = list(zip(*(runs[key] for key in keys), strict=True)) or [()] * len(runs)
    several = len(runs["optimizer"].unique()) > 1
    parts = runs.assign(setting=runs["setting"].map(str), panel=runs["panel"].map(str))
    counts = parts.drop_duplicates(["panel", "optimizer", "setting"]).groupby("panel").size()
    crowded = counts.max() > MAX_LINES and any(settings)
    sequential = lines is not None or crowded or (not several and any(settings))
    if (lines or crowded) and several and "optimizer" not in keys:
        keys = [*keys, "optimizer"]
        runs["panel"] = list(zip(*(runs[key] for key in keys), strict=True))
    runs["variant"] = [
        label(name, setting) for name, setting in zip(runs["optimizer"], settings, strict=True)
    ]
    named = "optimizer" not in keys and not (lines and not several)
    runs["series"] = [
        label(name if named or not setting else "", setting)
        for name, setting in zip(runs["optimizer"], settings, strict=True)
    ]
    if (count := len(set(map(str, runs["panel"])))) > MAX_PANELS:
        raise UserError(
            f"{count} panels (by {', '.join(keys)}) do not fit one figure, {MAX_PANELS} do: "
            "choose the panels with --facet KEY [KEY], or some of the runs with --where KEY=VALUE"
        )
    return Layout(runs, keys, bool(sequential))


def label(name: str, setting: Mapping[str, Any]) -> str:
    text = ", ".join(f"{short(key)}={show(value)}" for key, value in setting.items())
    return f"{name} {text}".strip()


def is_variant(key: str) -> bool:
    """Whether a config key belongs to the optimizer's side of a run."""
    return key == "decay_biases_and_norms" or (
        key.startswith(("optimizer.", "schedule.")) and key != "optimizer.name"
    )


def check_panels(runs: pd.DataFrame, keys: Sequence[str], problem_keys: Sequence[str]) -> None:
    for values, group in runs.groupby(list(keys), dropna=False, sort=False):
        if len(group["problem"].unique()) > 1:
            title = ", ".join(f"{k} = {show(v)}" for k, v in zip(keys, values, strict=True))
            what = ", ".join(differing(group, problem_keys)) or "the problem hash alone"
            raise UserError(
                f"the panel {title} would mix runs of different problems (what differs: {what}): "
                "add a key to --facet, make it the lines with --lines KEY, or choose some of the "
                "runs with --where KEY=VALUE"
            )


def variant_settings(
    runs: pd.DataFrame,
    facet: Sequence[str],
    lines: str | None,
    within: Sequence[str],
    problem_keys: Sequence[str],
) -> list[dict[str, Any]]:
    """For each run the settings that tell its series from others of the same optimizer."""
    fixed = {*facet, *within, lines, "optimizer"}
    variant = [key for key in map(str, runs) if is_variant(key) and key not in problem_keys]
    known = {*IDENTITY, *problem_keys}
    other = [key for key in map(str, runs) if not is_variant(key) and key not in known]
    settings: list[dict[str, Any]] = [{} for _ in range(len(runs))]
    for name, group in runs.groupby("optimizer", sort=False):
        free = [key for key in variant if key not in fixed]
        identity = list(group[free].map(str).itertuples(index=False, name=None))
        chosen = [lines] if lines else []
        chosen += telling(group, free, identity) or []
        apart = [key for key in [*facet, *within, *chosen, "problem", "seed"] if key in runs]
        if group[apart].map(str).duplicated().any():
            # one seed twice: another key of the config must be what differs
            target = group["run_id"].tolist()
            extra = telling(group, [k for k in other if k not in fixed], target, apart)
            if extra is None:
                twice = group[group[apart].map(str).duplicated(keep=False)]["run"]
                raise UserError(
                    f"runs of {name} with the same seed and settings cannot be told apart: "
                    f"{', '.join(twice.head(4))}. Give folders that belong together"
                )
            chosen += extra
        for index, values in zip(group.index, group[chosen].to_numpy(), strict=True):
            settings[index] = dict(zip(chosen, values, strict=True))
    return settings


# ---------------------------------------------------------------------------- final values


def worst(column: str) -> float:
    """What a diverged run counts as: the worst value, so that no one averages over survivors."""
    if "accuracy" in column:
        return -math.inf
    return math.inf if "loss" in column else math.nan


def median(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """`np.median` where infinities (diverged runs) and overflow are no reason for a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.median(values, axis=axis))


def final_values(table: pd.DataFrame, column: str) -> pd.Series:
    """The last logged value of each run (index: run); the worst value for a diverged run or a
    NaN at the end; NaN where the run never logged the column (it has no such split)."""
    by_run = table.groupby("run", observed=True, sort=False)
    last = table[~table["run"].duplicated(keep="last")].set_index("run")
    last.index = last.index.astype(object)
    logged = by_run[column].count().reindex(last.index) > 0
    bad = (last["status"] == "diverged") | last[column].isna()
    return last[column].where(~bad, worst(column)).where(logged)


def summary(
    table: pd.DataFrame,
    y: str = "train_loss",
    facet: Sequence[str] | None = None,
    lines: str | None = None,
) -> pd.DataFrame:
    """Final values per panel and series, best first by the median of `y`, diverged ones last.

    Columns: the facet keys, optimizer, variant (name and settings), seeds (n), diverged (n),
    then median, min and max over all the seeds of each final value, and the median
    seconds_per_epoch. Accuracies are fractions. A diverged run counts as inf in a loss and -inf
    in an accuracy; NaN: never logged.
    """
    if y not in measured_columns(table):
        raise UserError(f"no logged column {y!r}; there are: {', '.join(measured_columns(table))}")
    plan = layout(table, facet, lines)
    runs = plan.runs.set_index("run")
    columns = list(dict.fromkeys([y, "train_loss", "val_accuracy", "test_accuracy"]))
    finals = {name: final_values(table, name) for name in columns if name in table}
    by_run = table.groupby("run", observed=True, sort=False)
    ends = by_run[["seconds", "epoch"]].last()
    speed = (ends["seconds"] / ends["epoch"].where(ends["epoch"] > 0)).reindex(runs.index)
    # panels by optimizer are for the eye: here its variants are ranked against the others
    facets = [key for key in plan.facet if key != "optimizer"]
    groups: dict[tuple[str, ...], tuple[tuple[Any, ...], str, list[str]]] = {}
    for run, row in runs.iterrows():
        panel = tuple(row[facets])
        key = (*map(show, panel), row["optimizer"], row["variant"])
        groups.setdefault(key, (panel, row["variant"], []))[2].append(str(run))
    lines_out = []
    for panel, variant, members in groups.values():
        line: dict[str, Any] = dict(zip(facets, panel, strict=True))
        line |= {"optimizer": runs.loc[members[0], "optimizer"], "variant": variant}
        line["seeds"] = len(members)
        line["diverged"] = int((runs.loc[members, "status"] == "diverged").sum())
        for column, values in finals.items():
            part = values.loc[members].to_numpy(dtype=float)
            for word, function in (("median", median), ("min", np.min), ("max", np.max)):
                line[f"{column}_{word}"] = float(function(part))
        line["seconds_per_epoch"] = float(np.median(speed.loc[members]))
        best = line[f"{y}_median"]
        best = math.inf if math.isnan(best) else -best if "accuracy" in y else best
        rank = (best, line["diverged"] / line["seeds"], variant)
        lines_out.append((([order(v) for v in panel], *rank), line))
    return pd.DataFrame([line for _, line in sorted(lines_out, key=lambda item: item[0])])


def to_markdown(frame: pd.DataFrame) -> str:
    """A summary as a Markdown table: "median [min, max]", accuracies in per cent."""
    stems = [str(name).removesuffix("_median") for name in frame if str(name).endswith("_median")]
    spread = [f"{stem}_{word}" for stem in stems for word in ("median", "min", "max")]
    skip = {*spread, "optimizer"} if "variant" in frame else set(spread)
    plain = [str(name) for name in frame if name not in skip]
    heads = [name for name in plain if name != "seconds_per_epoch"]
    heads = [*heads, *stems, *(name for name in plain if name == "seconds_per_epoch")]
    titles = [f"final {h.replace('_', ' ')}" if h in stems else h.replace("_", " ") for h in heads]
    titles = [f"{title} (%)" if "accuracy" in title else title for title in titles]
    titles = ["optimizer" if title == "variant" else title for title in titles]
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
    for _, row in frame.iterrows():
        cells = []
        for name in heads:
            if name in stems:
                spreads = [row[f"{name}_{word}"] for word in ("median", "min", "max")]
                cells.append(cell(spreads, row, name))
            elif isinstance(row[name], float) and name == "seconds_per_epoch":
                cells.append(number(row[name]))
            else:
                cells.append(show(row[name]).replace("|", "\\|"))
        lines.append("| " + " | ".join(cells) + " |")
    low, high = int(frame["seeds"].min()), int(frame["seeds"].max())
    seeds = f"{low}" if low == high else f"{low} to {high}"
    note = f"Final values: median [minimum, maximum] over n = {seeds} seed{'s'[: high > 1]}."
    if frame["diverged"].any():
        note += " A diverged run counts as the worst value, it is never left out."
    return "\n".join([*lines, "", note, ""])


def cell(values: Sequence[float], row: pd.Series, name: str) -> str:
    """One cell, as in "median [min, max]"; a diverged end of the spread is called so."""
    if math.isnan(values[0]):
        return "n/a"  # no such split
    percent = "accuracy" in name
    texts = [
        "diverged" if not math.isfinite(v) else f"{100 * v:.2f}" if percent else number(v)
        for v in values
    ]
    if row["seeds"] == 1 or len(set(texts)) == 1:
        return texts[0]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def number(value: float) -> str:
    """Four significant digits, without an exponent where that is readable."""
    if not math.isfinite(value):
        return "n/a"
    return f"{value:#.4g}".removesuffix(".") if 1e-3 <= abs(value) < 1e4 else f"{value:.3e}"
