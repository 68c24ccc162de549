"""Simulate whole tuned studies of optimizers that do not differ, and count their claims.

A study searches each optimizer anew in every repeat, as `optbench.tuning` does: the default setting
and the points of a scrambled Sobol sequence, judged by one noisy validation result each. The best
of a search is measured with new seeds. `optbench.stats.pairwise` judges the searches' means as the
verdict of a tuned study does. The optimizers are alike, but have points and noise of their own.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from optbench.stats.pairwise import judge_pairs
from optbench.tuning import search
from scripts.reliability.false_positive_rate import MAX_UPPER_END, upper_end

TRIALS = (5, 10, 20, 50)
OPTIMIZERS = 3
DIFFERENCES = (0.01, 0.02, 0.05)  # of the final loss
# of the log loss over the unit square: of a learning rate, and of a decay. With these, two searches
# of one optimizer, each run on 8 seeds, are called different in 30 to 69 % of the studies.
CURVATURE = (2.0, 0.5)
SEED_NOISE = 0.02  # standard deviation of the log loss over seeds
POWER_STUDIES = 400
SPACE = {name: {"low": 0.0, "high": 1.0, "scale": "linear"} for name in ("x", "y")}
ABOUT = """Simulated tuned studies of 3 optimizers, whose whole procedure is that of the product:
{repeats} searches of each, the default setting and a scrambled Sobol sequence in two dimensions,
the choice by one validation result a trial, 2 new seeds, and the verdict over the searches' means
(the first by validation against the others, max-type sign-flip test). The log loss is a bowl
with curvatures of {steep:g} and {flat:g} over the space and a default setting 0.2 from its
bottom; seeds add 2 %, of which half is shared by the optimizers. Seeds alone: the share of
claims where two searches of one optimizer are each run on 8 seeds, and no search is repeated.
Claims: the share of {studies} studies of identical optimizers in which anything was claimed; up
to: the upper end of its 95 % interval. Power: one optimizer is better by so much, and the share
of the true claims against the two others that are made, in {power} studies. Luck: the standard
deviation of the final loss over searches."""


def main() -> None:
    """Print a line for each number of trials; exit 1 if a rate may be too high."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=4000, help="of a line (4000)")
    parser.add_argument("--repeats", type=int, default=8, help="searches (8)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (0)")
    parser.add_argument("--write", action="store_true", help="the table in results/reliability")
    asked = parser.parse_args()
    lines = []
    with ProcessPoolExecutor() as pool:
        for line in pool.map(line_of, [(trials, asked) for trials in TRIALS]):
            print("  ".join(f"{key} {value}" for key, value in line.items()), flush=True)
            lines.append(line)
    if asked.write:
        write(lines, asked)
    raise SystemExit(max(line["up_to"] for line in lines) > MAX_UPPER_END)


def line_of(way: tuple[int, argparse.Namespace]) -> dict[str, Any]:
    """Return a line of the table: false claims, luck and power with so many trials."""
    trials, asked = way
    random = np.random.default_rng([asked.seed, trials])
    finals = [study(random, trials, asked.repeats) for _ in range(asked.studies)]
    count = sum(any(claims(*found)) for found in finals)
    alone = [any(claims(seeds_alone(random, trials), 0)) for _ in range(POWER_STUDIES)]
    luck = float(np.mean([np.log(values).std(axis=0, ddof=1).mean() for values, _ in finals]))
    line = {"trials": trials, "studies": asked.studies, "seeds_alone": float(np.mean(alone))}
    line |= {"claims": count / asked.studies}
    line |= {"up_to": round(upper_end(count, asked.studies), 5), "luck": round(luck, 4)}
    for gap in DIFFERENCES:
        seen = [
            np.mean(claims(*study(random, trials, asked.repeats, gap), better=0))
            for _ in range(min(POWER_STUDIES, asked.studies))
        ]
        line[f"power_at_{gap:.0%}"] = float(np.mean(seen))
    return line


def study(
    random: np.random.Generator, trials: int, repeats: int, gap: float = 0.0
) -> tuple[np.ndarray, int]:
    """Return a study's final losses, (searches, optimizers), and the first by validation.

    gap: by which share the first optimizer's losses are lower.
    """
    finals, best = np.empty((repeats, OPTIMIZERS)), np.empty((repeats, OPTIMIZERS))
    for repeat in range(repeats):
        shared = random.normal(size=2) * SEED_NOISE / np.sqrt(2)  # of the new seeds
        for own in range(OPTIMIZERS):
            found, tried = searched(random, trials)
            new = shared + random.normal(size=2) * SEED_NOISE / np.sqrt(2)
            share = 1 - gap * (own == 0)
            finals[repeat, own] = np.exp(found + new).mean() * share
            best[repeat, own] = np.exp(tried) * share
    return finals, int(np.argmin(np.median(best, axis=0)))


def searched(random: np.random.Generator, trials: int) -> tuple[float, float]:
    """Return the log loss of the setting that a search chooses, and its validation result."""
    points = search.points(SPACE, trials - 1, "sobol", int(random.integers(2**31)))
    unit = np.array([[0.7, 0.5], *([point["x"], point["y"]] for point in points)])
    loss = ((unit - 0.5) ** 2 * CURVATURE).sum(axis=1)
    tried = loss + random.normal(size=trials) * SEED_NOISE
    chosen = search.choose(list(tried))
    assert chosen is not None
    return float(loss[chosen]), float(tried[chosen])


def seeds_alone(random: np.random.Generator, trials: int) -> np.ndarray:
    """Return the losses (8 seeds, 2) of two searches' settings."""
    found = [searched(random, trials)[0] for _ in range(2)]
    shared = random.normal(size=(8, 1))
    noise = (shared + random.normal(size=(8, 2))) * SEED_NOISE / np.sqrt(2)
    made: np.ndarray = np.exp(np.array(found) + noise)
    return made


def claims(finals: np.ndarray, first: int, better: int | None = None) -> list[bool]:
    """Return whether each pair with the first is claimed to differ; in favour of `better`."""
    names = [f"optimizer {number}" for number in range(finals.shape[1])]
    index = pd.MultiIndex.from_product([["problem"], range(len(finals))], names=["problem", "seed"])
    frame = pd.DataFrame(finals, index, names)
    told = [pair.outcome != "cannot tell" for pair in judge_pairs(frame, names[first], chosen=True)]
    return [claim and better in (None, first) for claim in told]


def write(lines: list[dict[str, Any]], asked: argparse.Namespace) -> None:
    """Write the table as a section of results/reliability."""
    from scripts.reliability.sections import write_section
    from scripts.tables import markdown

    rows = [
        {
            key.replace("_", " "): value if key == "trials" else f"{value:.1%}"
            for key, value in line.items()
            if key != "studies"
        }
        for line in lines
    ]
    steep, flat = CURVATURE
    about = ABOUT.format(
        steep=steep, flat=flat, repeats=asked.repeats, studies=asked.studies, power=POWER_STUDIES
    )
    write_section(
        "search-luck",
        "Identical optimizers called different after tuning",
        command=f"search_luck --studies {asked.studies} --write",
        text=f"{about}\n\n" + "\n".join(markdown(rows)),
        rows=lines,
    )


if __name__ == "__main__":
    main()
