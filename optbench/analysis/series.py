"""Assign runs to panels of one problem, and to series that differ by seeds only."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.columns import (
    differing,
    distinguishing_keys,
    is_variant,
    measured_columns,
    panel_key,
    problem_text,
    resolve,
    short_name,
)
from optbench.common.errors import UserError
from optbench.common.text import show, sort_key
from optbench.formats.run import RUN_COLUMNS

MAX_LINES = 10  # of one panel; more cannot be told apart


class Layout(NamedTuple):
    """The panel and the series of each run.

    A series is a pair (optimizer, setting). Its unique name is the variant.
    """

    runs: pd.DataFrame  # a line per run; adds "panel", "keys" and "setting" (their values),
    # "variant" (name and setting) and "series" (the label in its panel)
    facet: list[str]  # keys whose values make up "panel"
    sequential: bool  # lines differ by a setting rather than by optimizer

    @property
    def owners(self) -> dict[str, str]:
        """Return the optimizer of each variant."""
        return dict(zip(self.runs["variant"], self.runs["optimizer"].map(str), strict=True))

    @property
    def ordered(self) -> bool:
        """Return whether the series differ in a number, and so have an order."""
        settings = self.runs["setting"].drop_duplicates()
        return any(sort_key(value)[0] == 0 for setting in settings for value in setting)

    @property
    def problems(self) -> "pd.Series[str]":
        """Return the panel of each run in words, without the optimizer."""
        keys = [key for key in self.facet if key != "optimizer"]
        texts = [problem_text(keys, row) for row in self.runs[keys].to_numpy()]
        return pd.Series(texts, self.runs.index, dtype=object)

    @property
    def panels(self) -> list[pd.DataFrame]:
        """Return the runs of each panel, in the order of its values."""
        # by `panel_key`, because an unset value (NaN) would not equal itself
        keys = [tuple(map(panel_key, panel)) for panel in self.runs["panel"]]
        return [self.runs[[key == place for key in keys]] for place in sorted(set(keys))]

    def series_of(self, runs: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
        """Return (optimizer, label, runs) of a panel's series, by name and setting."""
        rank = {
            (name, text): tuple(map(sort_key, setting))
            for name, text, setting in runs[["optimizer", "series", "setting"]].to_numpy()
        }
        ordered = sorted(rank, key=lambda key: (key[0], rank[key], key[1]))
        return [
            (name, text, runs[(runs["optimizer"] == name) & (runs["series"] == text)])
            for name, text in ordered
        ]


def assign_series(
    table: pd.DataFrame,
    facet: Sequence[str] | None = None,
    lines: str | None = None,
    ignore: Sequence[str] = (),
) -> Layout:
    """Return the panels and series of a figure.

    A series is one optimizer with one setting on one problem; only seeds (and the keys in `ignore`)
    differ inside it. facet: keys of the panels, by default those in which the problems differ;
    "optimizer" joins them if one panel would be too full. lines: the key that makes the series.
    Raises UserError if a panel would mix problems or hold runs that cannot be told apart, and if
    folders hold different problems and no facet was asked for.
    """
    runs = one_line_per_run(table)
    lines = resolve(table, lines) if lines else None
    lines = None if lines == "optimizer" else lines
    problem_keys = problem_keys_of(table, runs)
    asked = [lines] if lines and lines in problem_keys else []
    if facet:
        facet = [facet] if isinstance(facet, str) else facet
        keys = list(dict.fromkeys(resolve(table, key) for key in facet))
        check_panels(runs, [*keys, *asked], problem_keys)
    else:
        keys = problem_panels(runs, problem_keys, asked)
        if keys and table.attrs.get("mixed"):
            raise UserError(
                "the folders hold runs of different problems (what differs: "
                f"{what_differs(runs, problem_keys)}), which are not compared unasked: ask for "
                f"panels with --facet {' '.join(keys)} (facet={keys} in Python), choose some of "
                "the runs with --where KEY=VALUE, or give folders that belong together"
            )
    # a tuned study has each optimizer at its best and at its default setting
    if "phase" in runs and "phase" not in keys and len(runs["phase"].map(str).unique()) > 1:
        keys = [*keys, "phase"]
    settings = variant_settings(runs, keys, lines, ignore, problem_keys)
    runs["keys"] = [tuple(setting) for setting in settings]
    runs["setting"] = [tuple(setting.values()) for setting in settings]
    several = len(runs["optimizer"].unique()) > 1
    # as text, or an unset value (NaN) would not equal itself
    parts = zip(panel_values(runs, keys), runs["optimizer"], runs["setting"], strict=True)
    series = {(str(panel), name, str(setting)) for panel, name, setting in parts}
    fullest = max(Counter(panel for panel, *_ in series).values())
    crowded = any(settings) and fullest > MAX_LINES
    if several and (lines or crowded) and "optimizer" not in keys:
        keys = [*keys, "optimizer"]
    runs["panel"] = panel_values(runs, keys)
    named = "optimizer" not in keys and several
    both = list(zip(runs["optimizer"].map(str), settings, strict=True))
    runs["variant"] = labels_of(both)
    runs["series"] = runs["variant"] if named else labels_of([("" if s else n, s) for n, s in both])
    sequential = bool(lines) or crowded or (not several and any(settings))
    return Layout(runs, keys, sequential)


