"""Which runs share a panel of a figure, and which a line: panels hold one problem each, and the
runs of one line differ by their seeds only.
"""

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
    problem_text,
    resolve,
    short_name,
)
from optbench.analysis.table import IDENTITY
from optbench.common.errors import UserError
from optbench.common.text import show, sort_key

MAX_LINES = 10  # more than this in one panel cannot be told apart


class Layout(NamedTuple):
    """Which run is drawn where. A series is a pair (optimizer, setting), and its variant names it:
    no two series share a variant, whatever the optimizers are called."""

    runs: pd.DataFrame  # a line per run; adds "panel", "setting" (values), "variant" (name and
    # setting) and "series" (the label in its panel)
    facet: list[str]  # keys whose values make up "panel"
    sequential: bool  # lines differ by a setting rather than by optimizer

    @property
    def owners(self) -> dict[str, str]:
        """The optimizer of each variant."""
        return dict(zip(self.runs["variant"], self.runs["optimizer"].map(str), strict=True))

    @property
    def ordered(self) -> bool:
        """Whether the series differ in a number, by which they are in order."""
        settings = self.runs["setting"].drop_duplicates()
        return any(sort_key(value)[0] == 0 for setting in settings for value in setting)

    @property
    def problems(self) -> "pd.Series[str]":
        """The panel of each run in words, without the optimizer."""
        keys = [key for key in self.facet if key != "optimizer"]
        texts = [problem_text(keys, row) for row in self.runs[keys].to_numpy()]
        return pd.Series(texts, self.runs.index, dtype=object)

    @property
    def panels(self) -> list[pd.DataFrame]:
        """The runs of each panel, in the order of its values."""
        # by `sort_key`, because an unset value (NaN) would not equal itself
        keys = [tuple(map(sort_key, panel)) for panel in self.runs["panel"]]
        return [self.runs[[key == place for key in keys]] for place in sorted(set(keys))]

    def series_of(self, runs: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
        """(optimizer, label, runs) of each series of a panel's runs, by name and setting."""
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
    within: Sequence[str] = (),
) -> Layout:
    """Panels and series of a figure. A series is one optimizer with one setting on one problem;
    only the seeds (and the keys in `within`) differ inside it.

    facet: keys of the panels, by default those in which the problems differ; "optimizer" joins
    them where one panel would be too full. lines: the key that makes the series.
    Raises UserError where a panel would mix problems, or hold runs that cannot be told apart, and
    where runs of several folders are of different problems and no facet was asked for.
    """
    runs = one_line_per_run(table)
    lines = resolve(table, lines) if lines else None
    lines = None if lines == "optimizer" else lines
    problem_keys = table.attrs.get("problem_keys") or [
        key for key in map(str, runs) if key not in IDENTITY and not is_variant(key)
    ]
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
                f"{difference(runs, problem_keys)}), which are not compared unasked: ask for "
                f"panels with --facet {' '.join(keys)} (facet={keys} in Python), choose some of "
                "the runs with --where KEY=VALUE, or give folders that belong together"
            )
    # a tuned study holds each optimizer twice, at its best and at its default setting
    if "phase" in runs and "phase" not in keys and len(runs["phase"].map(str).unique()) > 1:
        keys = [*keys, "phase"]
    settings = variant_settings(runs, keys, lines, within, problem_keys)
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
    runs["variant"] = labels(both)
    runs["series"] = runs["variant"] if named else labels([("" if s else n, s) for n, s in both])
    sequential = bool(lines) or crowded or (not several and any(settings))
    return Layout(runs, keys, sequential)


