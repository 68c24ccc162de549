"""A study's claim, judged by its runs: what was claimed, what was measured, whether it held.

A claim is a sentence and the comparisons it stands on, all of which must come out as it says. Each
is the exact two-sided signed-rank test over the seeds at 5 %. A claim that needs every one of
several significant results is wrongly called true in at most 5 % of cases without any correction
(the intersection-union test, Berger 1982): the worst comparison alone decides. One reversal is
enough to call a claim false, so p-values are corrected over the claim's comparisons for that word
(Holm 1979).
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from optbench.errors import UserError
from optbench.estimates import smaller_is_better
from optbench.keys import order, resolve, short, show, where
from optbench.measures import CHECK_KEYS, measure, needs_layers, title
from optbench.paired_tests import holm
from optbench.pairs import Verdict, claim
from optbench.progress import streams
from optbench.run_files import expanded, read_sealed, replace_text
from optbench.spreadsheet import to_csv
from optbench.summary import median, seeds_text
from optbench.table import read_runs

KEYS = {"text", "checks", "figure"}
CLAIM = "claim.json"  # a sweep leaves in its folder what its study claims
SIDES = ("lower", "higher")
WORDS = {
    "held": "It held.",
    "did not hold": "It did not hold.",
    "cannot tell": "It cannot be told.",
}


class Check(NamedTuple):
    """One comparison: the side that is claimed to be lower (or higher), and the other."""

    value: str  # what was compared, in words
    side: str
    other: str
    direction: str  # lower, higher
    medians: tuple[float, float]
    verdict: Verdict
    word: str  # held, did not hold, cannot tell
    notes: tuple[str, ...]  # learning rates chosen, runs that diverged

    @property
    def text(self) -> str:
        """The comparison and its statistics in one line."""
        v = self.verdict
        line = f"{self.value}: {number(self.medians[0])} ({self.side}) against "
        line += number(self.medians[1]) + (f" ({self.other})" if self.other else "")
        if math.isnan(v.difference):
            statistics = "a run diverged and has no such value"
        elif math.isinf(v.difference):
            statistics = f"a side diverged: no difference in numbers, p = {v.p:.2g}"
        else:
            interval = f"{v.difference:.3g} [{number(v.low)}, {number(v.high)}]"
            statistics = f"difference {interval}, p = {v.p:.2g}"
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{line}; claimed {self.direction}: {self.word} ({statistics}{notes})"


def judge(
    table: pd.DataFrame, layers: pd.DataFrame | None, claimed: Mapping[str, Any]
) -> list[Check]:
    """Every comparison of a claim, from the tidy tables of `epochs.csv` and of `layers.csv`.

    A diverged run counts as the worst loss or accuracy; of another measure it has no value, and
    the comparison cannot tell. Raises UserError where the claim cannot be read, or the two sides
    do not have the same seeds.
    """
    if unknown := set(claimed) - KEYS:
        raise UserError(f"claim has no {', '.join(sorted(unknown))}; it has: text, checks, figure")
    checks = claimed.get("checks")
    if not isinstance(claimed.get("text"), str) or not checks:
        raise UserError("claim needs a text (what is claimed) and checks (what must hold)")
    return [compare(table, layers, check) for check in checks]


def compare(table: pd.DataFrame, layers: pd.DataFrame | None, check: Mapping[str, Any]) -> Check:
    """One comparison: `value` of the runs `lower: {key: value}` (or `higher`) `than` others."""
    direction = next((word for word in SIDES if word in check), "")
    needed = {"value", "than", direction}
    if not direction or not needed <= set(check) <= {*needed, *CHECK_KEYS, "across"}:
        raise UserError(
            f"a check of the claim is {dict(check)}: it needs value, lower or higher, and than, "
            f"and may have {', '.join(CHECK_KEYS[1:])} and across"
        )
    source = table
    if needs_layers(table, check):
        if layers is None:
            raise UserError(f"the claim compares {check['value']}, and no run has a layers.csv")
        source = layers
    across = dict(check.get("across", {}))
    a, name, notes = reduce(source, table, check, check[direction], across)
    other = check["than"]
    if isinstance(other, Mapping):
        b, other_name, more = reduce(source, table, check, other, across)
    else:
        b, other_name, more = pd.Series(float(other), a.index), "", []
    if set(a.index) != set(b.index):
        seeds = [sorted(map(int, side.index)) for side in (a, b)]
        raise UserError(
            f"{title(check)}: {name} has the seeds {seeds[0]} and {other_name} {seeds[1]}; "
            "runs are missing: the same command again makes them"
        )
    x, y = a.sort_index().to_numpy(), b.sort_index().to_numpy()
    medians = (float(median(x)), float(median(y)))
    if np.isnan(x).any() or np.isnan(y).any():
        none = math.nan
        nothing = Verdict("cannot tell", len(x), none, none, none, none, none, 0)
        return Check(title(check), name, other_name, direction, medians, nothing, "cannot tell", ())
    verdict = claim(x, y, smaller=direction == "lower")
    word = {"better": "held", "worse": "did not hold"}.get(verdict.word, "cannot tell")
    lost = [
        f"diverged with {count} of {len(side)} seeds ({label})"
        for side, label in ((x, name), (y, other_name))
        if (count := int(np.isinf(side).sum()))
    ]
    said = tuple(dict.fromkeys([*notes, *more, *lost]))
    return Check(title(check), name, other_name, direction, medians, verdict, word, said)


def reduce(
    source: pd.DataFrame,
    table: pd.DataFrame,
    check: Mapping[str, Any],
    conditions: Mapping[str, Any],
    across: Mapping[str, str],
) -> tuple["pd.Series[float]", str, list[str]]:
    """A side's value by seed, its name, and what was chosen for it.

    conditions: the runs of this side. across: a key of which a side has several values, and what
    is made of them, in this order: "best" takes the one with the best median of what is compared
    (for each side alike, on the same seeds), "spread" the largest minus the smallest value of each
    seed.
    """
    texts = {k: json.dumps(v) if isinstance(v, list) else show(v) for k, v in conditions.items()}
    filters = [f"{key}={text}" for key, text in texts.items()]
    name = ", ".join(f"{short(resolve(table, k))} {text}" for k, text in texts.items())
    values = measure(where(source, filters), check)
    runs = where(table, filters).groupby("run", observed=True, sort=False).first()
    keys = {resolve(table, key): how for key, how in across.items()}
    if unknown := set(keys.values()) - {"best", "spread"}:
        raise UserError(f"across: {', '.join(sorted(unknown))} is not one of best, spread")
    runs = runs[["seed", *keys]].astype(object)
    runs["value"] = values.reindex(runs.index)
    notes: list[str] = []
    smaller = smaller_is_better(str(check["value"]))
    return by_seed(runs, list(keys.items()), smaller, name, notes), name, notes


def by_seed(
    runs: pd.DataFrame,
    across: list[tuple[str, str]],
    smaller: bool,
    name: str,
    notes: list[str],
) -> "pd.Series[float]":
    """The value of each seed, of several runs of it as `across` says (the last one outermost)."""
    if not across:
        if runs["seed"].duplicated().any():
            raise UserError(
                f"{name} has several runs of a seed: say in the check which is meant, or what is "
                "made of them with across: {KEY: best} or {KEY: spread}"
            )
        return runs.set_index("seed")["value"].astype(float)
    *inner, (key, how) = across
    tried = sorted(runs[key].unique(), key=order)
    parts = {value: runs[runs[key] == value] for value in tried}
    if how == "best":
        values = np.array([median(part["value"].to_numpy(float)) for part in parts.values()])
        values = np.where(np.isnan(values), math.inf, values if smaller else -values)
        chosen = tried[int(np.argmin(values))]
        edge = ", the edge of those tried" if chosen in (tried[0], tried[-1]) else ""
        notes.append(f"best {short(key)} {show(chosen)} ({name}{edge})")
        return by_seed(parts[chosen], inner, smaller, name, notes)
    # the note of a choice inside says for which value it was made
    frame = pd.DataFrame(
        {v: by_seed(p, inner, smaller, f"{name}, {show(v)}", notes) for v, p in parts.items()}
    )
    cells = frame.to_numpy(dtype=float)
    finite = np.isfinite(cells).all(axis=1)
    ends = np.where(finite[:, None], cells, 0.0)
    spread = np.where(finite, ends.max(axis=1) - ends.min(axis=1), math.inf)
    return pd.Series(np.where(np.isnan(cells).any(axis=1), math.nan, spread), frame.index)


def claim_word(
    p: Sequence[float] | np.ndarray, sides: Sequence[float] | np.ndarray, alpha: float = 0.05
) -> str:
    """Return the word of a claim: held, did not hold or cannot tell.

    p: two-sided p-value of each comparison; NaN, where a run has no value, counts as 1. sides:
    above 0 where a comparison came out as claimed, below 0 where the other way round, else 0.
    """
    return verdict_of(check_words(p, sides, alpha))


def check_words(
    p: Sequence[float] | np.ndarray, sides: Sequence[float] | np.ndarray, alpha: float = 0.05
) -> list[str]:
    """Return the word of each comparison of a claim; the arguments are those of `claim_word`.

    "held" needs p <= alpha: the claim needs every one of them. "did not hold" needs the p-value
    that is corrected over all of the claim's comparisons (Holm): one of them refutes the claim.
    """
    raw = np.nan_to_num(np.asarray(p, dtype=float), nan=1.0)
    corrected, sides = holm(raw), np.asarray(sides, dtype=float)
    words = np.full(len(raw), "cannot tell", dtype=object)
    words[(raw <= alpha) & (sides > 0)] = "held"
    words[(corrected <= alpha) & (sides < 0)] = "did not hold"
    return list(words)


def verdict_of(words: Sequence[str]) -> str:
    """Return held if all did, "did not hold" if one did not, else cannot tell."""
    if "did not hold" in words:
        return "did not hold"
    return "held" if set(words) == {"held"} else "cannot tell"


def sentence(text: str, checks: Sequence[Check]) -> str:
    """What was claimed, what was measured and whether it held, as Markdown."""
    seeds = seeds_text([check.verdict.n for check in checks])
    lines = [f"Claimed: {text.strip()}", "", f"Measured ({seeds}, medians):", ""]
    lines += [f"- {check.text}" for check in checks]
    return "\n".join([*lines, "", f"{WORDS[verdict_of([check.word for check in checks])]}", ""])


def number(value: float) -> str:
    """Three significant digits; what diverged is called so."""
    return "diverged" if math.isinf(value) else f"{value:.3g}"


def to_frame(checks: Sequence[Check]) -> pd.DataFrame:
    """A line per comparison, with its statistics."""
    return pd.DataFrame(
        [
            {
                "value": c.value, "side": c.side, "than": c.other, "claimed": c.direction,
                "n": c.verdict.n, "median": c.medians[0], "median_than": c.medians[1],
                "difference": c.verdict.difference, "low": c.verdict.low, "high": c.verdict.high,
                "p": c.verdict.p, "word": c.word, "notes": "; ".join(c.notes), "text": c.text,
            }
            for c in checks
        ]
    )  # fmt: skip


def write(folder: str | Path) -> tuple[str, list[Path]]:
    """Judge the claim that a sweep left in its folder; write claim.md, claim.csv and its figure.

    Returns the sentence and the paths. Raises UserError where the folder has no claim.
    """
    folder = Path(folder)
    try:
        claimed = read_sealed(folder / CLAIM)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder} has no readable {CLAIM} ({error}): it is not the folder of a sweep whose "
            "study has a claim, such as study=claims/momentum"
        ) from None
    table = read_runs(folder)
    layers = None
    if (table.get("diagnostics", pd.Series(dtype=object)).astype(str) == "layers").any():
        layers = read_runs(folder, rows="layers")
    checks = judge(table, layers, claimed)
    text = sentence(claimed["text"], checks)
    text += "".join(f"\nLeft out: {each}.\n" for each in table.attrs["older"])
    paths = [folder / "claim.md", folder / "claim.csv"]
    replace_text(paths[0], text)
    to_csv(to_frame(checks), paths[1])
    if isinstance(claimed.get("figure"), dict):
        paths += draw(folder, table, layers, claimed["figure"])
    return text, paths


def draw(
    folder: Path, table: pd.DataFrame, layers: pd.DataFrame | None, options: Mapping[str, Any]
) -> list[Path]:
    """Write claim.png, .pdf and .txt: the function of `layer_plots` that the claim names."""
    from optbench import layer_plots
    from optbench.saving import save

    rest = dict(options)
    name = rest.pop("draw", None)
    if name not in layer_plots.FIGURES:
        there = ", ".join(layer_plots.FIGURES)
        raise UserError(f"claim.figure.draw is {name!r}; allowed: {there}")
    if layers is None:
        raise UserError(f"the figure {name} needs layers.csv: diagnostics=layers writes it")
    if name == "gradient_by_error":  # the error is in epochs.csv
        rest["epochs"] = table
    try:
        figure = layer_plots.FIGURES[name](layers, **rest)
    except TypeError as error:
        raise UserError(f"claim.figure: {error}") from None
    return save(figure, folder, "claim", ("png", "pdf"))


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m optbench.claims FOLDER...`: judge the claims of sweeps again, from their files."""
    parser = argparse.ArgumentParser(prog="python -m optbench.claims", description=main.__doc__)
    parser.add_argument(
        "folders", nargs="+", type=expanded, metavar="FOLDER", help="of a sweep with a claim"
    )
    try:
        for folder in parser.parse_args(argv).folders:
            text, paths = write(folder)
            print(text, *paths, "", sep="\n")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    with streams():
        sys.exit(main())
