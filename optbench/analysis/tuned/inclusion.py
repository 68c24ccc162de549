"""Warn of under-tuned optimizers: a special case of the search space does better.

After Choi et al. 2019, "On empirical comparisons of optimizers": a method whose search space holds
another method ends worse than the other only if it was tuned too little. The same holds for a tuned
setting that ends worse than the default one. A warning is no claim: its p-value is uncorrected.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy

from optbench.analysis.comparison import Comparison
from optbench.analysis.pairing import pair_up, run_keys
from optbench.common.metrics import metric_of
from optbench.formats.study import entries_in

ALPHA = 0.05
LEAST_PAIRS = 3  # with fewer no spread is known


class Inclusion(NamedTuple):
    """A method that is a special case of another."""

    special: str
    wide: str
    key: str  # a hyperparameter of the wide method
    value: float  # of the key, at which the wide method is the special one


INCLUSIONS = (
    Inclusion("sgd", "momentum", "momentum", 0.0),
    Inclusion("sgd", "nesterov", "momentum", 0.0),
    # with an eps far above the gradients' size the second moment does nothing
    Inclusion("momentum", "adam", "eps", 1.0),
    Inclusion("nesterov", "nadam", "eps", 1.0),
    Inclusion("adam", "adamw", "weight_decay", 0.0),
)


def under_tuned(made: Comparison, y: str) -> Iterator[str]:
    """Yield a warning for each optimizer that its special case or its default beats.

    y: the column of the test set. Paired one-sided t-tests over the searches (or seeds).
    """
    if not made.phases or y not in made.table:
        return
    frames = {
        name: pair_up(run_keys(made, only=set(runs)), made.finals(y))
        for name, runs in made.phases.items()
    }
    smaller, label = metric_of(y).smaller, metric_of(y).label
    for problem, part in frames["tuned"].groupby(level="problem", sort=False):
        where = f" ({problem})" if problem else ""
        default = frames.get("default", part.iloc[:0])
        default = default[default.index.get_level_values("problem") == problem]
        for name in part:
            if name in default and (found := worse_by(part[name], default[name], smaller)):
                yield (
                    f"under-tuned: {name} ends {found.text} worse by {label} when tuned than with "
                    f"its defaults{where}: a larger budget or a narrower space may help it"
                )
        for one in INCLUSIONS:
            if not {one.special, one.wide} <= set(part) or not holds(made, one):
                continue
            if found := worse_by(part[one.wide], part[one.special], smaller):
                yield (
                    f"under-tuned: {one.wide} ends {found.text} worse by {label} than "
                    f"{one.special}, which its search space holds ({one.key}={one.value:g}){where}"
                )


class Worse(NamedTuple):
    """By how much one optimizer is worse than another, and how sure that is."""

    difference: float
    n: int
    p: float

    @property
    def text(self) -> str:
        """Return the words, as in "0.0123 (n = 8, p = 0.01, uncorrected)"."""
        return f"{self.difference:.3g} (n = {self.n}, p = {self.p:.2g}, uncorrected)"


def worse_by(own: "pd.Series[float]", other: "pd.Series[float]", smaller: bool) -> Worse | None:
    """Return by how much `own` is worse than `other`; None if no test shows that.

    The test is a one-sided paired t-test. A diverged run counts as twice the worst finite loss, or
    as an accuracy of 0.
    """
    both = pd.concat([own, other], axis=1).dropna().to_numpy(dtype=float)
    both = both if smaller else -both
    finite = both[np.isfinite(both)]
    if len(both) < LEAST_PAIRS or not len(finite):
        return None
    both = np.where(np.isfinite(both), both, finite.max() + abs(finite.max()))
    difference = both[:, 0] - both[:, 1]
    if not difference.std() > 0:
        return None
    p = float(scipy.stats.ttest_1samp(difference, 0, alternative="greater").pvalue)
    return Worse(float(difference.mean()), len(both), p) if p <= ALPHA else None


def holds(made: Comparison, one: Inclusion) -> bool:
    """Return whether all searches of the wide method could choose the special case."""
    entries = [entry for manifest in made.manifests for entry in entries_in(manifest)]
    wide = [entry for entry in entries if entry["optimizer"] == one.wide]
    if one.key == "weight_decay":  # a special case with a decay of its own is no special case
        special = [entry for entry in entries if entry["optimizer"] == one.special]
        if any((entry.get("chosen") or {}).get(one.key, 0.0) for entry in special):
            return False
    return bool(wide) and all(_reaches(entry.get("space"), one) for entry in wide)


def _reaches(space: Any, one: Inclusion) -> bool:
    spec = space.get(one.key) if isinstance(space, Mapping) else None
    return isinstance(spec, Mapping) and spec.get("low", 1) <= one.value <= spec.get("high", 0)
