"""Judge a candidate against named baselines, on each problem and over all of them.

On each problem: signed-rank tests of the candidate, which was fixed beforehand, with Holm's
correction over all problems and baselines together. If the seeds are too few for that correction,
the max-type sign-flip test over the same pairs is used. The number of seeds alone decides between
the tests, never the values.

Over the problems: the exact signed-rank test of the differences between medians over seeds, with
Holm's correction over the baselines. Where an optimizer ran with several settings, the compared
values chose among them, and the max-type test over all pairs applies.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from optbench.analysis.columns import logged_columns
from optbench.analysis.comparison import Comparison, check_logged
from optbench.analysis.leader import best_settings
from optbench.analysis.pairing import by_seed, owners_of
from optbench.common.errors import UserError
from optbench.common.metrics import metric_of
from optbench.common.names import proposing
from optbench.stats.corrections import HOLM, MAX_TYPE, least_seeds
from optbench.stats.estimates import median
from optbench.stats.paired_tests import differences, enough_seeds, holm, signed_rank
from optbench.stats.pairwise import Judged, PairVerdict, compare_pair, judge_pairs

ALPHA = 0.05
NO_RESULTS = ("step", "epoch", "lr")  # logged columns that no verdict can be by
BETTER, CANNOT_TELL, WORSE = "better", "cannot tell", "worse"


class OnProblem(NamedTuple):
    """The candidate against one baseline on one problem."""

    problem: str
    baseline: str
    verdict: PairVerdict  # of the candidate


class OverProblems(NamedTuple):
    """The candidate against one baseline over the problems that both ran on."""

    baseline: str
    problems: int
    counts: Mapping[str, int]  # of problems, by outcome
    ahead: int  # problems on which the candidate's median is better, significantly or not
    verdict: PairVerdict | None  # of the medians; None with one problem
    raw_p: float  # before the correction; NaN with one problem
    outcome: str


class CandidateVerdict(NamedTuple):
    """The verdict on a candidate against all baselines, on each problem and over them."""

    candidate: str
    baselines: list[str]
    column: str
    chosen: bool  # whether the compared values chose among settings
    each: list[OnProblem]
    over: list[OverProblems]
    outcome: str  # better than every baseline; worse than one; or cannot tell
    settings: list[str]  # the series that the compared values chose among an optimizer's settings


def check_finished(made: Comparison) -> None:
    """Raise UserError for a tuned study that has trials alone so far."""
    phases = made.table.get("phase")
    if phases is not None and (phases.astype(str) == "trials").all():
        raise UserError(
            "the tuned study is unfinished: its trials alone say nothing of the optimizers. Repeat "
            "its command, which goes on (optbench status FOLDER says how far it is)"
        )


def judge(
    made: Comparison, candidate: str, baselines: Sequence[str] = (), y: str | None = None
) -> CandidateVerdict:
    """Return the verdict on a candidate against each baseline.

    baselines: by default all other optimizers. y: the final values that are compared, by default
    those of the sweep's verdict. Raises UserError for names that are no optimizer of the runs, for
    a column that chose the settings, and if the candidate shares no problem with a baseline.
    """
    check_finished(made)
    column = made.judged if y is None else y
    check_judges(made, column)
    check_chose_nothing(made, column)
    frame = by_seed(made, column, only=made.main)
    owners = owners_of(frame)
    check_names(candidate, baselines, list(dict.fromkeys(owners.values())))
    names = list(baselines) or sorted({*owners.values()} - {candidate})
    if not names:
        raise UserError(f"{candidate} was run alone: there is no baseline to compare it with")
    frame = frame[[name for name in frame if owners[str(name)] in {candidate, *names}]]
    smaller = metric_of(column).smaller
    best = best_by_problem(frame, owners, smaller)
    chosen = any(len(part) < held for part, held in best.values())
    each = on_each_problem(frame, owners, candidate, names, smaller, best, chosen)
    over = over_problems(frame, candidate, names, smaller, best, each)
    for entry in over:
        if not entry.problems:
            raise UserError(
                f"{candidate} and {entry.baseline} have no problem in common: run both on one"
            )
    outcomes = [entry.outcome for entry in over]
    outcome = WORSE if WORSE in outcomes else CANNOT_TELL
    if all(one == BETTER for one in outcomes):
        outcome = BETTER
    series = {s for part, _ in best.values() for owner, s in part.items() if s != owner}
    settings = sorted(series) if chosen else []
    return CandidateVerdict(candidate, names, column, chosen, each, over, outcome, settings)


def check_judges(made: Comparison, column: str) -> None:
    """Raise UserError unless a verdict can be by this column."""
    known = [c for c in logged_columns(made.table) if c not in NO_RESULTS and made.has(c)]
    check_logged(made.table, column, known)


def check_chose_nothing(made: Comparison, column: str) -> None:
    """Raise UserError if the column is one that chose the settings of a tuned study."""
    if made.of_study and column.startswith("val_"):
        raise UserError(
            f"{column} chose the settings of this tuned study, so it cannot judge them too: the "
            f"best of many trials looks better than it is. Judge by "
            f"{column.replace('val_', 'test_')}"
        )


def check_names(candidate: str, baselines: Sequence[str], known: Sequence[str]) -> None:
    """Raise UserError unless candidate and baselines are different known optimizers."""
    for what, name in [("candidate", candidate), *(("baseline", name) for name in baselines)]:
        if name not in known:
            raise UserError(
                f"the {what} {name!r} is no optimizer of these runs{proposing(name, known)}"
                f"There are: {', '.join(known)}"
                + (". Settings are compared by the sweep's own verdict" if "=" in name else "")
            )
    if candidate in baselines:
        raise UserError(f"{candidate} is the candidate and a baseline: name two optimizers")
    if len(set(baselines)) < len(baselines):
        raise UserError(f"a baseline is named twice: {', '.join(baselines)}")


Best = dict[str, tuple[dict[str, str], int]]  # by problem: series by optimizer, number of series


def best_by_problem(frame: pd.DataFrame, owners: Mapping[str, str], smaller: bool) -> Best:
    """Return the best series of each optimizer per problem, and the number of series."""
    found: Best = {}
    for problem, part in frame.groupby(level="problem", sort=False):
        part = part.dropna(axis=1, how="all")
        names = list(map(str, part))
        several = len({owners[name] for name in names}) > 1
        kept = best_settings(part, owners, smaller) if several else names
        found[str(problem)] = ({owners[name]: name for name in reversed(kept)}, len(names))
    return found


def on_each_problem(
    frame: pd.DataFrame,
    owners: Mapping[str, str],
    candidate: str,
    baselines: Sequence[str],
    smaller: bool,
    best: Best,
    chosen: bool,
) -> list[OnProblem]:
    """Return the verdict on the candidate against each baseline on each problem."""
    # the candidate's series, if no values chose among settings
    fixed = next(
        (part[candidate] for part, _ in best.values() if candidate in part and not chosen), None
    )
    if fixed is None:
        judged = judge_pairs(frame, None, smaller, ALPHA, owners=owners)
    else:
        judged = fixed_pairs(frame, fixed, smaller)
    found = []
    for problem, (series, _) in best.items():
        for baseline in baselines:
            pair = {series.get(candidate), series.get(baseline)}
            for one in judged:
                if one.problem == problem and {one.a, one.b} == pair:
                    own, other = one.values_a, one.values_b
                    if one.a != series[candidate]:
                        own, other = other, own
                    verdict = compare_pair(
                        own, other, smaller, ALPHA, one.p, one.comparisons, one.correction
                    )
                    found.append(OnProblem(problem, baseline, verdict))
    return found


def fixed_pairs(frame: pd.DataFrame, candidate: str, smaller: bool) -> list[Judged]:
    """Return the candidate's pairs, judged, if no optimizer has two settings."""
    judged = judge_pairs(frame, candidate, smaller, ALPHA)
    least = least_seeds(1, MAX_TYPE, ALPHA)
    pairs = [len(one.values_a) for one in judged]
    # a problem with fewer pairs can tell nothing by either test, and decides nothing here
    n = min((count for count in pairs if count >= least), default=max(pairs))
    if judged[0].correction != HOLM or n >= least_seeds(len(judged), HOLM, ALPHA):
        return judged
    if len(judged) == 1:
        return judged  # the max-type test of one pair needs as many
    sides = {str(name): "baseline" if name != candidate else "candidate" for name in frame}
    return judge_pairs(frame, candidate, smaller, ALPHA, chosen=True, owners=sides)


