"""Measure rates of false claims between identical optimizers, and the power.

Simulated studies draw results from one distribution. The functions behind reports, tables and
claims judge the studies. A line counts studies with any claim (better, worse, held, did not hold),
with the upper end of Clopper and Pearson's 95 % interval. Power is the share of true claims that
are made. Seeds are fixed: the numbers are the same each time.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from optbench.analysis.claims.judge import claim_word
from optbench.analysis.claims.sides import Side, best_column, leading_first, p_of_best
from optbench.analysis.leader import best_settings, winner
from optbench.stats.paired_tests import differences, signed_rank
from optbench.stats.pairwise import DEFAULT_SEEDS, judge_pairs
from optbench.stats.power import rank_biserial

SPREAD_RANGE = 0.25, 3.0  # smallest and largest of the unequal spreads
KINDS = ("normal", "skewed", "heavy tails", "one in ten diverges", "unequal spreads")
DIFFERENCES = (1, 2, 3)
MAX_UPPER_END = 0.06  # of the interval around a rate of false claims
POWER_STUDIES = 100  # per line and difference
ABOUT = """Simulated studies with 8 seeds of optimizers that do not differ, judged by the functions
that reports, tables and claims call. Claims: the share of studies in which anything was claimed
(better, worse, held, did not hold); up to: the upper end of its 95 % interval (Clopper and
Pearson). Beside it the power, the share of true claims that were made in 100 studies each, at
differences of 1, 2 and 3 standard deviations of one optimizer's own noise (of the logarithm where
skewed, of the scale with heavy tails, which are Student's t with 2 degrees of freedom). The seed's
own part is as large as the noise. Skewed: lognormal. Unequal spreads: from 0.25 to 3."""
Study = Callable[[np.random.Generator, str, int, float], tuple[bool, float]]


def main() -> None:
    """Print a line per method and distribution; exit 1 if a rate may be too high."""
    parser = argparse.ArgumentParser(description=__doc__)
    # 2,000 studies are too few: at an exact level of up to 4.7 %, one line in four would pass 6 %.
    parser.add_argument("--studies", type=int, default=10_000, help="per line (10000)")
    parser.add_argument("--seeds", type=int, default=DEFAULT_SEEDS, help="of each study (8)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (0)")
    parser.add_argument("--write", action="store_true", help="the table in results/reliability")
    asked = parser.parse_args()
    lines: list[dict[str, Any]] = []
    print(f"{asked.studies} studies a line, {asked.seeds} seeds each", flush=True)
    print(f"{'compared':46}{'results':21}{'claims':>8}{'up to':>8}{'power at 1, 2, 3 sd':>24}")
    ways = [(name, kind, asked) for name in WAYS for kind in KINDS]
    with ProcessPoolExecutor() as pool:
        for line in pool.map(line_of, ways):
            shown = "".join(f"{line[f'power_at_{gap}_sd']:8.0%}" for gap in DIFFERENCES)
            rates = f"{line['claims']:8.2%}{line['up_to']:8.2%}"
            print(f"{line['compared']:46}{line['results']:21}{rates}{shown}", flush=True)
            lines.append(line)
    highest = max(line["up_to"] for line in lines)
    print(f"The highest upper end is {highest:.2%}; allowed: {MAX_UPPER_END:.0%}.")
    if asked.write:
        write(lines, f"false_positive_rate --studies {asked.studies} --write")
    raise SystemExit(highest > MAX_UPPER_END)


def line_of(way: tuple[str, str, argparse.Namespace]) -> dict[str, Any]:
    """Return a line of the table, for a way to compare and a distribution."""
    name, kind, asked = way
    count = false_claims(name, kind, asked.seeds, asked.studies, asked.seed)
    line: dict[str, Any] = {"compared": name, "results": kind, "seeds": asked.seeds}
    line |= {"studies": asked.studies, "claims": count / asked.studies}
    line["up_to"] = round(upper_end(count, asked.studies), 5)
    for gap in DIFFERENCES:
        few = min(POWER_STUDIES, asked.studies)
        seen = power(name, kind, asked.seeds, few, gap, asked.seed)
        line[f"power_at_{gap}_sd"] = round(seen, 5)
    return line


def false_claims(name: str, kind: str, seeds: int, studies: int, seed: int = 0) -> int:
    """Return the number of studies of identical optimizers with any claim."""
    random = np.random.default_rng([seed, seeds, list(WAYS).index(name), KINDS.index(kind)])
    return sum(WAYS[name](random, kind, seeds, 0.0)[0] for _ in range(studies))


def power(
    name: str, kind: str, seeds: int, studies: int, difference: float, seed: int = 0
) -> float:
    """Return the mean share of true claims that were made. difference: in sd."""
    random = np.random.default_rng([seed, seeds, list(WAYS).index(name), KINDS.index(kind), 1])
    return float(np.mean([WAYS[name](random, kind, seeds, difference)[1] for _ in range(studies)]))


def upper_end(count: int, studies: int) -> float:
    """Return the upper end of Clopper and Pearson's (1934) two-sided 95 % interval."""
    return 1.0 if count == studies else float(stats.beta.ppf(0.975, count + 1, studies - count))


