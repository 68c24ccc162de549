"""The verdict on a candidate as one sentence for a paper."""

import math
from collections.abc import Mapping, Sequence

from optbench.analysis.candidate.judge import (
    BETTER,
    CANNOT_TELL,
    WORSE,
    CandidateVerdict,
    OnProblem,
    OverProblems,
)
from optbench.analysis.pairing import PLURALS
from optbench.common.metrics import metric_of
from optbench.common.text import aside, capital, count, enumerated, number
from optbench.stats.corrections import HOLM, MAX_TYPE, UNPAIRED, too_few_seeds
from optbench.stats.paired_tests import MOST_EXACT_PAIRS
from optbench.stats.pairwise import PairVerdict
from optbench.stats.power import MOST_SEEDS

TEST_NAMES = {
    HOLM: "exact two-sided Wilcoxon signed-rank tests of runs paired by {unit}",
    MAX_TYPE: "two-sided sign-flip tests of the largest |t|, runs paired by {unit}",
    UNPAIRED: "exact two-sided Wilcoxon rank-sum tests of unpaired runs",
}
OVER_TEST = "exact two-sided Wilcoxon signed-rank test of the problems' medians"
MAX_BASELINES = 3  # of a sentence with numbers; with more baselines, it has the outcomes alone
MAX_PROBLEMS = 3  # of a sentence with the numbers of each problem
MAX_SETTINGS = 4  # that a caveat names
MAX_SCALES = 10.0  # largest ratio of two problems' values without a caveat


def name_of_test(correction: str, unit: str = "seed", n: int = 1) -> str:
    """Return the name of a correction's test.

    unit: what is paired, "seed" or "search". n: how many of them, or runs, there are at most.
    """
    name = TEST_NAMES[correction].format(unit=unit)
    return name if n <= MOST_EXACT_PAIRS else name.removeprefix("exact ")


def sentence(found: CandidateVerdict, unit: str = "seed") -> str:
    """Return what may be said of the candidate, with n, intervals and the test.

    unit: what is paired, "seed" or "search".
    """
    return told_of(found, f"{metric_text(found)}; {method_text(found, unit)}", unit)


def claim(found: CandidateVerdict, unit: str = "seed") -> str:
    """Return what may be said of the candidate, with n and intervals, without the method."""
    return told_of(found, metric_text(found), unit)


def told_of(found: CandidateVerdict, about: str, unit: str) -> str:
    """Return the outcomes against all baselines. about: stands in brackets at the end."""
    several = any(entry.problems > 1 for entry in found.over)
    each: dict[str, list[OnProblem]] = {entry.baseline: [] for entry in found.over}
    for one in found.each:
        each[one.baseline].append(one)
    scale = 100.0 if metric_of(found.column).percent else 1.0
    parts = "; it ".join(
        over_text(entry, each[entry.baseline], scale)
        if entry.problems > 1
        else only_text(entry, each[entry.baseline], scale, unit) + " (one problem)" * several
        for entry in found.over
    )
    if len(found.over) > MAX_BASELINES:
        parts = grouped_text(found.over)
    untold = [v for entry in found.over if (v := entry.verdict) and too_few_problems(v)]
    if untold:
        about += f"; fewer than {untold[0].least} problems are too few for a test over all of them"
    told = f"{found.candidate} {parts} ({about})."
    outcomes = {one.verdict.outcome for one in found.each} | {entry.outcome for entry in found.over}
    plain = outcomes <= {found.outcome} or len(found.over) > MAX_BASELINES
    return told if plain else f"{capital(found.outcome)}: {told}"


def grouped_text(over: Sequence[OverProblems]) -> str:
    """Return the outcomes against many baselines, by outcome."""
    names = {word: [e.baseline for e in over if e.outcome == word] for word in (BETTER, WORSE)}
    told = [f"is {word} than {enumerated(own)}" for word, own in names.items() if own]
    rest = [entry.baseline for entry in over if entry.outcome == CANNOT_TELL]
    if rest:
        few = len(rest) <= MAX_BASELINES
        who = enumerated(rest) if few else f"{'the other ' * bool(told)}{len(rest)} baselines"
        told.append(f"cannot be told from {who}")
    problems = max(entry.problems for entry in over)
    return enumerated(told) + (f" over {problems} problems" if problems > 1 else "")


def only_text(entry: OverProblems, each: list[OnProblem], scale: float, unit: str) -> str:
    """Return the verdict against one baseline on the only problem."""
    if not each:
        return f"cannot be told from {entry.baseline}: no seed in common"
    verdict = each[0].verdict
    needed = ""
    if verdict.outcome == CANNOT_TELL and verdict.n < verdict.needed <= MOST_SEEDS:
        what = "run" if verdict.correction == UNPAIRED else unit
        needed = f", about {count(round(verdict.needed), what, PLURALS[what])} needed"
    return f"{relation(verdict.outcome, entry.baseline)}: {estimate(verdict, scale)}{needed}"


def relation(outcome: str, baseline: str) -> str:
    """Return an outcome in words, as in "is better than adamw"."""
    if outcome == CANNOT_TELL:
        return f"cannot be told from {baseline}"
    return f"is {outcome} than {baseline}"


