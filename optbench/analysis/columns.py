"""Config keys of a table: name, show, sort and filter by them."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from optbench.common.errors import UserError
from optbench.common.names import nearest
from optbench.common.text import is_number, show, sort_key
from optbench.formats.keys import GROUPS, SERIES_KEYS
from optbench.formats.run import COLUMNS, COST_COLUMNS


def short_name(key: str) -> str:
    """Return a key as in labels: optimizer.lr -> lr, initializer.name -> initializer."""
    return key.removeprefix("optimizer.").removesuffix(".name")


def problem_text(keys: Sequence[str], values: Iterable[object]) -> str:
    """Return a problem's distinguishing keys and values, as in "batch_size=32, tuned"."""
    return ", ".join(
        show(value) if key == "phase" else f"{short_name(key)}={show(value)}"
        for key, value in zip(keys, values, strict=True)
    )


def panel_key(value: object) -> tuple[int, float, str]:
    """Return the sort key of a panel's value; the phase tuned sorts before default."""
    return sort_key({"tuned": "0", "default": "1"}.get(str(value), value))


def measured_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns of the CSV files; the others describe the run."""
    default = [*COLUMNS["epochs"], "lr", *COST_COLUMNS]
    known = table.attrs.get("measured") or default  # pandas may drop attrs
    return [name for name in known if name in table]


def logged_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns with a value per row; a step's costs have one per run."""
    return [name for name in measured_columns(table) if name not in COST_COLUMNS]


def resolve(table: pd.DataFrame, key: str) -> str:
    """Return the column that `key` names; "initializer" means "initializer.name".

    Raises UserError with the nearest names for an unknown key.
    """
    measured = measured_columns(table)
    keys = [name for name in table.columns if name not in measured]
    if key == "optimizer.name":
        key = "optimizer"  # the same value, in every table
    for candidate in (key, f"{key}.name"):
        if candidate in keys:
            return candidate
    near = [name for name in keys if name.endswith(f".{key}")]
    near += [name for name in nearest(key, keys, most=5) if name not in near]
    hint = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(keys)}"
    raise UserError(f"no config key {key!r} in these runs; {hint}")


def filter_runs(table: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """Return the rows that meet every "KEY=VALUE"; values of one key are alternatives.

    Raises UserError for an unknown key, and for a value that no run has.
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals:
            raise UserError(f"cannot read the filter {condition!r}; write KEY=VALUE")
        wanted.setdefault(resolve(table, key.strip()), []).append(value.strip())
    for key, texts in wanted.items():
        present = {value: show(value) for value in table[key].unique()}
        keep = []
        for text in texts:
            # a number as it is stored, or else as it is shown, with six digits
            given = float(text) if is_number(text) else None
            found = [value for value in present if value == given and not isinstance(value, bool)]
            found = found or [v for v, shown in present.items() if matches(shown, text)]
            keep += found
            if not found:
                options = ", ".join(sorted(set(present.values())))
                several = "; write KEY=VALUE for each of several values" if "," in text else ""
                raise UserError(f"no run with {key} = {text}; there is: {options}{several}")
        table = table[table[key].isin(keep)]
    return table


def rows_of(table: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the runs that the other table has."""
    return table[table["run"].isin(set(other["run"]))]


def matches(shown: str, text: str) -> bool:
    """Return whether a text means the value shown: 1e-3 is 0.001, True is true."""
    if shown == text or shown == text.lower() in ("true", "false", "null"):
        return True
    return is_number(shown) and is_number(text) and float(shown) == float(text)


def is_variant(key: str) -> bool:
    """Return whether a config key belongs to the optimizer's side of a run."""
    return key.partition(".")[0] in SERIES_KEYS and key not in (*GROUPS, "optimizer.name")


def differing(runs: pd.DataFrame, keys: Iterable[str]) -> list[str]:
    """Return the keys of which the runs have more than one value."""
    return [key for key in keys if len(runs[key].unique()) > 1]


def distinguishing_keys(
    runs: pd.DataFrame, keys: Iterable[str], target: Sequence[Any], given: Sequence[str] = ()
) -> list[str] | None:
    """Return a small set of keys that, beside the `given` ones, tells targets apart.

    Runs with the same values of all these keys have the same `target`. No key of the set is
    redundant, but a smaller set may exist: the search is greedy. It tries names and learning rates
    first, classes last. None if no set of keys does.
    """
    useful = [key for key in differing(runs, keys) if key not in given]
    codes = {
        key: pd.factorize(runs[key], use_na_sentinel=False)[0].tolist() for key in [*given, *useful]
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
    for key in sorted(useful, key=preference):
        if explained(chosen):
            break
        if classes([*chosen, key]) > classes(chosen):
            chosen.append(key)
    for key in chosen[::-1]:  # a later key may make an earlier one redundant
        rest = [other for other in chosen if other != key]
        if explained(rest):
            chosen = rest
    return chosen if explained(chosen) else None
