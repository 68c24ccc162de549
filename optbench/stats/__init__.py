"""Statistics of comparisons, in one place for scripts and notebooks.

Location, spread and intervals; two optimizers on one problem; many over many problems; how much
tuning each needs. Each function names its source, and raises UserError for arguments of a wrong
type. Values with NaN raise UserError too, unless the docstring says that the result is then NaN. In
the frames of `analysis.pairing`, NaN means no run.

The modules write `scipy.stats.NAME` in full: scipy imports it at its first use, and a sweep needs
none before it trains.
"""

from optbench.stats.equivalence import Equivalence, equivalence
from optbench.stats.estimates import (
    Estimate,
    bootstrap,
    describe,
    describe_all,
    iqm,
    mean,
    median,
    sd,
)
from optbench.stats.max_sign_flip import max_sign_flip
from optbench.stats.paired_tests import (
    differences,
    enough_seeds,
    hodges_lehmann,
    holm,
    least_p,
    sign_flip,
    signed_rank,
)
from optbench.stats.pairwise import PairVerdict, compare, compare_pair
from optbench.stats.power import (
    effect_size,
    probability_of_improvement,
    rank_biserial,
    seeds_needed,
    t_power,
)
from optbench.stats.ranks import (
    Friedman,
    by_problem,
    cliques,
    critical_difference,
    friedman,
    mean_ranks,
    nemenyi,
    rank,
    wilcoxon_holm,
)
from optbench.stats.tuning_curves import Width, expected_best, rate_width, rate_widths
from optbench.stats.unpaired_tests import dominance, rank_sum, runs_needed, shift

middle = median  # both names are public

__all__ = [
    "Equivalence",
    "Estimate",
    "Friedman",
    "PairVerdict",
    "Width",
    "bootstrap",
    "by_problem",
    "cliques",
    "compare",
    "compare_pair",
    "critical_difference",
    "describe",
    "describe_all",
    "differences",
    "dominance",
    "effect_size",
    "enough_seeds",
    "equivalence",
    "expected_best",
    "friedman",
    "hodges_lehmann",
    "holm",
    "iqm",
    "least_p",
    "max_sign_flip",
    "mean",
    "mean_ranks",
    "median",
    "middle",
    "nemenyi",
    "probability_of_improvement",
    "rank",
    "rank_biserial",
    "rank_sum",
    "rate_width",
    "rate_widths",
    "runs_needed",
    "sd",
    "seeds_needed",
    "shift",
    "sign_flip",
    "signed_rank",
    "t_power",
    "wilcoxon_holm",
]  # fmt: skip
