"""The verdict on a candidate as `verdict.json`; `verdict.schema.json` is its form."""

import math
from typing import Any

import numpy as np

from optbench import __version__
from optbench.analysis.candidate.judge import ALPHA, CandidateVerdict, OverProblems, judge
from optbench.analysis.candidate.words import OVER_TEST, caveats_of, claim, name_of_test, sentence
from optbench.analysis.caveats import caveats
from optbench.analysis.comparison import Comparison
from optbench.analysis.pairing import by_seed, owners_of
from optbench.analysis.verdict import only_problem
from optbench.common.metrics import metric_of
from optbench.common.text import capital
from optbench.stats.corrections import HOLM, UNPAIRED
from optbench.stats.estimates import median
from optbench.stats.pairwise import PairVerdict

VERDICT_FORMAT = 1
EXIT_CODES = {"better": 0, "cannot tell": 3, "worse": 4}


def verdict_document(made: Comparison, found: CandidateVerdict) -> dict[str, Any]:
    """Return the content of `verdict.json`. Infinite and unknown numbers are null."""
    correction = found.each[0].verdict.correction if found.each else HOLM
    scope = ""
    if made.selection:
        scope = f"Of the runs with {made.selection} alone: "
    if made.few_searches:
        scope += f"{capital(made.few_searches)}: "
    over = [entry.verdict for entry in found.over if entry.verdict is not None]
    return {
        "format": VERDICT_FORMAT,
        "optbench": __version__,
        "candidate": found.candidate,
        "baselines": found.baselines,
        "metric": found.column,
        "better_is": "lower" if metric_of(found.column).smaller else "higher",
        "outcome": found.outcome,
        "claim": scope + claim(found, made.unit),
        "sentence": scope + sentence(found, made.unit),
        "unit": made.unit,
        "searches": made.searches,
        "alpha": ALPHA,
        "test": {
            "name": name_of_test(correction, made.unit),
            "correction": correction,
            "comparisons": found.each[0].verdict.comparisons if found.each else 0,
            "paired": correction != UNPAIRED,
        },
        "problems": [
            {
                "problem": one.problem or only_problem(made.table),
                "baseline": one.baseline,
                **numbers(one.verdict),
            }
            for one in found.each
        ],
        "over_problems": {
            "test": OVER_TEST if over else None,
            "correction": HOLM if over else None,
            "baselines": [over_entry(entry) for entry in found.over],
        },
        "caveats": [
            *caveats_of(found, candidate_medians(made, found)),
            *caveats(made, found.column, leader=False),
        ],
    }


def numbers(verdict: PairVerdict) -> dict[str, Any]:
    """Return the numbers of one comparison; `p` is corrected."""
    return {
        "outcome": verdict.outcome,
        "n": verdict.n,
        "difference": finite(verdict.difference),
        "low": finite(verdict.low),
        "high": finite(verdict.high),
        "p": verdict.p,
        "seeds_needed": finite(verdict.needed),
    }


def over_entry(entry: OverProblems) -> dict[str, Any]:
    """Return the numbers over the problems against one baseline."""
    found: dict[str, Any] = {
        "baseline": entry.baseline,
        "outcome": entry.outcome,
        "problems": entry.problems,
        "ahead": entry.ahead,
        "better": entry.counts["better"],
        "worse": entry.counts["worse"],
        "cannot_tell": entry.counts["cannot tell"],
        "difference": None, "low": None, "high": None, "p": None, "p_uncorrected": None,
    }  # fmt: skip
    if entry.verdict is not None:
        told = numbers(entry.verdict)
        found |= {key: told[key] for key in ("difference", "low", "high", "p")}
        found["p_uncorrected"] = entry.raw_p
    return found


def finite(value: float) -> float | None:
    """Return a number, or None for one that is infinite or unknown."""
    return float(value) if math.isfinite(value) else None


def candidate_medians(made: Comparison, found: CandidateVerdict) -> dict[str, float]:
    """Return the candidate's median on each problem."""
    frame = by_seed(made, found.column, only=made.main)
    owners = owners_of(frame)
    own = [name for name in frame if owners[str(name)] == found.candidate]
    each = {
        str(problem): part[own].to_numpy(dtype=float).ravel()
        for problem, part in frame.groupby(level="problem", sort=False)
    }
    ran = {problem: values[~np.isnan(values)] for problem, values in each.items()}
    return {problem: median(values) for problem, values in ran.items() if len(values)}


def asked_verdict(made: Comparison, y: str | None = None) -> dict[str, Any] | None:
    """Return the document on the candidate that the options name; None without one."""
    if made.options.candidate is None:
        return None
    found = judge(made, made.options.candidate, made.options.baseline or (), y)
    return verdict_document(made, found)