def over_problems(
    frame: pd.DataFrame,
    candidate: str,
    baselines: Sequence[str],
    smaller: bool,
    best: Best,
    each: Sequence[OnProblem],
) -> list[OverProblems]:
    """Return the verdict over the problems against each baseline."""
    medians = []
    for baseline in baselines:
        pairs = []
        for problem, (series, _) in best.items():
            if candidate in series and baseline in series:
                part = frame.xs(problem, level="problem")
                names = (series[candidate], series[baseline])
                pairs.append([median(part[name].dropna().to_numpy()) for name in names])
        medians.append(np.array(pairs, dtype=float).reshape(-1, 2))
    several = [index for index, pairs in enumerate(medians) if len(pairs) > 1]
    raw = {index: signed_rank(differences(*medians[index].T)) for index in several}
    corrected = dict(zip(several, map(float, holm([raw[i] for i in several])), strict=True))
    found = []
    for index, baseline in enumerate(baselines):
        verdict = None
        if index in corrected:
            own, other = medians[index].T
            verdict = compare_pair(own, other, smaller, ALPHA, corrected[index], len(several))
        outcomes = [one.verdict.outcome for one in each if one.baseline == baseline]
        counts = {word: outcomes.count(word) for word in (BETTER, WORSE, CANNOT_TELL)}
        found.append(
            OverProblems(
                baseline,
                len(medians[index]),
                counts,
                ahead_on(medians[index], smaller),
                verdict,
                raw.get(index, float("nan")),
                outcome_over(counts, verdict, len(several)),
            )
        )
    return found


def ahead_on(pairs: np.ndarray, smaller: bool) -> int:
    """Return on how many problems the candidate's median is better.

    pairs: (problems, 2), the medians of candidate and baseline.
    """
    own, other = pairs.T
    return int((own < other).sum() if smaller else (own > other).sum())


def outcome_over(counts: Mapping[str, int], verdict: PairVerdict | None, tests: int) -> str:
    """Return the outcome against one baseline over all problems.

    The test over the problems decides if there are enough problems to reach 0.05. With fewer, the
    outcome must be that of more than half of the problems, and no problem may have the opposite.
    """
    if verdict is not None and verdict.n >= enough_seeds(tests, ALPHA):
        return verdict.outcome
    total = sum(counts.values())
    for word, opposite in ((BETTER, WORSE), (WORSE, BETTER)):
        if 2 * counts[word] > total and not counts[opposite]:
            return word
    return CANNOT_TELL