def draw(
    random: np.random.Generator, kind: str, seeds: int, better: np.ndarray, difference: float
) -> np.ndarray:
    """Return final losses of runs, (seeds, series): a seed's part plus own noise.

    better: which series are lower, (series,), by `difference` in units of the noise (see ABOUT).
    """
    noise = random.normal(size=(seeds, len(better)))
    if kind == "heavy tails":
        noise = random.standard_t(2, size=(seeds, len(better)))
    if kind == "unequal spreads":
        noise *= random.permutation(np.linspace(*SPREAD_RANGE, len(better)))
    values = random.normal(size=(seeds, 1)) + noise - difference * better
    if kind == "skewed":
        return np.exp(values)
    if kind == "one in ten diverges":
        return np.where(random.random(values.shape) < 0.1, np.inf, values)
    return values


def frame_of(values: np.ndarray, names: list[str]) -> pd.DataFrame:
    """Return the values in the form of `pairing.by_seed`."""
    index = pd.MultiIndex.from_product([[""], range(len(values))], names=["problem", "seed"])
    return pd.DataFrame(values, index, names)


def fixed(random: np.random.Generator, kind: str, seeds: int, gap: float) -> tuple[bool, float]:
    """Judge a candidate against six others, as a tuned study's report does."""
    names = list("abcdefg")
    frame = frame_of(draw(random, kind, seeds, np.eye(7)[0], gap), names)
    words = [pair.outcome for pair in judge_pairs(frame, "a")]
    return any(word != "cannot tell" for word in words), words.count("worse") / 6


def first(random: np.random.Generator, kind: str, seeds: int, gap: float) -> tuple[bool, float]:
    """Judge the first of seven against the others, as an ordinary sweep's report does."""
    names = list("abcdefg")
    frame = frame_of(draw(random, kind, seeds, np.eye(7)[0], gap), names)
    leader = best_settings(frame, dict(zip(names, names, strict=True)))[0]
    words = [pair.outcome for pair in judge_pairs(frame, leader, chosen=True)]
    seen = words.count("worse") / 6 if leader == "a" else 0.0
    return any(word != "cannot tell" for word in words), seen


def matrix(random: np.random.Generator, kind: str, seeds: int, gap: float) -> tuple[bool, float]:
    """Judge all pairs of seven, as the matrix of a report does."""
    frame = frame_of(draw(random, kind, seeds, np.eye(7)[0], gap), list("abcdefg"))
    pairs = judge_pairs(frame)
    seen = sum(pair.a == "a" and pair.outcome == "better" for pair in pairs) / 6
    return any(pair.outcome != "cannot tell" for pair in pairs), seen