def one_line_per_run(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that do not change within a run."""
    measured = measured_columns(table)
    keys = [name for name in table.columns if name not in measured]
    # positions first: dropping duplicates over all columns would be slow
    first = np.flatnonzero(~table["run"].duplicated().to_numpy())
    return table[keys].iloc[first].astype(dict.fromkeys(keys, object)).reset_index(drop=True)


def panel_values(runs: pd.DataFrame, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    """The panel of each run: its values of the keys."""
    return list(zip(*(runs[key] for key in keys), strict=True)) or [()] * len(runs)


def labels(series: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The name of each (optimizer, setting), as in "adam lr=0.01, eps=unset".

    Where two of them would have one name, an optimizer's name with a blank stands in quotation
    marks, and if that does not help the numbers have all their digits.
    """
    keys = [(name, tuple((key, str(v)) for key, v in setting.items())) for name, setting in series]
    found = dict(zip(keys, series, strict=True))
    texts = {key: label(*pair) for key, pair in found.items()}
    for quote, digits in ((True, False), (True, True)):
        many = Counter(texts.values())
        texts |= {
            key: label(*found[key], quote, digits) for key, text in texts.items() if many[text] > 1
        }
    return [texts[key] for key in keys]


def label(name: str, setting: Mapping[str, Any], quote: bool = False, digits: bool = False) -> str:
    """The name of one series."""
    text = ", ".join(
        f"{short_name(key)}={value if digits else show(value)}" for key, value in setting.items()
    )
    return f"{repr(name) if quote and ' ' in name else name} {text}".strip()


def variant_keys(runs: pd.DataFrame) -> list[str]:
    """The keys of the optimizer's side in which the runs differ."""
    return [key for key in differing(runs, map(str, runs)) if is_variant(key)]


def problem_panels(
    runs: pd.DataFrame, problem_keys: Sequence[str], asked: Sequence[str]
) -> list[str]:
    """The keys that, beside the ones `asked` for, tell the runs' problems apart."""
    names = [key for key in problem_keys if not key.endswith(("digest", "hash"))]
    keys = distinguishing_keys(runs, names, runs["problem"].tolist(), asked)
    if keys is None:
        raise UserError(
            "these runs are not of one problem and no setting tells them apart "
            f"(what differs: {difference(runs, problem_keys)}): their data or code changed "
            "between them. Give folders that belong together"
        )
    return keys


def check_panels(runs: pd.DataFrame, keys: Sequence[str], problem_keys: Sequence[str]) -> None:
    """Raise UserError where the panels by `keys` would mix problems.

    Keys of the optimizer's side or of single runs tell no problems apart, even if no two runs of
    one optimizer are of different problems: its runs would still be ranked against the others'.
    """
    keys = [
        key for key in keys if not is_variant(key) and (key == "problem" or key not in IDENTITY)
    ]
    groups = runs.groupby(keys, dropna=False, sort=False) if keys else [((), runs)]
    for values, group in groups:
        if len(group["problem"].unique()) > 1:
            title = ", ".join(f"{k} = {show(v)}" for k, v in zip(keys, values, strict=True))
            where = f"the panel {title}" if title else "one comparison"
            raise UserError(
                f"{where} would mix runs of different problems (what differs: "
                f"{difference(group, problem_keys)}): add a key to --facet, make it the lines "
                "with --lines KEY, or choose some of the runs with --where KEY=VALUE"
            )


def difference(runs: pd.DataFrame, problem_keys: Sequence[str]) -> str:
    """In what the runs' problems differ, for a message."""
    return ", ".join(differing(runs, problem_keys)) or "the problem hash alone"


def variant_settings(
    runs: pd.DataFrame,
    facet: Sequence[str],
    lines: str | None,
    within: Sequence[str],
    problem_keys: Sequence[str],
) -> list[dict[str, Any]]:
    """For each run the settings that tell its series from others of the same optimizer."""
    fixed = {*facet, *within, lines, "optimizer"}
    keys = [key for key in map(str, runs) if key not in {*fixed, *problem_keys}]
    free = [key for key in keys if is_variant(key)]
    other = [key for key in keys if not is_variant(key) and key not in {*IDENTITY} - {"device"}]
    settings: list[dict[str, Any]] = [{} for _ in range(len(runs))]
    for name, group in runs.groupby("optimizer", sort=False):
        identity = list(group[free].map(str).itertuples(index=False, name=None))
        chosen = [lines] if lines else []
        # what the panel tells need not stand in the label
        chosen += (
            distinguishing_keys(group, free, identity, [key for key in facet if key in runs]) or []
        )
        apart = [key for key in [*facet, *within, *chosen, "problem", "seed"] if key in runs]
        if group[apart].map(str).duplicated().any():
            # one seed twice: another key of the config must be what differs
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
