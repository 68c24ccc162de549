"""What a tuned study may claim: the leader against each other optimizer, on the test set.

The leader of a problem is the optimizer whose chosen trial had the best validation result. That
was settled before the runs that are compared here, so it is not the best of many comparisons.
How much tuning each optimizer needs, and how sensitive it is to its learning rate, the trials tell.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from optbench.analysis.caveats import objections
from optbench.analysis.pairing import by_seed
from optbench.analysis.series import layout
from optbench.analysis.summary import COSTS, STEP_COSTS, cost_cell
from optbench.analysis.table import read_runs
from optbench.analysis.time_to_target import reach
from optbench.analysis.trials import trial_scores
from optbench.common.csv_export import to_csv
from optbench.common.errors import UserError
from optbench.common.files import replace_text
from optbench.common.metrics import smaller_is_better
from optbench.common.text import number, show
from optbench.formats.study import MANIFEST, figure_of, manifests_of, protocol_of
from optbench.stats.pairwise import compare
from optbench.stats.tuning_curves import check_exchangeable, expected_best, rate_widths


def write(study: str | Path) -> tuple[str, list[Path]]:
    """Write verdict.csv, verdict.md and tuning.csv into a tuned study's folder, from its runs.

    Returns the verdicts in Markdown and the paths. Raises UserError where it is no such folder.
    """
    study = Path(study)
    if not (study / MANIFEST).is_file():
        raise UserError(
            f"{study} is not the folder of a tuned study (there is no {MANIFEST} in it). "
            f"-m hydra/sweeper=tuned makes one."
        )
    table = read_runs(study)
    manifests = manifests_of([study], table.iloc[:0])
    metric, pick = protocol_of(manifests)
    phases = table["phase"].astype(str)
    trials = table[phases == "trials"]
    compared = table[phases != "trials"]
    found = verdicts(table[phases == "tuned"], trials, metric, pick)
    figure = figure_of([study])
    try:
        needs = tuning_needs(trials, metric, pick)
        tuning = tuning_text(needs, metric)
    except UserError as error:
        needs, tuning = None, f"Tuning: {error}.\n"
    warnings = objections(compared, trials, manifests, metric) if len(compared) else []
    text = "\n".join(
        [
            sentences(found, metric),
            tuning,
            costs_text(compared, metric, figure.get("target")),
            *(f"Warning: {warning}\n" for warning in warnings),
            *(f"Left out: {text}.\n" for text in table.attrs["older"]),
        ]
    )
    files = {
        "verdict.csv": to_csv(found),
        "verdict.md": text,
    }
    if needs is None:
        (study / "tuning.csv").unlink(missing_ok=True)  # of a method before
    else:
        files["tuning.csv"] = to_csv(needs)
    for name, content in files.items():
        replace_text(study / name, content)
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
            if names and frame[frame[names[0]].notna()].count().gt(0).sum() > 1:
                lines = compare(frame, str(names[0]), smaller)
                found.append(lines.assign(problem=name_of(runs, str(problem))))
                break
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def tuning_needs(trials: pd.DataFrame, metric: str, pick: str) -> pd.DataFrame:
    """The expected best validation result after 1, 2, ... trials (Dodge et al. 2019).

    Columns: problem, optimizer, those of `tuning_curves.expected_best`, and the width in decades of
    the learning rates within 1, 5 and 10 % of the best. Raises UserError for trials of tpe or grid.
    """
    check_exchangeable(trials)
    smaller = smaller_is_better(metric)
    found = []
    scores = trial_scores(trials, metric, pick)
    if not np.isfinite(scores["score"]).any():
        raise UserError("no trial came to an end")
    for (problem, name), part in scores.groupby(["problem", "optimizer"], sort=False):
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
    """What tells a problem from the table's others; of the only one, its model and dataset."""
    plan = layout(table[table["phase"] == table["phase"].iloc[0]])
    keys = [key for key in plan.facet if key not in ("optimizer", "phase")]
    run = plan.runs[plan.runs["problem"].astype(str) == problem].iloc[0]
    return ", ".join(f"{key}={run[key]}" for key in keys) or only_problem(table)


def only_problem(table: pd.DataFrame) -> str:
    """The model and the dataset of the table's one problem, as in "mlp on mnist_5k"."""
    first = table.iloc[0]
    names = [show(first[key]) for key in ("model.name", "dataset.name") if key in table]
    return " on ".join(names) or "the only one"


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
        interval = f"{row.difference:+.4g} [{row.low:+.4g}, {row.high:+.4g}]"
        lines.append(f"| {row.problem} | {row.b} | {row.a} | {interval} | {row.verdict} |")
    return "\n".join(lines) + "\n"


def tuning_text(needs: pd.DataFrame, metric: str) -> str:
    """How much tuning each optimizer needs, as Markdown. needs: of `tuning_needs`."""
    shares = [name for name in needs if str(name).startswith("decades_within")]
    percents = "/".join(str(name).split("_")[2] for name in shares)
    lines = [
        f"Tuning: the best {metric.replace('_', ' ')} of n trials (median), and the width, "
        "in decades, of the",
        f"learning rates within {percents or '1/5/10'} % of the best (other settings vary with "
        "the rate).",
        "",
        "| problem | optimizer | best of 1 | of half | of all | trials | decades |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (problem, name), part in needs.groupby(["problem", "optimizer"], sort=False):
        count = len(part)
        medians = [part["median"].iloc[n - 1] for n in (1, max(count // 2, 1), count)]
        best = " | ".join(number(v) if math.isfinite(v) else "diverged" for v in medians)
        widths = "/".join(f"{part[share].iloc[0]:.2f}" for share in shares)
        widths = "" if not shares or part[shares].isna().all(axis=None) else widths
        lines.append(f"| {problem} | {name} | {best} | {count} | {widths} |")
    return "\n".join(lines) + "\n"


def costs_text(runs: pd.DataFrame, metric: str, rule: object = None) -> str:
    """Time to target and what a step costs, tuned and default, as Markdown."""
    try:
        found = reach(runs, metric, None if rule is None else str(rule))
    except UserError as error:
        return f"No times to target: {error}.\n"
    costs = [name for name in STEP_COSTS if found.frame[name].notna().any()]
    lines = [
        f"Time to target: the first evaluation with the {metric.replace('_', ' ')} at the target,",
        f"{found.rule}. Medians over seeds; one that never reached it counts as infinite.",
        "",
        "| phase | problem | target | optimizer | reached | epochs | steps | seconds "
        + "".join(f"| {COSTS[name]} " for name in costs)
        + "|",
        "|" + " --- |" * (8 + len(costs)),
    ]
    for row in found.frame.to_dict("records"):
        times = [row[name] for name in ("epochs", "steps", "seconds")]
        cells = [
            str(row.get("phase", "")), str(row["problem"]) or only_problem(runs),
            number(row["target"]), str(row["optimizer"]), f"{row['reached']} of {row['seeds']}",
            *(f"{value:.4g}" if math.isfinite(value) else "never" for value in times),
            *(cost_cell(name, row[name], row["ms_per_step"]) for name in costs),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    if found.clocks:
        lines += ["", f"{found.clocks[0].upper()}{found.clocks[1:]}."]
    return "\n".join(lines) + "\n"
