"""Put a published claim, "Muon outperforms AdamW", through the gate: results/published_claim.

    python -m scripts.results.published_claim [SCORES.csv]

SCORES.csv holds the scores of each seed, with the columns dataset, optimizer, seed, test_score and
metric, as published by Yandex Research (tabular-dl-optimizers, arXiv 2604.15297, Apache-2.0). From
it come the committed tables scores.csv (mean and spread) and pairs.csv (Muon and AdamW on each data
set). Without it the page and the figure are made again from these tables alone.
"""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from optbench.analysis.candidate.judge import OverProblems, judge
from optbench.analysis.candidate.words import sentence
from optbench.analysis.comparison import Comparison, Options, compare
from optbench.analysis.pairing import by_seed
from optbench.common.csv_export import to_csv
from optbench.common.files import replace_text
from optbench.common.text import number
from optbench.formats.imported import figure_of, runs_of, write_runs
from optbench.formats.other_tables import read_tables
from optbench.report.draw import draw_all
from optbench.stats.paired_tests import signed_rank
from optbench.stats.ranks import Friedman, by_problem, critical_difference, friedman, mean_ranks
from scripts import ROOT

OUT = ROOT / "results" / "published_claim"
COMMAND = "python -m scripts.results.published_claim"
CANDIDATE, BASELINE = "muon", "adamw"
CITATION = (
    "Yandex Research, tabular-dl-optimizers, arXiv 2604.15297, Apache-2.0: plain MLP, 16 "
    "optimizers, 17 data sets, 10 seeds at the setting tuned with 100 trials"
)


class Claims(NamedTuple):
    """All statistics over the data sets, from the table of mean scores."""

    alone: OverProblems  # Muon against AdamW, as the only question
    corrected: OverProblems  # the same pair, one of 15 that AdamW has
    passing: list[str]  # optimizers that differ from AdamW after the correction
    relative_p: float  # of Muon against AdamW by differences relative to AdamW's score
    ranks: "pd.Series[float]"  # mean ranks, best first
    test: Friedman
    distance: float  # critical difference of mean ranks