def problem_keys_of(table: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """Return the keys of the problem. runs: a line per run of the table."""
    return table.attrs.get("problem_keys") or [
        key for key in map(str, runs) if key not in RUN_COLUMNS and not is_variant(key)
    ]


def one_line_per_run(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that do not change within a run, a row per run."""
    measured = measured_columns(table)
    keys = [name for name in table.columns if name not in measured]
    # by positions, as dropping duplicates over all columns is slow
    first = np.flatnonzero(~table["run"].duplicated().to_numpy())
    runs = table[keys].iloc[first].astype(object).reset_index(drop=True)
    return runs.copy()  # in one block: pandas is slow to add columns to many blocks, and warns


def panel_values(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the panel of each run: its values of the keys."""
    return list(zip(*(runs[key] for key in keys), strict=True)) or [()] * len(runs)


def labels_of(series: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return the name of each (optimizer, setting), as in "adam lr=0.01, eps=unset".

    Equal names get quotation marks if they hold a blank, and if still equal all digits of numbers.
    """
    keys = [(name, tuple((key, str(v)) for key, v in setting.items())) for name, setting in series]
    found = dict(zip(keys, series, strict=True))
    texts = {key: label_of(*pair) for key, pair in found.items()}
    for quote, digits in ((True, False), (True, True)):
        many = Counter(texts.values())
        texts |= {
            key: label_of(*found[key], quote, digits)
            for key, text in texts.items()
            if many[text] > 1
        }
    return [texts[key] for key in keys]


def label_of(
    name: str, setting: Mapping[str, Any], quote: bool = False, digits: bool = False
) -> str:
    """Return the name of one series."""
    text = ", ".join(
        f"{short_name(key)}={value if digits else show(value)}" for key, value in setting.items()
    )
    return f"{repr(name) if quote and ' ' in name else name} {text}".strip()


def variant_keys(runs: pd.DataFrame) -> list[str]:
    """Return the keys of the optimizer's side in which the runs differ."""
    return [key for key in differing(runs, map(str, runs)) if is_variant(key)]


def problem_panels(
    runs: pd.DataFrame, problem_keys: Sequence[str], asked: Sequence[str]
) -> list[str]:
    """Return the keys that, beside the ones `asked` for, tell the problems apart."""
    names = [key for key in problem_keys if not key.endswith(("digest", "hash"))]
    keys = distinguishing_keys(runs, names, runs["problem"].tolist(), asked)
    if keys is None:
        raise UserError(
            "these runs are not of one problem and no setting tells them apart "
            f"(what differs: {what_differs(runs, problem_keys)}): their data or code changed "
            "between them. Give folders that belong together"
        )
    return keys


def check_panels(runs: pd.DataFrame, keys: Sequence[str], problem_keys: Sequence[str]) -> None:
    """Raise UserError if the panels by `keys` would mix problems.

    Keys of the optimizer's side do not count: such runs would still be ranked against each other.
    """
    keys = [
        key for key in keys if not is_variant(key) and (key == "problem" or key not in RUN_COLUMNS)
    ]
    groups = runs.groupby(keys, dropna=False, sort=False) if keys else [((), runs)]
    for values, group in groups:
        if len(group["problem"].unique()) > 1:
            title = ", ".join(f"{k} = {show(v)}" for k, v in zip(keys, values, strict=True))
            where = f"the panel {title}" if title else "one comparison"
            raise UserError(
                f"{where} would mix runs of different problems (what differs: "
                f"{what_differs(group, problem_keys)}): add a key to --facet, make it the lines "
                "with --lines KEY, or choose some of the runs with --where KEY=VALUE"
            )


def what_differs(runs: pd.DataFrame, problem_keys: Sequence[str]) -> str:
    """Return the keys in which the runs' problems differ, for a message."""
    return ", ".join(differing(runs, problem_keys)) or "the problem hash alone"


def variant_settings(
    runs: pd.DataFrame,
    facet: Sequence[str],
    lines: str | None,
    ignore: Sequence[str],
    problem_keys: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the settings that tell each run's series from its optimizer's others."""
    fixed = {*facet, *ignore, lines, "optimizer"}
    keys = [key for key in map(str, runs) if key not in {*fixed, *problem_keys}]
    free = [key for key in keys if is_variant(key)]
    other = [key for key in keys if not is_variant(key) and key not in {*RUN_COLUMNS} - {"device"}]
    settings: list[dict[str, Any]] = [{} for _ in range(len(runs))]
    for name, group in runs.groupby("optimizer", sort=False):
        identity = list(group[free].map(str).itertuples(index=False, name=None))
        chosen = [lines] if lines else []
        # the panel names its keys, so the label need not
        chosen += (
            distinguishing_keys(group, free, identity, [key for key in facet if key in runs]) or []
        )
        apart = [key for key in [*facet, *ignore, *chosen, "problem", "seed"] if key in runs]
        if group[apart].map(str).duplicated().any():
            # with one seed twice, another config key must differ
            extra = distinguishing_keys(group, other, group["run_id"].tolist(), apart)
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
