"""The verdict of a tuned study: the leader against each other on the test set.

The leader of a problem is the optimizer whose chosen trial had the best validation result. It was
known before the runs that are compared here, so the leader is not the best of many comparisons. The
trials show how much tuning each optimizer needs, and how sensitive it is to its learning rate.
"""

import numpy as np
import pandas as pd

from optbench.analysis.caveats import caveats
from optbench.analysis.comparison import Comparison, Runs, comparison_of, settings_phrase
from optbench.analysis.final_values import COSTS, STEP_COSTS, cost_cell
from optbench.analysis.leader import leader_of
from optbench.analysis.pairing import by_seed, owners_of
from optbench.analysis.series import Layout
from optbench.analysis.time_to_target import time_text, time_to_target
from optbench.analysis.trials import order_of, trial_scores, trial_series
from optbench.analysis.tuned.chosen import Chosen, chosen_settings, chosen_text
from optbench.analysis.tuned.searched import searched_spaces, searched_text
from optbench.analysis.tuned.spread import spread_text, spreads
from optbench.common.csv_export import to_csv
from optbench.common.errors import UserError
from optbench.common.metrics import final_text, metric_of
from optbench.common.text import aside, interval, show
from optbench.stats.paired_tests import MOST_FLIPPED_PAIRS
from optbench.stats.pairwise import compare, words_of
from optbench.stats.tuning_curves import check_exchangeable, expected_best, rate_widths

SETTINGS_ALONE = "A verdict on {}, not on the optimizers: it leaves out the luck of a search."


def verdict_texts(made: Comparison) -> tuple[str, dict[str, str | None]]:
    """Return the verdicts of a tuned study in Markdown, and the texts of its files.

    None stands for a file that must be removed. Raises UserError as `assign_series` does.
    """
    metric, pick = made.protocol
    trials, tested = made.of_trials, metric.replace("val_", "test_")
    tried = (trials.table["phase"].astype(str) == "trials").all()
    found = verdicts(made) if tried else pd.DataFrame()
    try:
        if not tried:
            raise UserError("no trial came to an end")
        needs = tuning_needs(trials, metric, pick)
        tuning = tuning_text(needs, metric)
    except UserError as error:
        needs, tuning = None, f"Tuning: {error}.\n"
    found_none = f"No verdict: no run has a final {metric_of(tested).label} (log.eval_test).\n"
    measured = made.has(tested) or not made.main
    compared = made.tuned or not tried  # false while the study has nothing but trials
    costs = "No times to target: no tuned run sets a target.\n"
    text = "\n".join(
        part
        for part in [
            verdict_sentences(found, metric, made.searches) if measured else found_none,
            chosen_text(named_chosen(made), metric),
            searched_text(searched_spaces(made.manifests)),
            tuning,
            spread_text(named_spreads(made, tested), tested),
            costs_text(made, metric, made.options.target) if compared else costs,
            *(f"Warning: {warning}\n" for warning in (caveats(made) if compared else ())),
            *(f"Left out: {text}.\n" for text in made.older),
        ]
        if part
    )
    tables = {"verdict.csv": to_csv(found), "verdict.md": text}
    return text, tables | {"tuning.csv": None if needs is None else to_csv(needs)}


def verdicts(made: Comparison) -> pd.DataFrame:
    """Return rows of `pairwise.compare` for each problem's leader and all others.

    The tuned settings' runs are compared by the final value of the trials' metric on the test set.
    The max-type test spans all pairs of a problem.
    """
    metric, pick = made.protocol
    tested = metric.replace("val_", "test_")
    smaller = metric_of(tested).smaller
    runs = made.table[made.table["run"].isin(made.main or [])]
    found = []
    tried = trial_scores(made.of_trials, metric, pick)
    for problem, scores in tried.groupby("problem", sort=False):
        part = runs[runs["problem"].astype(str) == problem]
        if part.empty:
            continue
        frame = by_seed(made, tested, only=set(part["run"]))
        owners, order = owners_of(frame), order_of(scores, metric)
        leader = leader_of(frame, smaller, owners, order)
        if leader is None or owners[leader.name] not in order or len(frame.columns) < 2:
            continue
        # chosen=True: the max-type test, which 6 searches can pass with any number of optimizers
        lines = compare(
            frame, leader.name, smaller, chosen=True, among=leader.ranked, owners=owners
        )
        lines["verdict"] = [words_of(text, made.unit) for text in lines["verdict"]]
        found.append(lines.assign(problem=problem_name(made.table, made.series(), str(problem))))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def tuning_needs(trials: Runs, metric: str, pick: str) -> pd.DataFrame:
    """Return the expected best validation result after 1, 2, ... trials.

    Dodge et al. 2019. Columns: problem, optimizer, those of `tuning_curves.expected_best`, and the
    width in decades of the learning rates within 1, 5 and 10 % of the best. Raises UserError for
    trials of tpe or grid.
    """
    made = comparison_of(trials)
    check_exchangeable(made.table)
    smaller = metric_of(metric).smaller
    found = []
    scores = trial_scores(made, metric, pick)
    scores = scores[scores["drawn"]]
    if not np.isfinite(scores["score"]).any():
        raise UserError("no trial came to an end")
    plan = trial_series(made, metric, pick)
    for (problem, name), part in scores.groupby(["problem", "optimizer"], sort=False):
        curve = expected_best(part["score"].to_numpy(), smaller)
        curve.insert(0, "problem", problem_name(made.table, plan, str(problem)))
        curve.insert(1, "optimizer", str(name))
        rates = part.dropna(subset=["lr"])
        if len(rates["lr"].unique()) > 1:
            for share, width in rate_widths(
                rates["lr"].to_numpy(), rates["score"].to_numpy(), smaller
            ).items():
                curve[f"decades_within_{share * 100:g}_percent"] = width.decades
        found.append(curve)
    return pd.concat(found, ignore_index=True)


