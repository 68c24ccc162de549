"""The max-type sign-flip test of many pairs, even if the values chose the pairs.

Westfall and Young, Resampling-Based Multiple Testing (1993), the single-step max-T procedure. The
smallest p-value is 2 ** (1 - n) with n seeds, however many pairs there are: six seeds can pass
0.05, five cannot.
"""

import numpy as np

from optbench.common.errors import UserError
from optbench.stats.paired_tests import (
    MOST_FLIPPED_PAIRS,
    as_numbers,
    check_share,
    check_whole,
    enough_seeds,
)

INFINITE_DIFFERENCE = 2.0  # stands for infinity, in units of the pair's largest finite difference
LARGEST_T_SQUARED = 1e9  # stands for infinity, when all differences of a pair are equal
T_SQUARED_TOLERANCE = 1e-6  # relative: t squared of flips may differ by rounding
CHUNK_CELLS = 2**22  # flips times pairs per chunk: 32 MiB


def max_sign_flip(
    d: np.ndarray,
    present: np.ndarray | None = None,
    alpha: float = 0.05,
    flips: int = 9999,
    seed: int = 0,
) -> np.ndarray:
    """Return the two-sided p-value of each pair, corrected for all pairs, (pairs,).

    d: (seeds, pairs) differences; present: (seeds, pairs), false if a pair lacks the seed, by
    default true everywhere. The statistic is |t| of a pair's differences, t = mean / (sd / sqrt n).
    The signs of a seed flip together for all pairs, and p is the share of the 2 ** seeds flips
    whose largest |t| reaches the pair's own. Beyond 14 seeds the share is that of `flips` random
    flips and the observed signs, drawn with `seed`.

    An infinite difference (one of the two runs diverged) counts as twice the largest finite one of
    its pair. If all differences of a pair are equal |t| is infinite, if all are 0 it is 0. A pair
    with too few seeds to pass `alpha` by itself does not affect the p-values of the others. Raises
    UserError for NaN where a run is present, and for arrays of other shapes.
    """
    values, known = check_matrix(d, present)
    check_share("alpha", alpha)
    check_whole("flips", flips)
    used = known.any(axis=1)
    values, n = scale_pairs(values[used]), known.sum(axis=0)
    signs = sign_rows(len(values), flips, seed)
    able = n >= enough_seeds(1, alpha)
    observed = np.empty(len(n))
    largest = {True: np.zeros(len(signs)), False: np.zeros(len(signs))}
    size = max(1, CHUNK_CELLS // len(signs))  # pairs per chunk
    for some in (slice(start, start + size) for start in range(0, len(n), size)):
        squares = t_squares(signs, values[:, some], n[some])  # (flips, pairs of the chunk)
        observed[some] = squares[0]
        for group, top in largest.items():
            np.maximum(top, squares[:, able[some] == group].max(axis=1, initial=0.0), out=top)
    largest[False] = np.maximum(largest[False], largest[True])
    return np.where(able, *(share_reaching(largest[group], observed) for group in (True, False)))


def check_matrix(d: np.ndarray, present: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the differences, 0 if missing, and which exist, both (seeds, pairs)."""
    values = as_numbers(d, None)
    known = np.ones(values.shape, bool) if present is None else as_numbers(present, None) > 0
    if values.ndim != 2 or not values.size or known.shape != values.shape:
        raise UserError(
            f"the max-type test needs differences of (seeds, pairs), not of {values.shape} "
            f"(present: {known.shape})"
        )
    if np.isnan(values[known]).any() or not known.any(axis=0).all():
        raise UserError("the max-type test needs a number for each pair and seed that is present")
    return np.where(known, values, 0.0), known


def scale_pairs(values: np.ndarray) -> np.ndarray:
    """Return (seeds, pairs) differences over the largest finite one of each pair."""
    finite = np.where(np.isfinite(values), values, 0.0)
    largest = np.abs(finite).max(axis=0)
    finite = finite / np.where(largest > 0, largest, 1.0)
    return np.where(np.isinf(values), np.sign(values) * INFINITE_DIFFERENCE, finite)


def sign_rows(seeds: int, flips: int, seed: int) -> np.ndarray:
    """Return the flips of the signs, (flips, seeds), the observed signs first.

    Up to `MOST_FLIPPED_PAIRS` seeds, these are all flips with +1 in front: a flip and its opposite
    have the same |t|. With more seeds they are random.
    """
    if seeds <= MOST_FLIPPED_PAIRS:
        numbers = np.arange(2 ** (seeds - 1))[:, None]
        return 1.0 - 2.0 * (numbers >> np.arange(seeds - 1, -1, -1) & 1)
    random = np.random.default_rng(seed).integers(0, 2, (flips, seeds))
    return np.concatenate([np.ones((1, seeds)), 1.0 - 2.0 * random])


def t_squares(signs: np.ndarray, values: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return t squared of each flip and pair, (flips, pairs).

    With r = sum / sqrt(n sum of squares) it is (n - 1) r^2 / (1 - r^2), and flips change r alone.
    values: of `scale_pairs`. A sum that differs from 0 by rounding alone counts as 0.
    """
    total = n * (values**2).sum(axis=0)
    sums = signs @ values
    sums = np.where(np.abs(sums) < len(values) * 1e-15, 0.0, sums)
    r = sums**2 / np.where(total > 0, total, 1.0)
    t = (n - 1) * r / np.maximum(1 - r, 1e-15)
    return np.minimum(t, LARGEST_T_SQUARED)


def share_reaching(largest: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return for each pair the share of flips whose largest t squared reaches its own."""
    below = np.searchsorted(np.sort(largest), observed * (1 - T_SQUARED_TOLERANCE), side="left")
    return 1 - below / len(largest)
