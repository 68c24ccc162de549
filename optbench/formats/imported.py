"""Write runs that optbench did not train as run folders.

What the table does not say stays unknown: no time where there is no column of seconds, no engine,
no device. The hash of a problem is that of its name, so that two problems are the same by the
user's word alone. Runs are paired only where the user says that a seed means the same initial
weights and batches; otherwise no two runs of a problem get the same seed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench import __version__
from optbench.common.errors import UserError
from optbench.common.files import replace_text
from optbench.common.text import count, is_number
from optbench.formats.job_list import FIGURE_FILE
from optbench.formats.keys import GROUPS
from optbench.formats.other_tables import (
    CLOCKS,
    FILE_COLUMN,
    as_column_of_numbers,
    check_texts,
    chosen_columns,
    is_metric,
    not_finite,
)
from optbench.formats.record import RunRecord
from optbench.formats.run import COLUMNS, FORMAT, RUN_COLUMNS, write_sealed


class Imported(NamedTuple):
    """One run of a table: its record, and the text of its `epochs.csv`."""

    record: RunRecord
    csv: str

    @property
    def folder(self) -> str:
        """Return the name of the run's folder."""
        plain = "".join(c if c.isalnum() or c in "._+-" else "_" for c in self.record["name"])
        return f"{plain.lstrip('.')[:60]}-seed{self.record['seed']}-{self.record['run_id']}"


def runs_of(
    table: pd.DataFrame,
    columns: Mapping[str, str],
    problem: Sequence[str] = (),
    paired: bool = False,
    source: str = "",
) -> list[Imported]:
    """Return the runs of a table of texts.

    columns: the table's column for each of our names. problem: the columns that tell problems
    apart. paired: whether runs of one problem and seed belong together. source: the table's name.
    Raises UserError for columns that the table lacks, cells that are no numbers, and rows that
    cannot be told apart.
    """
    columns = chosen_columns(table, columns, problem)
    settings = [name for name in columns if "." in name]
    keys = [*problem, columns["optimizer"], *(columns[name] for name in settings)]
    check_texts(table, [*problem, columns["optimizer"]])
    values = pd.DataFrame(
        {
            name: as_column_of_numbers(table, theirs)
            for name, theirs in columns.items()
            if name in CLOCKS or is_metric(name)
        }
    )
    lost = {name: not_finite(table, columns[str(name)]) for name in values if is_metric(str(name))}
    clocks = [name for name in ("step", "epoch") if name in values]
    seeds = seeds_of(table, columns, keys, clocks)
    if paired and "seed" not in columns:
        raise UserError("--paired: runs are paired by their seed: name its column, seed=NAME")
    known_seeds = as_whole_numbers(list(dict.fromkeys(seeds)))
    found = []
    grouped = table.groupby([*keys, seeds], sort=False).groups
    numbers: dict[tuple[str, ...], int] = {}
    for key, index in grouped.items():
        *texts, seed = key if isinstance(key, tuple) else (key,)
        part = values.loc[index]
        where = tuple(texts[: len(problem)])
        numbers[where] = numbers.get(where, -1) + 1
        name = texts[len(problem)]
        record = {
            "name": name.strip(),
            "seed": known_seeds[str(seed)] if paired else numbers[where],
            "config": config_of(dict(zip(settings, texts[len(problem) + 1 :], strict=True)), name),
            "problem": problem_of(dict(zip(problem, where, strict=True))),
            "imported": {"from": source, "seed": str(seed), "paired": paired},
        }
        broken = np.logical_or.reduce([lost[str(m)].loc[index].to_numpy() for m in lost])
        found.append(as_run(record, in_order(part, clocks, name), broken))
    check_pairs(found, paired)
    return found