def named_spreads(made: Comparison, y: str) -> pd.DataFrame:
    """Return `spreads` with the problems by name, the rows of a problem together."""
    found, plan = spreads(made, y), made.series()
    if found.empty:
        return found
    named = found.assign(problem=[problem_name(made.table, plan, p) for p in found["problem"]])
    return named.sort_values("problem", kind="stable")


def named_chosen(made: Comparison) -> list[Chosen]:
    """Return `chosen_settings` with the problems by name."""
    trials = made.of_trials
    plan = trials.series()
    return chosen_settings(made, lambda problem: problem_name(trials.table, plan, problem))


def problem_name(table: pd.DataFrame, plan: Layout, problem: str) -> str:
    """Return the keys that tell a problem from others, or its model and dataset."""
    keys = [key for key in plan.facet if key not in ("optimizer", "phase")]
    run = plan.runs[plan.runs["problem"].astype(str) == problem].iloc[0]
    return ", ".join(f"{key}={show(run[key])}" for key in keys) or only_problem(table)


def only_problem(table: pd.DataFrame) -> str:
    """Return the model and the dataset of the only problem, as in "mlp on mnist_5k"."""
    first = table.iloc[0]
    names = [show(first[key]) for key in ("model.name", "dataset.name") if key in table]
    return " on ".join(names) or "the only one"


def verdict_sentences(frame: pd.DataFrame, metric: str, searches: int = 1) -> str:
    """Return the verdicts as Markdown. searches: how many each optimizer has."""
    if frame.empty:
        return "No verdict: fewer than two optimizers have a tuned setting.\n"
    tested = metric_of(metric.replace("val_", "test_")).label
    points = metric_of(metric).percent
    scale = 100.0 if points else 1.0
    settings = settings_phrase(max(1, searches))
    unit = "on the same seeds" if settings else f"over {searches} searches"
    exact = "exact " if frame["n"].max() <= MOST_FLIPPED_PAIRS else ""
    lines = [
        f"Final {tested} of the tuned settings, the leader by validation against each other",
        f"{'setting' if settings else 'optimizer'} {unit}: {exact}two-sided sign-flip",
        "test of the largest |t| over all pairs,",
        "Hodges-Lehmann difference (other minus leader) with its 95 % interval.",
        *([SETTINGS_ALONE.format(settings)] if settings else []),
        "",
        f"| problem | leader | against | difference{' (points)' * points} | the other is |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in frame.to_dict("records"):
        centre, low, high = (scale * row[name] for name in ("difference", "low", "high"))
        difference = f"{centre:+.4g} {interval(low, high, '+.4g')}"
        cells = (row["problem"], row["b"], row["a"], difference, row["verdict"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if frame["verdict"].str.contains("needed").any():
        lines += ["", "Needed: an estimate for this value, this pair and this test alone."]
    return "\n".join(lines) + "\n"


def tuning_text(needs: pd.DataFrame, metric: str) -> str:
    """Return the tuning that each optimizer needs (of `tuning_needs`) as Markdown."""
    shares = [name for name in needs if str(name).startswith("decades_within")]
    percents = "/".join(str(name).split("_")[2] for name in shares)
    lines = [
        f"Tuning: the best {metric_of(metric).title} of n trials (median), and the width, "
        "in decades, of the",
        f"learning rates within {percents or '1/5/10'} % of the best (other settings vary with "
        "the rate). The trials of all searches count, without those of the default setting "
        "and without follow-ups.",
        "",
        "| problem | optimizer | best of 1 | of half | of all | trials | decades |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (problem, name), part in needs.groupby(["problem", "optimizer"], sort=False):
        count = len(part)
        medians = [part["median"].iloc[n - 1] for n in (1, max(count // 2, 1), count)]
        best = " | ".join(final_text(value, metric) for value in medians)
        widths = "/".join(f"{part[share].iloc[0]:.2f}" for share in shares)
        widths = "" if not shares or part[shares].isna().all(axis=None) else widths
        lines.append(f"| {problem} | {name} | {best} | {count} | {widths} |")
    return "\n".join(lines) + "\n"


def costs_text(made: Comparison, metric: str, rule: str | None = None) -> str:
    """Return time to target and the cost of a step, tuned and default, as Markdown."""
    try:
        found = time_to_target(made, metric, rule)
    except UserError as error:
        return f"No times to target: {error}.\n"
    costs = [name for name in STEP_COSTS if found.frame[name].notna().any()]
    lines = [
        f"Time to target: the first evaluation with the {metric_of(metric).title} at the target,",
        f"{found.rule}. Medians over seeds{aside(made.few_searches)}; one that never reached it "
        "counts as infinite.",
        "",
        "| phase | problem | target | optimizer | reached | epochs | steps | seconds "
        + "".join(f"| {COSTS[name]} " for name in costs)
        + "|",
        "|" + " --- |" * (8 + len(costs)),
    ]
    for row in found.frame.to_dict("records"):
        times = [row[name] for name in ("epochs", "steps", "seconds")]
        cells = [
            str(row.get("phase", "")), str(row["problem"]) or only_problem(made.table),
            final_text(row["target"], metric), str(row["optimizer"]),
            f"{row['reached']} of {row['seeds']}",
            *map(time_text, times),
            *(cost_cell(name, row[name], row["ms_per_step"]) for name in costs),
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    if found.note:
        lines += ["", f"{found.note[0].upper()}{found.note[1:]}."]
    return "\n".join(lines) + "\n"