def mean_scores(raw: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and n of the test scores, by data set and optimizer."""
    groups = raw.groupby(["dataset", "optimizer"], sort=True)
    found = groups["test_score"].agg(mean="mean", sd="std", n="count").reset_index()
    found["metric"] = groups["metric"].first().to_numpy()
    return found


@contextmanager
def imported(table: Path, column: str, metric: str = "test_score") -> Iterator[Comparison]:
    """Yield the comparison of a table's runs, brought in as `optbench import` does."""
    with tempfile.TemporaryDirectory() as folder:
        columns = {metric: column}
        found = runs_of(read_tables([table]), columns, ["dataset"])
        write_runs(Path(folder), found, figure_of(columns, found))
        yield compare([folder], Options(formats=["png"], kinds=["ranks"]))


def claims(scores: Path = OUT / "scores.csv") -> Claims:
    """Return the statistics of the committed mean scores."""
    with imported(scores, "mean") as made:
        values = by_problem(by_seed(made, "test_score"))
        (alone,) = judge(made, CANDIDATE, [BASELINE]).over
        all_of_baseline = judge(made, BASELINE).over
    corrected = next(entry for entry in all_of_baseline if entry.baseline == CANDIDATE)
    passing = [entry.baseline for entry in all_of_baseline if p_of(entry) <= 0.05]
    gaps = (values[CANDIDATE] - values[BASELINE]) / values[BASELINE].abs()
    return Claims(
        alone,
        corrected,
        passing,
        signed_rank(gaps.to_numpy()),
        mean_ranks(values, smaller=False),
        friedman(values, smaller=False),
        critical_difference(values.shape[1], values.shape[0]),
    )


def p_of(entry: OverProblems) -> float:
    """Return the corrected p-value over the problems."""
    assert entry.verdict is not None
    return entry.verdict.p


def pairs_of(raw: Path) -> tuple[pd.DataFrame, str]:
    """Return Muon against AdamW on each data set by all seeds, and the sentence on it."""
    with imported(raw, "test_score") as made:
        found = judge(made, CANDIDATE, [BASELINE])
        text = sentence(found)
    rows = [
        {
            "dataset": one.problem.partition("=")[2],
            "outcome": one.verdict.outcome,
            **one.verdict._asdict(),
        }
        for one in found.each
    ]
    kept = ["dataset", "outcome", "n", "difference", "low", "high", "p"]
    return pd.DataFrame(rows)[kept], text


def page(found: Claims, scores: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """Return the page."""
    counts = pairs["outcome"].value_counts()
    gap = found.ranks[BASELINE] - found.ranks[CANDIDATE]
    alone = found.alone.verdict
    assert alone is not None
    passing = ", ".join(found.passing) or "no optimizer"
    return "\n".join(
        [
            "# A published claim, through the gate",
            "",
            f"<!-- Made by `{COMMAND}`. -->",
            "",
            "*Muon outperforms AdamW*, on tabular data. The scores are those of another program: "
            "`optbench import`",
            "brings them in, and the statistics are those of every other page here.",
            "",
            f"Source: {CITATION}.",
            "",
            "Only means and spreads of the scores are kept here; higher is better, and the score "
            "of a regression is",
            "its negated RMSE.",
            "",
            "## What may be claimed",
            "",
            "| question | answer | may it be claimed? |",
            "| --- | --- | --- |",
            f"| Is Muon better than AdamW, if this was the only question? | ahead on "
            f"{found.alone.ahead} of {found.alone.problems} data sets; signed-rank test of the "
            f"mean scores, p = {alone.p:.2g} | yes, at 0.05 |",
            f"| Is Muon better than AdamW, as one of the {len(found.ranks) - 1} rivals that AdamW "
            f"was compared with? | p = {p_of(found.corrected):.2g} after Holm's correction | no |",
            f"| Which rivals differ from AdamW after that correction? | {passing} | yes |",
            f"| Does the scale matter? | by differences relative to AdamW's score p = "
            f"{found.relative_p:.2g}: plain differences weigh the data sets with large errors | "
            "the claim hangs on it |",
            f"| Do the {len(found.ranks)} optimizers differ at all? | Friedman's test, chi2 = "
            f"{found.test.chi2:.3g}, p = {found.test.p:.1g} | yes |",
            f"| Do the mean ranks of Muon and AdamW differ? | {found.ranks[CANDIDATE]:.2f} and "
            f"{found.ranks[BASELINE]:.2f}, {gap:.2f} apart; the critical difference is "
            f"{found.distance:.1f} (Nemenyi, 0.05) | no |",
            f"| On how many data sets is Muon shown to be better, by all seeds? | "
            f"{counts.get('better', 0)} better, {counts.get('worse', 0)} worse, "
            f"{counts.get('cannot tell', 0)} cannot tell; rank-sum tests of the seeds, Holm over "
            f"{len(pairs)} data sets | of these settings on these data sets |",
            "",
            "The last line is about ten seeds of one tuned setting of each optimizer. It says "
            "nothing of the luck of the",
            "search that found the setting, nor of other data sets: the other lines take the data "
            "set as the unit.",
            "",
            "![Mean ranks of the optimizers over the data sets](critical_difference.png)",
            "",
            "## Mean ranks",
            "",
            "| optimizer | mean rank |",
            "| --- | --- |",
            *(f"| {name} | {rank:.2f} |" for name, rank in found.ranks.items()),
            "",
            "## Muon and AdamW on each data set",
            "",
            "Muon minus AdamW: Hodges-Lehmann estimate, 95 % interval, and p of the rank-sum test "
            "with Holm's correction.",
            "",
            "| data set | difference | p | Muon is |",
            "| --- | --- | --- | --- |",
            *(
                f"| {row.dataset} | {row.difference:+.3g} [{row.low:+.3g}, {row.high:+.3g}] | "
                f"{row.p:.2g} | {row.outcome} (n = {row.n}) |"
                for row in pairs.itertuples()
            ),
            "",
            "## Mean scores",
            "",
            f"Mean over {scores['n'].min()} seeds ([scores.csv](scores.csv) has the standard "
            "deviations).",
            "",
            *table_of(scores, list(found.ranks.index)),
            "",
            "## Repeat",
            "",
            f"    {COMMAND}",
            f"    {COMMAND} SCORES.csv",
            "",
            "The first command computes all from the two tables here. The second makes the tables, "
            "too: SCORES.csv has a",
            "row for each seed, with the columns dataset, optimizer, seed, test_score and metric.",
            "",
        ]
    )


def table_of(scores: pd.DataFrame, order: list[str]) -> list[str]:
    """Return the lines of the table of mean scores, data sets by optimizers."""
    wide = scores.pivot_table(index="dataset", columns="optimizer", values="mean")[order]
    lines = [f"| data set | {' | '.join(order)} |", "|" + " --- |" * (len(order) + 1)]
    for name, row in wide.iterrows():
        lines.append(f"| {name} | {' | '.join(number(value) for value in row)} |")
    return lines


def main(words: list[str]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    if words:
        raw = pd.read_csv(
            words[0], usecols=["dataset", "optimizer", "seed", "test_score", "metric"]
        )
        replace_text(OUT / "scores.csv", to_csv(mean_scores(raw)))
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "raw.csv"
            raw.drop(columns="metric").to_csv(copy, index=False)
            pairs, text = pairs_of(copy)
        replace_text(OUT / "pairs.csv", to_csv(pairs))
        print(text)
    scores, pairs = pd.read_csv(OUT / "scores.csv"), pd.read_csv(OUT / "pairs.csv")
    replace_text(OUT / "README.md", page(claims(), scores, pairs))
    with imported(OUT / "scores.csv", "mean") as made:
        assert made.files is not None
        draw_all(made.files.folders, OUT, made=made)


if __name__ == "__main__":
    main(sys.argv[1:])
