"""Read tables of other programs, CSV or Parquet, as one frame of texts.

Every cell is read as text first, so that "" (not logged) and "nan" (not finite) stay apart.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from optbench.common.errors import UserError, is_text
from optbench.common.names import did_you_mean, proposing
from optbench.formats.keys import GROUPS
from optbench.formats.run import COLUMNS

PARQUET = (".parquet", ".pq")
SEPARATORS = ",;\t"  # of a CSV; the one that its header has most often
FILE_COLUMN = "file"  # of a table that was joined from several files
CLOCKS = ("step", "epoch", "seconds")
METRICS = tuple(
    name for name in COLUMNS["epochs"] if name not in CLOCKS and name != "total_seconds"
)
METRIC_WORDS = ("loss", "accuracy", "score")  # in the name of any other metric
NUMBERS = (*CLOCKS, *METRICS)


def read_tables(paths: Sequence[Path], pattern: str | None = None) -> pd.DataFrame:
    """Return the rows of all files in one table of texts.

    pattern: names columns in the files' names, as in "{optimizer}-seed{seed}.csv"; the column
    `file` holds each row's file where there are several. Raises UserError for a file that cannot
    be read, and for a name that does not fit the pattern.
    """
    frames = []
    for path in paths:
        frame = read_table(path)
        for name, value in named_parts(path, pattern).items():
            if name in frame:
                raise UserError(f"{path} has a column {name!r} itself: leave it out of --pattern")
            frame[name] = value
        if len(paths) > 1:
            frame[FILE_COLUMN] = str(path)
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True).fillna("")
    if table.empty:
        raise UserError(f"{', '.join(map(str, paths))}: there is no row below the head")
    return table


def read_table(path: Path) -> pd.DataFrame:
    """Return one CSV or Parquet file as texts."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}: give a CSV or Parquet file, or one for each run")
    try:
        if path.suffix.lower() in PARQUET:
            frame = pd.read_parquet(path)
            return frame.astype(object).where(frame.notna(), "").astype(str)
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline()
        separator = max(SEPARATORS, key=header.count)
        frame = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=separator
        )
    except ImportError:
        raise UserError(
            f"{path}: Parquet files need pyarrow, which is not installed: "
            f"pip install 'optbench[parquet]', or save the table as CSV"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # pandas's and pyarrow's errors of form, and wrong encodings
        raise UserError(f"{path} is no table that can be read: {error}") from None
    return frame


def named_parts(path: Path, pattern: str | None) -> dict[str, str]:
    """Return the columns that a file's name holds. Raise UserError unless it fits."""
    if pattern is None:
        return {}
    parts = re.split(r"\{(\w+)\}", pattern)
    if len(parts) < 3 or len(set(parts[1::2])) < len(parts) // 2:
        raise UserError(
            f"--pattern {pattern} names no columns: write each once in braces, as in "
            "'{optimizer}-seed{seed}.csv'"
        )
    text = "".join(
        f"(?P<{part}>.+?)" if place % 2 else re.escape(part) for place, part in enumerate(parts)
    )
    found = re.fullmatch(text, path.name)
    if found is None:
        raise UserError(f"the name of {path} does not fit --pattern {pattern}")
    return found.groupdict()


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """Return the table's column for each of our names: "optimizer=method,seed=rep".

    Raises UserError for another form, and for names that optbench does not know.
    """
    found: dict[str, str] = {}
    for text in [part.strip() for each in texts for part in each.split(",") if part.strip()]:
        ours, equals, theirs = text.partition("=")
        if not equals or not ours or not theirs:
            raise UserError(
                f"cannot read {text!r} in --columns: write OURS=THEIRS, as in optimizer=method"
            )
        if not is_known(ours):
            names = ["optimizer", "seed", *NUMBERS]
            if is_known(theirs):
                raise UserError(f"--columns: write {theirs}={ours}: OURS=THEIRS, optbench's first")
            raise UserError(
                f"--columns: optbench has no column {ours!r}{proposing(ours, names)}There "
                f"are: {', '.join(names)}; any name with {', '.join(METRIC_WORDS)} in it; and "
                f"settings such as optimizer.lr"
            )
        if ours in found:
            raise UserError(f"--columns names {ours} twice: {found[ours]} and {theirs}")
        found[ours] = theirs
    return found


def is_known(name: str) -> bool:
    """Return whether a run can have a column or a setting of this name."""
    if name in ("optimizer", "seed", *NUMBERS) or is_metric(name):
        return True
    group, dot, key = name.partition(".")
    return bool(dot and key) and group in GROUPS


def is_metric(name: str) -> bool:
    """Return whether a name is of a result; see `common.metrics.metric_of`."""
    plain = re.fullmatch(r"\w+", name) is not None
    return plain and any(word in name for word in METRIC_WORDS)


def chosen_columns(
    table: pd.DataFrame, columns: Mapping[str, str], problem: Sequence[str]
) -> dict[str, str]:
    """Return the mapping with our own names where the table has them, and checked.

    Raises UserError for columns that the table lacks, and without an optimizer or a result.
    """
    there = list(map(str, table.columns))
    for name, option in [
        *((theirs, f"--columns {ours}={theirs}") for ours, theirs in columns.items()),
        *((name, f"--problem {name}") for name in problem),
    ]:
        if name not in there:
            raise UserError(
                f"{option}: the table has no column {name!r}{did_you_mean(name, there)}\n"
                f"It has: {', '.join(there)}"
            )
    for name in problem:
        for ours, theirs in columns.items():
            if theirs == name and (ours in ("optimizer", "seed", *CLOCKS) or is_metric(ours)):
                raise UserError(f"--problem {name}: the same column is the {ours} of a run")
    taken = {*columns.values(), *problem}
    own = {
        name: name
        for name in there
        if name in ("optimizer", "seed", *NUMBERS) and name not in {*columns, *taken}
    }
    found = {**columns, **own}
    if "optimizer" not in found:
        raise UserError(
            "no column names the optimizer: say which with --columns optimizer=NAME. The table "
            f"has: {', '.join(there)}"
        )
    if not any(is_metric(name) for name in found):
        raise UserError(
            "no column is a result: say which with --columns, as in val_loss=NAME (small is good), "
            f"test_accuracy=NAME or test_score=NAME (large is good). The table has: "
            f"{', '.join(there)}"
        )
    return found


def as_column_of_numbers(table: pd.DataFrame, name: str) -> "pd.Series[float]":
    """Return a column as numbers, NaN if empty. Raise UserError for other texts."""
    texts = table[name].str.strip()
    numbers = pd.to_numeric(texts.where(texts != ""), errors="coerce").astype(float)
    wrong = numbers.isna() & (texts != "") & ~texts.str.lower().isin(("nan", "+nan", "-nan"))
    for row in table.index[wrong][:1]:
        raise UserError(
            f"the column {name!r} holds {texts[row]!r} in its row {row + 1}, which is no number"
            + (": write a decimal point" if re.fullmatch(r"-?\d+,\d+", texts[row]) else "")
        )
    return numbers


def not_finite(table: pd.DataFrame, name: str) -> "pd.Series[bool]":
    """Return which cells of a column say that the value was not finite: nan or inf."""
    words = table[name].str.strip().str.lower().str.lstrip("+-")
    return words.isin(("nan", "inf", "infinity"))


def check_texts(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise UserError for an empty cell, or one that no file can hold."""
    for name in names:
        texts = table[name].str.strip()
        for row in table.index[(texts == "") | ~texts.map(is_text)][:1]:
            raise UserError(f"the column {name!r} is empty in row {row + 1}, and each run needs it")