def bold(random: np.random.Generator, kind: str, seeds: int, gap: float) -> tuple[bool, float]:
    """Look for a series better than all other six, which a table would print bold."""
    found = winner(frame_of(draw(random, kind, seeds, np.eye(7)[0], gap), list("abcdefg")))
    return found is not None, float(found == "a")


def settings_of(count: int) -> Study:
    """Return a study of an optimizer at the best of `count` settings against another."""
    names = ["other", *(f"tried {index}" for index in range(count))]
    owners = {name: name.split(" ")[0] for name in names}
    better = np.array([0.0] + [1.0] * count)

    def study(random: np.random.Generator, kind: str, seeds: int, gap: float) -> tuple[bool, float]:
        frame = frame_of(draw(random, kind, seeds, better, gap), names)
        best = best_settings(frame, owners)
        (pair,) = judge_pairs(frame, best[0], chosen=True, among=best, owners=owners)
        return pair.outcome != "cannot tell", float(pair.a == "other" and pair.outcome == "worse")

    return study


def claim_of(checks: int) -> Study:
    """Return a study whose claim needs `checks` comparisons on the same seeds."""

    def study(random: np.random.Generator, kind: str, seeds: int, gap: float) -> tuple[bool, float]:
        better = np.array([1.0, 0.0] * checks)
        values = draw(random, kind, seeds, better, gap).T
        d = [differences(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
        word = claim_word([signed_rank(each) for each in d], [-rank_biserial(each) for each in d])
        return word != "cannot tell", float(word == "held")

    return study


def claim_at_best_of(count: int) -> Study:
    """Return a study whose claim compares the best of `count` settings with another."""

    def study(random: np.random.Generator, kind: str, seeds: int, gap: float) -> tuple[bool, float]:
        better = np.array([1.0] + [0.0] * count)
        frame = pd.DataFrame(draw(random, kind, seeds, better, gap))
        frame.columns = pd.Index([(k,) for k in range(1 + count)], tupleize_cols=False)
        parts = [frame.iloc[:, :1], frame.iloc[:, 1:]]
        a, b = (
            Side(name, part, ("lr",), best_column(part.to_numpy(), smaller=True), ())
            for name, part in zip("ab", parts, strict=True)
        )
        p, _ = p_of_best(*leading_first(a, b, smaller=True), smaller=True)
        word = claim_word([p], [-rank_biserial(differences(a.best, b.best))])
        return word != "cannot tell", float(word == "held")

    return study


WAYS: dict[str, Study] = {
    "a candidate fixed beforehand against 6": fixed,
    "the first of 7 against the others": first,
    "all pairs of 7": matrix,
    "the best of 7, in bold": bold,
    "the best of 6 settings against one": settings_of(6),
    "the best of 20 settings against one": settings_of(20),
    "a claim of 1 check": claim_of(1),
    "a claim of 4 checks": claim_of(4),
    "a claim of 8 checks": claim_of(8),
    "a claim at the best of 6 settings": claim_at_best_of(6),
    "a claim at the best of 12 settings": claim_at_best_of(12),
}


def write(lines: list[dict[str, object]], command: str) -> None:
    """Write the table as a section of results/reliability."""
    from scripts.reliability.sections import write_section
    from scripts.tables import markdown

    head = ["claims", "up to", *(f"{gap} sd" for gap in DIFFERENCES)]
    rows = []
    for line in lines:
        shares = [f"{float(str(value)):.1%}" for value in list(line.values())[4:]]
        row = {key: str(line[key]) for key in ("compared", "results")}
        rows.append(row | dict(zip(head, shares, strict=True)))
    write_section(
        "false-claims",
        "Identical optimizers called different",
        command=command,
        text=f"{ABOUT}\n\n" + "\n".join(markdown(rows)),
        rows=lines,
    )


if __name__ == "__main__":
    main()