def estimate(verdict: PairVerdict, scale: float) -> str:
    """Return the difference with its interval, n and p. scale: 100 for per cent, else 1."""
    if not math.isfinite(verdict.difference):
        return f"runs diverged, n = {verdict.n}, p = {verdict.p:.2g}"
    interval = f"[{signed(scale * verdict.low)}, {signed(scale * verdict.high)}]"
    if math.isinf(verdict.low) and math.isinf(verdict.high) and verdict.low < verdict.high:
        interval = "(no 95 % interval)"
    return f"{signed(scale * verdict.difference)} {interval}, n = {verdict.n}, p = {verdict.p:.2g}"


def signed(value: float) -> str:
    """Return a difference with its sign; an infinite one is of a diverged run."""
    return f"{value:+.3g}" if math.isfinite(value) else "diverged"


def over_text(entry: OverProblems, each: list[OnProblem], scale: float) -> str:
    """Return the verdict against one baseline over several problems."""
    total = entry.problems
    words = []
    if entry.counts[BETTER]:
        words.append(f"is better than {entry.baseline} on {entry.counts[BETTER]} of {total}")
    if entry.counts[WORSE]:
        who = f" than {entry.baseline}" if not words else ""
        of = f" of {total}" if not words else ""
        words.append(f"{'worse' if words else 'is worse'}{who} on {entry.counts[WORSE]}{of}")
    unclear = total - entry.counts[BETTER] - entry.counts[WORSE]
    if each and all(one.verdict.n == 1 for one in each):
        words = [f"is ahead of {entry.baseline} on {entry.ahead} of {count(total, 'problem')}"]
    elif not words:
        words.append(f"cannot be told from {entry.baseline} on any of {count(total, 'problem')}")
    else:
        words[0] += f" problem{'' if total == 1 else 's'}"
        if unclear:
            words.append(f"cannot tell on {unclear}")
    text = ", ".join(words)
    if 1 < len(each) <= MAX_PROBLEMS and all(one.verdict.n > 1 for one in each):
        text += f" ({'; '.join(f'{one.problem}: {estimate(one.verdict, scale)}' for one in each)})"
    if entry.verdict is None:
        return text
    if too_few_problems(entry.verdict):
        return text
    over = "cannot tell" if entry.verdict.outcome == CANNOT_TELL else entry.verdict.outcome
    return f"{text}, over the problems {over}: {estimate(entry.verdict, scale)}"


def too_few_problems(verdict: PairVerdict) -> bool:
    """Return whether no outcome on so few problems can tell over all of them."""
    return verdict.outcome == CANNOT_TELL and verdict.n < verdict.least


def metric_text(found: CandidateVerdict) -> str:
    """Return what was compared, and which values are better."""
    metric = metric_of(found.column)
    better = "lower" if metric.smaller else "higher"
    scale = " in per cent" if metric.percent else ""
    return f"final {metric.label}{scale}, {better} is better"


def method_text(found: CandidateVerdict, unit: str) -> str:
    """Return the estimate, the seeds and the tests in words."""
    verdicts = [one.verdict for one in found.each]
    bounded = any(math.isfinite(v.low) or math.isfinite(v.high) for v in verdicts)
    interval = ", with its 95 % interval" if bounded or not verdicts else ""
    if interval and any(v.comparisons > 1 for v in verdicts):
        interval += " (uncorrected)"
    parts = [f"candidate minus baseline, Hodges-Lehmann{interval}"]
    if verdicts:
        low, high = min(v.n for v in verdicts), max(max(v.n, v.most) for v in verdicts)
        what = "run" if verdicts[0].correction == UNPAIRED else unit
        numbers = count(high, what, PLURALS[what])
        parts.append(numbers if low == high else f"{low} to {numbers}")
        spans = verdicts[0].comparisons
        corrected = ""
        if verdicts[0].correction != MAX_TYPE and spans > 1:
            corrected = f" with Holm's correction over {spans} comparisons"
        elif verdicts[0].correction == MAX_TYPE:
            corrected = f" over {count(spans, 'pair')}"
        parts.append(name_of_test(verdicts[0].correction, unit, high) + corrected)
    over = [v for entry in found.over if (v := entry.verdict) and not too_few_problems(v)]
    if over:
        more = f" with Holm's correction over {len(over)} baselines" if len(over) > 1 else ""
        parts.append(f"over the problems {OVER_TEST}{more}")
    return "; ".join(parts)


def caveats_of(found: CandidateVerdict, values: Mapping[str, float]) -> list[str]:
    """Return the caveats of this verdict.

    values: the median of the candidate on each problem.
    """
    told = []
    for verdict in [one.verdict for one in found.each if one.verdict.n < one.verdict.least][:1]:
        why = too_few_seeds(verdict.n, verdict.comparisons, verdict.correction)
        told += [f"n = {verdict.n}: {why}"] if why else []
    if found.chosen:
        told.append(
            f"the compared values chose among the settings of an optimizer"
            f"{aside(enumerated(found.settings[:MAX_SETTINGS]))}: name one setting of each with "
            f"--where, or tune on validation, for a sharper test"
        )
    sizes = [abs(value) for value in values.values() if math.isfinite(value) and value]
    if len(values) > 1 and sizes and max(sizes) > MAX_SCALES * min(sizes):
        told.append(
            f"the problems' values differ in scale (from {number(min(sizes))} to "
            f"{number(max(sizes))}): the test over the problems ranks plain differences, so those "
            f"of the largest scale weigh most"
        )
    return told
