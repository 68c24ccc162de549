"""What a tuned study may claim: the leader against each other optimizer, on the test set.

The leader of a problem is the optimizer whose chosen trial had the best validation result. That
was settled before the runs that are compared here, so it is not the best of many comparisons.
How much tuning each optimizer needs, and how sensitive it is to its learning rate, the trials tell.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from optbench.errors import UserError
from optbench.layout import layout
from optbench.pairs import compare
from optbench.progress import streams
from optbench.stats import by_seed, smaller_is_better
from optbench.summary import final_values
from optbench.table import load_runs
from optbench.tuning_curves import expected_best, rate_widths


def write(study: str | Path) -> tuple[str, list[Path]]:
    """Write verdict.csv, verdict.md and tuning.csv into a tuned study's folder, from its runs.

    Returns the verdicts in Markdown and the paths. Raises UserError where it is no such folder.
    """
    study = Path(study)
    try:
        protocol = json.loads((study / "study.json").read_text("utf-8"))["tuning"]
        metric, pick = str(protocol["metric"]), str(protocol["pick"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{study} is not the folder of a tuned study (no readable study.json: {error}). "
            f"-m hydra/sweeper=tuned makes one."
        ) from None
    table = load_runs(study)
    phases = table["phase"].astype(str)
    trials = table[phases == "trials"]
    found = verdicts(table[phases == "tuned"], trials, metric, pick)
    text = sentences(found, metric)
    files = {
        "verdict.csv": found.to_csv(index=False),
        "verdict.md": text,
        "tuning.csv": tuning_needs(trials, metric, pick).to_csv(index=False),
    }
    for name, content in files.items():
        (study / name).write_text(content, "utf-8")
    return text, [study / name for name in files]


def verdicts(runs: pd.DataFrame, trials: pd.DataFrame, metric: str, pick: str) -> pd.DataFrame:
    """One line per problem and optimizer other than the leader, as `pairs.compare` gives them.

    runs: the tidy table of the tuned settings' runs. trials: that of the trials. metric, pick: how
    trials were judged (val_loss or val_accuracy; final or best). The runs are compared by the final
    value of the same metric on the test set. Holm's correction goes over a problem's comparisons.
    """
    tested = metric.replace("val_", "test_")
    smaller = smaller_is_better(tested)
    found = []
    for problem, scores in trial_scores(trials, metric, pick).groupby("problem", sort=False):
        part = runs[runs["problem"].astype(str) == problem]
        ended = scores[scores["score"].abs() < math.inf].sort_values("score", ascending=smaller)
        frame = by_seed(part, tested) if len(part) else pd.DataFrame()
        for leader in ended["optimizer"]:
            names = [name for name in frame if str(name).split(" ")[0] == leader]
            if names and len(frame.columns) > 1:
                lines = compare(frame, str(names[0]), smaller)
                found.append(lines.assign(problem=name_of(runs, str(problem))))
                break
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def trial_scores(trials: pd.DataFrame, metric: str, pick: str) -> pd.DataFrame:
    """A line per trial: problem, optimizer, lr, score (the worst value where it diverged)."""
    first = trials.groupby("run", observed=True, sort=False).first()
    score = final_values(trials, metric)
    if pick == "best":
        by_run = trials.groupby("run", observed=True, sort=False)[metric]
        best = by_run.min() if smaller_is_better(metric) else by_run.max()
        score = best.reindex(score.index).where(score.abs() < math.inf, score)
    lr = first["optimizer.lr"] if "optimizer.lr" in first else pd.Series(math.nan, first.index)
    return pd.DataFrame(
        {
            "problem": first["problem"].astype(str),
            "optimizer": first["optimizer"].astype(str),
            "lr": pd.to_numeric(lr.astype(object), errors="coerce"),
            "score": score.reindex(first.index).astype(float),
        }
    )


def tuning_needs(trials: pd.DataFrame, metric: str, pick: str) -> pd.DataFrame:
    """The expected best validation result after 1, 2, ... trials (Dodge et al. 2019).

    Columns: problem, optimizer, those of `tuning_curves.expected_best`, and the width in decades of
    the learning rates within 1, 5 and 10 % of the best.
    """
    smaller = smaller_is_better(metric)
    found = []
    for (problem, name), part in trial_scores(trials, metric, pick).groupby(
        ["problem", "optimizer"], sort=False
    ):
        curve = expected_best(part["score"].to_numpy(), smaller)
        curve.insert(0, "problem", name_of(trials, str(problem)))
        curve.insert(1, "optimizer", str(name))
        rates = part.dropna(subset=["lr"])
        if len(rates["lr"].unique()) > 1:
            for share, width in rate_widths(
                rates["lr"].to_numpy(), rates["score"].to_numpy(), smaller
            ).items():
                curve[f"decades_within_{share * 100:g}_percent"] = width.decades
        found.append(curve)
    return pd.concat(found, ignore_index=True)


def name_of(table: pd.DataFrame, problem: str) -> str:
    """What tells a problem from the table's others; empty where there is one."""
    plan = layout(table[table["phase"] == table["phase"].iloc[0]])
    keys = [key for key in plan.facet if key not in ("optimizer", "phase")]
    run = plan.runs[plan.runs["problem"].astype(str) == problem].iloc[0]
    return ", ".join(f"{key}={run[key]}" for key in keys)


def sentences(frame: pd.DataFrame, metric: str) -> str:
    """The verdicts as Markdown."""
    if frame.empty:
        return "No verdict: fewer than two optimizers have a tuned setting.\n"
    tested = metric.replace("val_", "test ")
    lines = [
        f"Final {tested} of the tuned settings, the leader by validation against each other",
        "optimizer on the same seeds: exact two-sided Wilcoxon signed-rank test with Holm's",
        "correction, Hodges-Lehmann difference (other minus leader) with its 95 % interval.",
        "",
        "| problem | leader | against | difference | the other is |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in frame.itertuples():
        where = str(row.problem) or "the only one"
        interval = f"{row.difference:+.4g} [{row.low:+.4g}, {row.high:+.4g}]"
        lines.append(f"| {where} | {row.b} | {row.a} | {interval} | {row.verdict} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m optbench.verdict FOLDER`: the verdicts of a tuned study, again from its files."""
    parser = argparse.ArgumentParser(prog="python -m optbench.verdict", description=main.__doc__)
    parser.add_argument("folder", metavar="FOLDER", help="of a tuned study: it holds study.json")
    try:
        text, paths = write(parser.parse_args(argv).folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text, *paths, sep="\n")
    return 0


if __name__ == "__main__":
    with streams():
        sys.exit(main())
