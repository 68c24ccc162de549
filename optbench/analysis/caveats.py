"""Caveats: a reviewer's objections to a comparison, from its runs and manifests."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from optbench.analysis.columns import is_variant
from optbench.analysis.comparison import Comparison
from optbench.analysis.final_values import seeds_text
from optbench.analysis.leader import first_against_second, ranked
from optbench.analysis.pairing import pair_up, units
from optbench.analysis.series import Layout
from optbench.analysis.time_to_target import asked_times
from optbench.analysis.tuned.inclusion import under_tuned
from optbench.common.errors import UserError
from optbench.common.metrics import NEVER_CHANGED, metric_of, target_text
from optbench.common.text import aside, count, enumerated, is_number, show
from optbench.formats import job_list
from optbench.formats.job_list import Job
from optbench.stats.corrections import MAX_TYPE, UNPAIRED, least_seeds, too_few_seeds
from optbench.stats.estimates import median
from optbench.stats.pairwise import DEFAULT_SEEDS, words_of
from optbench.stats.tuning_curves import check_exchangeable

DECAYING = ("cosine", "exponential", "one_cycle", "step", "trapezoid", "warmup_cosine")  # schedules
FEW_SEEDS = "no two-sided"  # stands in every caveat on too few seeds: see `too_few_seeds`
SETTLES = "; this settles it: "  # stands before the command that adds seeds
UNEQUAL_BUDGETS = "the budgets are unequal"
IMPORTED = (
    "optbench did not train these runs: that their problems, budgets and tuning were the same is "
    "the word of the one who imported them"
)
ENDED_BY = {  # the values of the column "stopped"
    "early_stopping": "for lack of progress (early_stopping)",
    "stop_at": "at their target (stop_at)",
    "budget_seconds": "after their seconds (budget_seconds)",
}
SEARCHES_NEEDED = f"tuning.repeats={least_seeds(1, MAX_TYPE)} searches or more are needed"
TRAINING = ("train_loss", "running_loss")
UNEQUAL_GRADIENTS = 1.2  # times as many a step
MISSED_TARGET = "no run reached the target"
MOST_LEADER_SENTENCES = 2  # more of them are only counted


def caveats(made: Comparison, y: str | None = None, leader: bool = True) -> list[str]:
    """Return a sentence for each caveat of runs that are ranked by the final `y`.

    y: by default the column of the verdict, so that a caveat and the verdict speak of one value.
    leader: whether to include the caveats on the leader: too few seeds to tell the leader from the
    others, and a leader that is not shown to be better than the second.
    """
    y = y or made.judged
    told = [text for manifest in made.manifests for text in manifest["warnings"]]
    plan, trials = made.plan, made.of_trials.table
    found = [*told, *missing_jobs(made), *unequal_budgets(made)]
    found += [IMPORTED] if made.imported else []
    found += diverged_runs(made.table, "run")
    found += unmoved(made)
    found += early_ends(made.table)
    found += unequal_gradients(made)
    found += [] if made.manifests or not made.tuned else diverged_runs(trials, "trial")
    try:
        check_exchangeable(trials)
    except UserError as error:
        found += [str(error)] if made.tuned else []
    finals = made.finals(y)
    found += times_before_decay(made)
    found += targets_missed(made)
    found += [] if made.manifests else rates_at_edge(plan, finals, y)
    few: list[str] = []
    if leader and not any(FEW_SEEDS in text for text in told):
        few = list(few_seeds(made, MAX_TYPE if made.paired else UNPAIRED))
    found += few
    if leader and (made.tuned or not few):  # too few seeds already say that none is proven
        found += unproven_leaders(plan, finals, y, made)
    if leader and not made.tuned and y in TRAINING and made.has("val_loss"):
        found += overfitted_leaders(plan, finals, made)
    if made.manifests:
        found += under_tuned(made, made.protocol.metric.replace("val_", "test_"))
    return list(dict.fromkeys(found))


def is_missed_target(text: str) -> bool:
    """Return whether a caveat is of an asked target that no run reached."""
    return text.startswith(MISSED_TARGET)


def unmoved(made: Comparison) -> Iterator[str]:
    """Yield a caveat for optimizers with a run whose training loss never changed."""
    if not made.has("train_loss"):
        return
    table = made.table[np.isfinite(made.table["train_loss"])]
    each = table.groupby("run", observed=True)["train_loss"].agg(["size", "min", "max"])
    still = each.index[(each["size"] > 1) & (each["min"] == each["max"])]
    runs = made.table.drop_duplicates("run")
    names = dict.fromkeys(map(str, runs[runs["run"].isin(still)]["optimizer"]))
    if names:
        yield f"the training loss of {enumerated(list(names))} {NEVER_CHANGED}"


def targets_missed(made: Comparison) -> Iterator[str]:
    """Yield a caveat for each problem whose asked target no run reached."""
    found = asked_times(made) if made.options.target is not None else None
    if found is None:
        return
    for problem, part in found.frame.groupby("problem", sort=False):
        label, where = metric_of(found.column).label, f" on {problem!s}" if problem else ""
        target = target_text(float(part["target"].iloc[0]), found.column)
        if (part["steps_max"] == 0).all():
            yield f"all runs are at the target, a {label} of {target}{where}, before any step"
        if not part["reached"].any():
            yield (
                f"{MISSED_TARGET}, a {label} of {target}{where}: choose one that some "
                f"run reaches (figure.target, --target)"
            )


def missing_jobs(made: Comparison) -> Iterator[str]:
    """Yield a caveat for each compared sweep with planned runs that are not done."""
    for folder in made.files.folders if made.files is not None else ():
        if folder not in made.job_lists:
            continue  # no sweep
        try:
            done = job_list.progress_of(*made.job_lists[folder])
        except (ValueError, KeyError, TypeError):
            continue  # a list of an older version
        if done["missing"]:
            own = {str(job.get("run")) for job in made.job_lists[folder][1]}
            runs = map(Path, made.table["run"].astype(str).unique())
            others = [run for run in runs if run.parent == folder and run.name not in own]
            yield (
                f"{done['missing']} of {count(done['planned'], 'planned run')} of {folder} "
                f"{'is' if done['missing'] == 1 else 'are'} missing"
                + (f" (or among {len(others)} runs of earlier commands)" if others else "")
                + f": the sweep's command runs {'it' if done['missing'] == 1 else 'them'}"
            )


def unequal_budgets(made: Comparison) -> Iterator[str]:
    """Yield a caveat if optimizers had unequal numbers of trials or settings.

    Numbers are compared within a problem: all optimizers of a search get equally many follow-up
    trials, but different problems do not.
    """
    plan, manifests = made.plan, made.manifests
    counts: dict[str, list[tuple[int, str]]] = defaultdict(list)
    entries = [entry for manifest in manifests for entry in manifest["contenders"]]
    if made.trials is not None:  # a manifest knows only the last command's optimizers
        given = {str(entry["optimizer"]) for entry in entries if not entry.get("space", True)}
        runs = made.trials.drop_duplicates("run").astype({"problem": str, "optimizer": str})
        keys = [key for key in ("problem", "optimizer", "schedule.name") if key in runs]
        tried = Counter(runs[keys].astype(str).itertuples(index=False, name=None))
        for (problem, optimizer, *_), size in tried.items():
            if optimizer not in given:
                counts[problem].append((size, optimizer))
    if len(manifests) > 1:
        for entry in entries:
            search = f"{entry.get('problem')} {entry.get('repeat')}"
            counts[search].append((len(entry["trials"]), str(entry["optimizer"])))
    told = any(UNEQUAL_BUDGETS in text for manifest in manifests for text in manifest["warnings"])
    unequal = [found for found in counts.values() if min(found)[0] < max(found)[0]]
    if not told and unequal:
        (low, first), (high, last) = min(unequal[0]), max(unequal[0])
        yield f"{UNEQUAL_BUDGETS}: {low} trials ({first}) to {high} ({last})"
    phase = plan.runs["phase"].map(show) if "phase" in plan.runs else pd.Series(dtype=str)
    if (phase == "tuned").any() and (other := ~phase.isin(["tuned", "default", "trials"])).any():
        who = ", ".join(sorted(set(plan.runs.loc[other, "optimizer"])))
        yield (
            f"tuned runs stand beside runs outside of a tuned study ({who}): unequal budgets; what "
            f"is said of pairs and of times to target is of the tuned ones alone"
        )
    elif not made.options.lines and not manifests:
        # by problem: of many settings, each optimizer has a panel of its own
        settings = plan.runs.groupby([plan.problems, plan.runs["optimizer"]])["variant"].nunique()
        for _, part in settings.groupby(level=0, sort=False):
            if part.min() < part.max():
                names = part.index.get_level_values("optimizer")
                few, many = names[int(part.argmin())], names[int(part.argmax())]
                yield (
                    f"unequal numbers of settings were tried: {part.min()} ({few}) to "
                    f"{part.max()} ({many}); p-values are corrected for that choice, yet more "
                    "settings find better ones"
                )


def unequal_gradients(made: Comparison) -> Iterator[str]:
    """Yield a caveat if optimizers of one problem took unequal numbers of gradients a step."""
    if not {"gradients", "step"} <= set(made.table):
        return
    ends = made.table.drop_duplicates("run", keep="last")
    ends = ends.assign(each=ends["gradients"] / ends["step"].where(ends["step"] > 0))
    of_problem = ends.dropna(subset=["each"]).astype({"optimizer": str}).groupby("problem")
    counted = made.options.x in ("gradients", "forwards")
    shown = "" if counted else ", which figure.x=gradients (--x) shows"
    for _, part in of_problem:
        each = part.groupby("optimizer")["each"].median()
        most, least = str(each.idxmax()), str(each.idxmin())
        if each[most] > UNEQUAL_GRADIENTS * each[least]:
            yield (
                f"{most} takes {each[most]:.3g} gradients a step, and {least} {each[least]:.3g}: "
                f"equal numbers of steps are unequal work{shown}"
            )
            return


def diverged_runs(table: pd.DataFrame, what: str) -> Iterator[str]:
    """Yield a caveat for each optimizer most of whose runs diverged."""
    runs = table.drop_duplicates("run")
    if (runs["status"] == "diverged").all():
        lost = len(runs)
        text = f"all {count(lost, what)} diverged" if lost > 1 else f"the only {what} diverged"
        if np.isfinite(table["train_loss"]).any():
            yield f"{text}: there is nothing to compare; try smaller learning rates"
        else:
            yield (
                f"{text} before the first step: no loss was finite, so there is no curve to draw; "
                f"look at the loss, the model and the data"
            )
        return
    for name, part in runs.groupby(runs["optimizer"].astype(str), sort=False):
        lost = int((part["status"] == "diverged").sum())
        if 2 * lost > len(part):
            yield f"{name}: {lost} of {count(len(part), what)} diverged"


def early_ends(table: pd.DataFrame) -> Iterator[str]:
    """Yield a caveat for each way in which runs ended before their budget of steps."""
    runs = table.drop_duplicates("run")
    if "stopped" not in runs:
        return
    for by, words in ENDED_BY.items():
        part = runs[runs["stopped"].astype(object) == by]
        if len(part):
            rest = "" if len(part) == len(runs) else ", and others used up their budget of steps"
            yield (
                f"{len(part)} of {count(len(runs), 'run')} ended early {words} "
                f"({by_optimizer(part)}){rest}: their last values are those of unequal numbers of "
                f"steps"
            )
    if "stop_at.value" in runs:
        asked = runs[are_numbers(runs["stop_at.value"])]
        missed = asked[asked["stopped"].astype(object) != "stop_at"]
        if len(missed):
            yield (
                f"{len(missed)} of {count(len(asked), 'run')} did not reach the target of stop_at "
                f"({by_optimizer(missed)})"
            )
    if "budget_seconds" in runs and any(are_numbers(runs["budget_seconds"])):
        yield (
            "runs with a budget of seconds are not repeatable bit for bit: on another machine, or "
            "beside other work, they end at other steps"
        )


def are_numbers(values: pd.Series) -> list[bool]:
    """Return which values of a config key are numbers, rather than null or missing."""
    return [is_number(show(value)) for value in values]


def by_optimizer(runs: pd.DataFrame) -> str:
    """Return the number of runs of each optimizer, as in "adam 3, sgd 1"."""
    counts = Counter(runs["optimizer"].astype(str))
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def times_before_decay(made: Comparison) -> Iterator[str]:
    """Yield a caveat if times to target are read before a schedule's decay is over.

    A run with only that budget would have decayed by then, and so reached the target earlier.
    """
    if "schedule.name" not in made.table:
        return
    table = made.table[made.table["schedule.name"].astype(str).isin(DECAYING)]
    try:
        found = asked_times(made) if len(table) else None
    except UserError:
        return  # a target that nothing reaches is reported where it is asked for
    if found is None:
        return
    ends = table.groupby("run", observed=True)["step"].last()
    times = found.times.to_numpy(dtype=float)
    if not (times[np.isfinite(times)] < ends.max()).any():
        return
    names = ", ".join(sorted(set(table["schedule.name"].astype(str))))
    text = (
        f"times to target are read inside runs whose schedule ({names}) decays to their end: a "
        f"shorter run would have decayed by then"
    )
    command = budgets_command(made)
    yield text + (f"; this runs each budget to its own end: {command}" if command else "")


def budgets_command(made: Comparison) -> str:
    """Return the command that repeats the only sweep with shorter budgets, or ""."""
    if (planned := only_command(made)) is None:
        return ""
    for key in ("steps", "epochs"):
        numbers = pd.to_numeric(
            made.table.get(key, pd.Series(dtype=float)).astype(object), errors="coerce"
        )
        if len(numbers) and (numbers == numbers.iloc[0]).all():
            whole = int(numbers.iloc[0])
            shares = sorted({max(1, whole // 4), max(1, whole // 2), whole})
            return job_list.with_value(planned, key, ",".join(map(str, shares)))
    return ""


def rates_at_edge(plan: Layout, finals: "pd.Series[float]", y: str) -> Iterator[str]:
    """Yield a caveat if an optimizer's best of three or more lrs is the last tried.

    The lrs are those of its best setting, such as its best momentum.
    """
    if "optimizer.lr" not in plan.runs:
        return
    others = [key for key in plan.runs if is_variant(str(key)) and key != "optimizer.lr"]
    runs = plan.runs.assign(
        y=plan.runs["run"].map(finals),
        lr=pd.to_numeric(plan.runs["optimizer.lr"], errors="coerce"),
        rest=plan.runs[others].map(show).agg(", ".join, axis=1) if others else "",
    ).dropna(subset=["y", "lr"])
    where = plan.problems.reindex(runs.index)
    for (problem, name), part in runs.groupby([where, runs["optimizer"]], sort=False):
        medians = part.groupby(["rest", "lr"])["y"].agg(lambda v: median(v.to_numpy(dtype=float)))
        medians = medians[np.isfinite(medians)]
        if medians.empty:
            continue
        smaller = metric_of(y).smaller
        rest, best = medians.index[int(medians.argmin() if smaller else medians.argmax())]
        tried = part.loc[part["rest"] == rest, "lr"]
        if tried.nunique() < 3:
            continue
        ends = {tried.min(): "smallest", tried.max(): "largest"}
        if best in ends:
            panel = f"{problem}: " if problem else ""
            yield f"{panel}{name}: the best learning rate ({best:g}) is the {ends[best]} tried"


def few_seeds(made: Comparison, correction: str) -> Iterator[str]:
    """Yield a caveat if the seeds are too few to tell the leader from the others."""
    plan = made.plan
    of_problem = plan.runs.groupby(plan.problems)["variant"].transform("nunique")
    compared = plan.runs[of_problem > 1]  # one alone on a problem is compared with nothing
    counts = compared.groupby(["panel", "optimizer", "variant"]).size()
    series = int(of_problem.max())
    rivals = series * (series - 1) // 2 if correction == UNPAIRED else series - 1
    if rivals and (why := too_few_seeds(int(counts.min()), rivals, correction)):
        command = settling_command(made, max(DEFAULT_SEEDS, least_seeds(rivals, correction)))
        seeds = f"{seeds_text(counts)}{aside(made.few_searches)}"
        yield f"{seeds}: {why}" + (f"{SETTLES}{command}" if command else "")


def settling_command(made: Comparison, seeds: int) -> str:
    """Return the command that repeats the only sweep with so many seeds, or ""."""
    if (planned := only_command(made)) is None:
        return ""
    done = sorted({int(seed) for seed in made.table["seed"].unique()})
    return job_list.with_more_seeds(planned, done, seeds)


def only_command(made: Comparison) -> Job | None:
    """Return the plan of the only sweep if its last command has each of the compared series.

    None after commands of several optimizers into one folder, since repeating the last one would
    leave out the others.
    """
    planned, own = made.only_sweep
    if planned is None:
        return None
    series = made.plan.runs[["panel", "optimizer", "variant"]].astype(str).agg(tuple, axis=1)
    repeated = made.plan.runs["run"].map(lambda run: Path(str(run)).name in own)
    return planned if set(series) <= set(series[repeated]) else None


def unproven_leaders(
    plan: Layout, finals: "pd.Series[float]", y: str, made: Comparison
) -> Iterator[str]:
    """Yield a caveat for each leader that is not shown to be better than the second.

    The compared values chose the leader, so the max-type test over all pairs applies. Its outcome
    is that of the report's verdict on this pair. With few searches the caveat is on the settings
    found, and asks for searches: more seeds would tell nothing of the optimizers.
    """
    of_settings = f"{made.few_searches}: " if made.few_searches else ""
    smaller = metric_of(y).smaller
    runs = units(plan.runs).assign(problem=plan.problems)
    frame, owners = pair_up(runs, finals), plan.owners
    found, panels = [], 0
    for problem, part in frame.groupby(level="problem", sort=False):
        if not np.isfinite(part.to_numpy(dtype=float)).any():
            continue  # all diverged
        compared = first_against_second(part, smaller, owners)
        if compared is None:
            continue  # nothing to compare, or without common seeds
        panels += 1
        second, verdict = compared
        if verdict.outcome != "worse":
            where = f"{problem}: " if problem else ""
            told = words_of(verdict.text, made.unit)
            if of_settings:
                told = f"cannot tell (n = {verdict.n} seeds; for the optimizers {SEARCHES_NEEDED})"
            first = ranked(part, smaller)[0]
            found.append(
                f"{where}{of_settings}{first} is first by median {metric_of(y).label}, which does "
                f"not make it better than {second}: {told}"
            )
    if len(found) <= MOST_LEADER_SENTENCES:
        yield from found
    else:
        yield (
            f"{of_settings}in {len(found)} of {panels} panels the first by {metric_of(y).label} is "
            f"not shown to be better than the second"
            + (f" (for the optimizers {SEARCHES_NEEDED})" if of_settings else "")
        )


def overfitted_leaders(plan: Layout, finals: "pd.Series[float]", made: Comparison) -> Iterator[str]:
    """Yield a caveat for each proven leader by training loss that validation data refute.

    Its validation loss is then above that of another one in every seed that both have.
    """
    runs = units(plan.runs).assign(problem=plan.problems)
    trained, held_out = pair_up(runs, finals), pair_up(runs, made.finals("val_loss"))
    for problem, part in trained.groupby(level="problem", sort=False):
        compared = first_against_second(part, True, plan.owners)
        if compared is None or compared[1].outcome != "worse" or problem not in held_out.index:
            continue
        first, losses = ranked(part, True)[0], held_out.loc[[problem]]
        behind = {}
        for name in losses.columns.drop(first):
            both = losses[[first, name]].dropna()
            if len(both) and (both[first] > both[name]).all():
                behind[name] = (median(both[name].to_numpy(dtype=float)), len(both))
        if behind:
            best = min(behind, key=behind.__getitem__)
            where = f"{problem}: " if problem else ""
            yield (
                f"{where}{first} is first by training loss, and worse than {best} by validation "
                f"loss in each of {behind[best][1]} seeds: figure.y=val_loss judges by that"
            )