def seeds_of(
    table: pd.DataFrame, columns: Mapping[str, str], keys: Sequence[str], clocks: Sequence[str]
) -> "pd.Series[str]":
    """Return what tells the runs of one optimizer apart: a seed, a file, or a row."""
    if "seed" in columns:
        check_texts(table, [columns["seed"]])
        return table[columns["seed"]].str.strip().rename("seed of the run")
    if FILE_COLUMN in table:
        return table[FILE_COLUMN].rename("seed of the run")
    if clocks:
        return pd.Series("0", table.index, name="seed of the run")
    numbers = table.groupby(list(keys), sort=False).cumcount()
    return numbers.astype(str).rename("seed of the run")


def as_whole_numbers(texts: Sequence[str]) -> dict[str, int]:
    """Return a number for each seed: its own, or its place unless all are whole."""
    if all(text.isdecimal() for text in texts):
        return {text: int(text) for text in texts}
    return {text: place for place, text in enumerate(texts)}


def config_of(settings: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return the configuration of a run as far as the table has it."""
    config: dict[str, Any] = {"optimizer": {"name": name.strip()}, "epochs": None, "steps": None}
    for key, text in settings.items():
        group, _, inner = key.partition(".")
        config.setdefault(group, {})[inner] = as_value(text)
    return config


def problem_of(values: Mapping[str, str]) -> dict[str, Any]:
    """Return what tells a problem from others, by column.

    A value is {"name": value} in a column that is called like a group such as dataset, or like one
    of optbench's own columns.
    """
    named = {*GROUPS, *RUN_COLUMNS, *COLUMNS["epochs"]}
    return {
        name: {"name": text.strip()} if name in named else as_value(text)
        for name, text in values.items()
    }


def as_value(text: str) -> float | int | str | None:
    """Return a cell as a number if it is a finite one, as None if it is empty."""
    text = text.strip()
    if not text:
        return None
    if not is_number(text) or not np.isfinite(float(text)):
        return text
    value = float(text)
    return int(value) if value == int(value) and "." not in text and "e" not in text else value


def in_order(part: pd.DataFrame, clocks: Sequence[str], name: str) -> pd.DataFrame:
    """Return a run's rows by its steps. Raise UserError for two rows of one moment.

    Without steps the rows are counted, from 0 if the epochs begin at 0. The last row gets the last
    logged value of each metric, which counts as the final one.
    """
    if not clocks and len(part) > 1:
        raise UserError(
            f"{count(len(part), 'row')} of {name} have the same seed and problem: name the column "
            f"of the step or the epoch, step=NAME, or of the seed, seed=NAME"
        )
    part = part.sort_values(list(clocks[:1]), kind="stable") if clocks else part
    for clock in clocks[:1]:
        if (
            part[clock].isna().any()
            or not np.isfinite(part[clock]).all()
            or (part[clock] < 0).any()
        ):
            raise UserError(f"{name}: each row needs a {clock} of at least 0")
        if part[clock].duplicated().any():
            twice = part[clock][part[clock].duplicated()].iloc[0]
            raise UserError(
                f"two rows of one run of {name} have the {clock} {twice:g}: name the columns that "
                f"tell its runs apart, with seed=NAME, settings such as optimizer.lr=NAME, or "
                f"--problem NAME"
            )
    if "step" not in part:
        from_zero = "epoch" in part and part["epoch"].iloc[0] == 0
        part = part.assign(step=np.arange(len(part)) + (0 if from_zero else 1))
    if (part["step"] != part["step"].round()).any():
        raise UserError(f"{name}: a step is a whole number")
    metrics = [str(column) for column in part if is_metric(str(column))]
    part = part.copy()
    for metric in metrics:
        logged = part[metric].dropna()
        if len(logged):
            part.loc[part.index[-1], metric] = logged.iloc[-1]
    return part


def as_run(record: Mapping[str, Any], part: pd.DataFrame, broken: np.ndarray) -> Imported:
    """Return a run with its hashes.

    broken: which rows hold a result that is not finite.
    """
    header = [*COLUMNS["epochs"], *(str(name) for name in part if name not in COLUMNS["epochs"])]
    lines = [",".join(header)]
    for row in part.to_dict("records"):
        cells = [row.get(name, np.nan) for name in header]
        lines.append(",".join("" if pd.isna(v) else repr(float(v)) for v in cells))
    csv = "\n".join(lines) + "\n"
    problem = digest({"imported": record["problem"]})
    diverged = bool(broken.any())
    content = {key: value for key, value in record.items() if key != "imported"}
    told: Any = {
        "format": FORMAT,
        "run_id": digest({**content, "paired": record["imported"]["paired"], "csv": csv}),
        "problem_hash": problem,
        **record,
        "status": "diverged" if diverged else "completed",
        "error": None,
        "diverged_at_step": int(part["step"].iloc[-1]) if diverged else None,
        "versions": {"optbench": __version__},
        "summary": {"rows": {"epochs": len(part)}},
        "csv_sha256": {"epochs": hashlib.sha256(csv.encode()).hexdigest()},
    }
    told["config"] = {**record["config"], **record["problem"], "seed": record["seed"]}
    return Imported(told, csv)


def digest(value: object) -> str:
    """Return twelve hex digits of a value's content."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def check_pairs(found: Sequence[Imported], paired: bool) -> None:
    """Raise UserError if runs are paired, but no two optimizers share a seed."""
    if not paired:
        return
    by_seed: dict[tuple[str, int], set[str]] = {}
    for run in found:
        key = (run.record["problem_hash"], run.record["seed"])
        by_seed.setdefault(key, set()).add(json.dumps(run.record["config"]["optimizer"]))
    if all(len(series) < 2 for series in by_seed.values()):
        raise UserError(
            "--paired: no two optimizers share a seed on a problem, so there is no pair. Leave "
            "--paired out: the runs are then compared by the unpaired test"
        )


def figure_of(columns: Mapping[str, str], found: Sequence[Imported]) -> dict[str, Any]:
    """Return the figure's options: the first named result against epoch or step."""
    header = found[0].csv.partition("\n")[0].split(",")
    named = [name for name in columns if is_metric(name)]
    logged = [name for name in header if is_metric(name)]
    whole = [name for name in logged if has_values(found, name)]
    y = [*named, *whole, *(name for name in logged if has_values(found, name, all_rows=False))][0]
    x = "epoch" if has_values(found, "epoch") else "step"
    return {"y": y, "x": x, "facet": None, "lines": None, "log": True}


def has_values(found: Sequence[Imported], name: str, *, all_rows: bool = True) -> bool:
    """Return whether a column has a value in every row of every run, or else in any."""
    place = found[0].csv.partition("\n")[0].split(",").index(name)
    filled = [bool(line.split(",")[place]) for run in found for line in run.csv.splitlines()[1:]]
    return all(filled) if all_rows else any(filled)


def write_runs(out: Path, found: Sequence[Imported], figure: Mapping[str, Any]) -> None:
    """Write the runs' folders and the figure's options into the folder `out`.

    The same import again changes nothing. Raises UserError for a folder with other files.
    """
    names = {run.folder: run for run in found}
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder with -o DIR")
    if others := list(foreign(out, names)):
        raise UserError(
            f"{out} holds something else than this import ({', '.join(others[:3])}), such as the "
            f"same table without --paired: choose another folder with -o DIR, or delete this one"
        )
    try:
        for name, run in names.items():
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            replace_text(folder / "epochs.csv", run.csv)
            write_sealed(folder / "run.json", run.record)
        write_sealed(out / FIGURE_FILE, figure)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another -o DIR") from None


def foreign(out: Path, names: Mapping[str, Imported]) -> Iterator[str]:
    """Yield the files in a folder that come neither from this import nor its figures."""
    if not out.is_dir():
        return
    imported = (out / FIGURE_FILE).exists()
    for path in sorted(out.iterdir()):
        known = path.name in names if path.is_dir() else imported
        if not known and not path.name.startswith("."):
            yield path.name
