"""The verdict of a report: the leading optimizer, its margin, and the certainty."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from optbench.analysis.comparison import Comparison
from optbench.analysis.final_values import STEP_COSTS, timing_note
from optbench.analysis.leader import leader_of, medians_of
from optbench.analysis.pairing import by_seed, owners_of, run_keys
from optbench.analysis.trials import order_of, trial_scores
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.text import capital, enumerated, number, show
from optbench.report.sections.curves import Names
from optbench.report.sections.pairs import labels_of
from optbench.stats.corrections import MAX_TYPE, UNPAIRED, all_pairs, are_unpaired, least_seeds
from optbench.stats.pairwise import NO_DIFFERENCE, compare, words_of
from optbench.stats.tuning_curves import rate_width

OTHERS = {  # what a leader is compared with
    "optimizers": "{} others",
    "settings": "{} other settings",  # of the only optimizer
    "both": "the best setting of {} other optimizers",
}
TESTS = {
    MAX_TYPE: "p is of the two-sided sign-flip test of the largest |t| over all pairs of a "
    "problem, with every setting that was run.",
    UNPAIRED: "No two optimizers share a seed, so the runs are not paired: p is of the exact "
    "two-sided Wilcoxon rank-sum test, with Holm's correction over all pairs of a problem (the "
    "leader's alone if validation fixed the leader before).",
}
INTERVAL_NOTE = (
    "In a leader's card a difference is the Hodges-Lehmann estimate, other minus leader. Its 95 % "
    "interval is of that pair alone: it may leave out 0 where the corrected p is above 0.05."
)
MAX_NAMES = 3  # in one part of a headline; more of them are counted


def cards(made: Comparison, column: str, names: Names) -> list[dict[str, Any]]:
    """Return one verdict per problem. column: the final values that are compared.

    In a tuned study the leader is the first by validation, elsewhere the first by the compared
    values. Paired runs take the max-type test over all pairs, in a tuned study over its searches.
    """
    frame = by_seed(made, column, only=made.main)
    owners, labels = owners_of(frame), labels_of(made)
    smaller = metric_of(column).smaller
    costs, keys = made.costs, run_keys(made, only=made.main)
    by = "its best trials by validation" if made.tuned else "the values compared here"
    unit = made.unit
    if not made.tuned and len(set(owners.values())) not in (1, len(owners)):
        by += ", each optimizer at the best of its settings"
    found = []
    for problem, rows in frame.groupby(level="problem", sort=False):
        rows = rows.dropna(axis=1, how="all")
        here = keys[keys["problem"] == problem]
        tried = order_of(trials_of(made, here["run"]), made.protocol.metric) if made.tuned else []
        led = leader_of(rows, smaller, owners, tried)
        if led is None:
            continue
        (leader, fixed, ranked), medians = led, medians_of(rows)
        paired = not are_unpaired([rows.to_numpy(dtype=float)])
        correction = MAX_TYPE if paired else UNPAIRED
        pairs, apart = [], False
        if len(ranked) > 1:
            chosen = paired or not fixed
            try:
                against_all = compare(
                    rows, leader, smaller, chosen=chosen, among=ranked, owners=owners
                )
                pairs = against_all.to_dict("records")
            except UserError:
                apart = True
        comparisons = max(1, len(pairs))
        if correction == UNPAIRED and not fixed:
            comparisons = max(1, len(all_pairs(list(map(str, rows)), owners)))
        own = here["run"][here["variant"] == leader]
        cost = costs.loc[own].median()
        against = [
            {
                "name": pair["a"], "toggle": names.toggle(pair["a"], owners[pair["a"]]),
                "n": pair["n"], "difference": pair["difference"], "low": pair["low"],
                "high": pair["high"], "p": pair["p_corrected"],
                "improvement": 1 - pair["improvement"],
                "word": pair["verdict"].split(" (")[0], "text": words_of(pair["verdict"], unit),
            }
            for pair in pairs
        ]  # fmt: skip
        against.sort(key=lambda pair: ranked.index(str(pair["name"])))  # as in the ranked table
        kind = series_kind(owners, list(map(str, rows)))
        level, headline = sentence(leader, against, ranked.index(leader) + 1, kind, unit)
        if made.few_searches and against:
            said = headline.removeprefix("Cannot tell: ")
            cannot = "" if said == headline else " (cannot tell)"
            headline = f"{capital(made.few_searches)}{cannot}: {said}"
        if apart:
            level = "open"
            headline = f"Cannot tell: {leader} is first, and shares no seed with another one."
        if all(math.isinf(medians[name]) for name in ranked):
            whose = " of every optimizer" if rows.shape[1] > 1 else ""
            level, headline = "open", f"Cannot tell: the median run{whose} diverged."
        found.append(
            {
                "problem": labels[str(problem)] or task(made),
                "leader": leader,
                "toggle": names.toggle(leader, owners[leader]),
                "level": level,
                "headline": headline,
                "value": medians[leader],
                "column": column,
                "chosen": by,
                "n": int(rows[leader].notna().sum()),
                "lost": int(np.isinf(rows[leader].dropna().to_numpy()).sum()),
                "enough": least_seeds(comparisons, correction),
                "correction": correction,
                "against": against,
                "margin": ""
                if math.isinf(medians[leader])
                else margin(against, column, leader == ranked[0], made.few_searches),
                "cost": cost_text(
                    {name: float(cost[name]) for name in (*STEP_COSTS, "ms_spread", "step_spread")}
                ),
                "rate": rate_text(made, column, list(here["run"]), owners[leader], list(own)),
            }
        )
    return found


def nothing(made: Comparison, found: Sequence[dict[str, Any]]) -> str:
    """Return the sentence in place of `cards` if each of several problems has one series.

    The sentence tells how the values of a problem's key can be compared. Else "".
    """
    if len(found) < 2 or any(card["level"] != "none" for card in found):
        return ""
    plan = made.compared()
    name = "one optimizer" if len(set(plan.owners.values())) > 1 else plan.runs["optimizer"].iloc[0]
    text = f"Nothing to compare: {name} alone on each of {len(found)} problems."
    # results on different data are not compared
    keys = [key for key in plan.facet if key not in ("phase", "dataset.name")]
    if len(set(plan.owners.values())) > 1 or made.tuned or not keys:
        return text
    keys = [key.removesuffix(".name") for key in keys]
    which = " or ".join(keys)
    return f"{text} To compare the values of {which}: figure.lines={keys[0]}"


def note(found: Sequence[dict[str, Any]], key: str | None = None, unit: str = "seed") -> str:
    """Return which test gave the p-values of the `cards`, and why; "" without a pair.

    key: the problem's key whose values are compared, instead of optimizers. unit: search or seed.
    """
    corrections = {card["correction"] for card in found if card["against"]}
    if not corrections:
        return ""
    texts = ["Runs are paired by seed: the same initial weights, the same batches."]
    if unit == "search":
        texts = ["Searches are paired: their runs of the chosen settings have the same seeds."]
    elif key is not None:
        texts = [
            "Runs are paired by seed: the same order of the examples; initial weights may differ."
        ]
    texts = [] if UNPAIRED in corrections else texts
    texts += [text for correction, text in TESTS.items() if correction in corrections]
    return " ".join([*texts, INTERVAL_NOTE])


def trials_of(made: Comparison, runs: Iterable[str]) -> pd.DataFrame:
    """Return the `trial_scores` of the problem of the given runs."""
    digest = set(made.table.loc[made.table["run"].isin(set(runs)), "problem"].astype(str))
    scores = trial_scores(made.of_trials, *made.protocol)
    return scores[scores["problem"].isin(digest)]


def series_kind(owners: Mapping[str, str], series: Sequence[str]) -> str:
    """Return what a problem's series are, as a key of `OTHERS`.

    owners: the optimizer of each series.
    """
    several = len({owners[name] for name in series})
    return "settings" if several < 2 else "both" if several < len(series) else "optimizers"


def sentence(
    leader: str,
    against: Sequence[dict[str, Any]],
    place: int = 1,
    kind: str = "optimizers",
    unit: str = "seed",
) -> tuple[str, str]:
    """Return how clear a verdict is (clear, partly, open, none), and its words.

    place: the leader's place by the compared values. kind: of `OTHERS`. unit: search or seed.
    """
    if not against:
        return "none", f"Nothing to compare: {leader} was run alone."
    beaten = [str(pair["name"]) for pair in against if pair["word"] == "worse"]
    ahead = [str(pair["name"]) for pair in against if pair["word"] == "better"]
    unclear = [str(pair["name"]) for pair in against if pair["word"] == "cannot tell"]
    if ahead:
        return "partly", f"{leader} was chosen, yet {some(ahead, against, kind)} turned out better."
    if beaten:
        text = f"{leader} is better than {some(beaten, against, kind)}"
        if not unclear:
            return "clear", f"{text}."
        many = f"the other {len(unclear)}"
        rest = enumerated(unclear) if len(unclear) <= MAX_NAMES else many
        return "partly", f"{text}; it cannot be told from {rest}."
    n = min(int(pair["n"]) for pair in against)
    several = "searches" if unit == "search" else "seeds"
    reason = "one seed shows no spread" if n == 1 else f"n = {n} {several}"
    if all(NO_DIFFERENCE in str(pair.get("text")) for pair in against):
        others = some(unclear, against, kind)
        return "open", f"Cannot tell: {leader} and {others} are equal but for rounding ({reason})."
    if place > 1:
        return "open", (
            f"Cannot tell: validation chose {leader}, which is number {place} of "
            f"{len(against) + 1} by the final runs ({reason})."
        )
    return "open", f"Cannot tell: {leader} is first, but not shown to be better ({reason})."


def some(names: Sequence[str], against: Sequence[dict[str, Any]], kind: str) -> str:
    """Return some of the compared series in words: their names, or how many of all."""
    count = f"each of the {len(against)}"
    if len(names) < len(against):
        count = f"{len(names)} of the {len(against)}"
    few = len(names) == 1 or (len(names) <= MAX_NAMES and len(names) < len(against))
    return enumerated(names) if few else OTHERS[kind].format(count)


def task(made: Comparison) -> str:
    """Return the only problem as in "mlp on mnist_5k", or "" if there are several."""
    runs = made.plan.runs
    parts = [runs[key].map(show).unique() for key in ("model.name", "dataset.name") if key in runs]
    return " on ".join(str(part[0]) for part in parts) if all(len(p) == 1 for p in parts) else ""


def margin(
    against: Sequence[dict[str, Any]], column: str, first: bool = True, settings: str = ""
) -> str:
    """Return the leader's margin over the next: the difference with its interval.

    first: whether the leader is also the first by these values. settings:
    `comparison.settings_phrase`.
    """
    if not against:
        return ""
    next_one = against[0]
    values = [float(next_one[key]) for key in ("difference", "low", "high")]
    what, who = metric_of(column).label, "the next" if first else "the best other"
    who = capital(f"{settings}: {who}" if settings else who)
    if not math.isfinite(values[0]):
        return f"{who} by {what} is {next_one['name']}; diverged runs leave no difference."
    better = "lower" if metric_of(column).smaller else "higher"
    scale = 100 if metric_of(column).percent else 1
    texts = [f"{scale * v:+.3g}".replace("inf", "∞").replace("-", "\u2212") for v in values]
    unit = " points" if scale == 100 else ""
    interval = f"95 % interval {texts[1]} to {texts[2]}, n = {next_one['n']}"
    if math.isinf(values[1]) and math.isinf(values[2]) and values[1] < values[2]:
        interval = f"no 95 % interval at n = {next_one['n']}"
    behind = values[0] < 0 if metric_of(column).smaller else values[0] > 0
    paired = f" By these differences {next_one['name']} is ahead." if behind and first else ""
    return (
        f"{who}, {next_one['name']}, differs in final {what} ({better} is better) by "
        f"{texts[0]}{unit} ({interval}), p = {next_one['p']:.2g}.{paired}"
    )


def cost_text(cost: dict[str, float]) -> str:
    """Return the cost of a step in words, or "" if not measured."""
    words = []
    if math.isfinite(cost["ms_per_step"]):
        words.append(f"{number(cost['ms_per_step'])} ms per training step")
        if cost["runs_at_once"] > 1:
            words[0] += f" (an equal share: {cost['runs_at_once']:g} runs were trained together)"
    if math.isfinite(cost["step_ms"]) and words:
        about_all = cost["step_ms"] >= cost["ms_per_step"]
        part = "about all" if about_all else f"{number(cost['step_ms'])} ms"
        words.append(f"{part} of it the optimizer's")
    if math.isfinite(cost["state_bytes_per_parameter"]):
        size = cost["state_bytes_per_parameter"]
        words.append(f"{size:.3g} bytes of state per parameter")
    if math.isfinite(cost["peak_mb"]):
        words.append(f"{cost['peak_mb']:.0f} MB of memory at the peak")
    if spread := timing_note(pd.DataFrame([cost])):
        words.append(spread)
    return ", ".join(words)


def rate_text(
    made: Comparison, column: str, runs: Sequence[str], optimizer: str, leading: Sequence[str]
) -> str:
    """Return how far the leader's rate may be off within 5 % of the best; "" without two rates.

    runs: the runs of a problem. optimizer, leading: the leader's name, and its runs.
    """
    if made.tuned:
        scores = trials_of(made, runs)
        # as in verdict.md: neither the default setting nor follow-up trials
        scores = scores[(scores["optimizer"] == optimizer) & scores["drawn"]]
        rates, values, what = scores["lr"], scores["score"], made.protocol.metric
    else:
        if "optimizer.lr" not in made.table:
            return ""
        own = made.plan.runs.set_index("run")
        own = own[own.index.isin(set(runs)) & (own["optimizer"] == optimizer)]
        if own["optimizer.lr"].nunique() < 2:
            return ""
        # of the leader's other settings, such as its momentum
        but_rate = made.series(None, None, ["optimizer.lr"]).runs.set_index("run")["variant"]
        own = own[but_rate.reindex(own.index).isin(set(but_rate.reindex(list(leading))))]
        rates = pd.to_numeric(own["optimizer.lr"].astype(object), errors="coerce")
        values, what = made.finals(column).reindex(own.index), column
    x, y = rates.to_numpy(dtype=float), values.to_numpy(dtype=float)
    known = ~np.isnan(x) & ~np.isnan(y)
    try:
        width = rate_width(x[known], y[known], metric_of(what).smaller)
    except UserError:
        return ""
    if math.isnan(width.decades):
        return ""
    tried = np.unique(x[known])
    near = tried[(tried >= width.low * (1 - 1e-9)) & (tried <= width.high * (1 + 1e-9))]
    if len(near) == 1 and not (width.open_low or width.open_high):
        return (
            f"of {width.n} learning rates tried, {near[0]:.3g} alone is within 5 % of its best "
            f"{metric_of(what).label}: closer rates would tell how far it may be off"
        )
    more = "at least " if width.open_low or width.open_high else ""
    return (
        f"within 5 % of its best {metric_of(what).label} over {more}{width.decades:.2g} decades "
        f"of the learning rate ({width.low:.3g} to {width.high:.3g}; {width.n} rates tried)"
    )
