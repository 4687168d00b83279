"""Statistics of trials, as pure functions of numbers: same numbers, same answers, whatever is run beside them.

Importing it costs nothing: scipy and numpy are imported by the functions that need them, and none of those is called
while something is measured.
"""

from testbed.statistics.blocks import Blocks, compare_blocks
from testbed.statistics.bootstrap import estimate_bca
from testbed.statistics.comparison import (
    MARGIN,
    Comparison,
    Equivalence,
    Verdict,
    adjust_holm,
    compare_medians,
    compare_pairs,
    judge_equivalence,
    judge_exactly,
    judge_family,
)
from testbed.statistics.contrasts import estimate_median_difference, estimate_median_ratio
from testbed.statistics.correlation import (
    FEWEST_TO_SHOW,
    Autocorrelation,
    autocorrelation,
    estimate_median_of_series,
)
from testbed.statistics.levels import MOST, LevelCost, Repetition, VarianceComponents, find_components, plan_repetitions
from testbed.statistics.means import MeanEstimate, estimate_mean
from testbed.statistics.medians import FEWEST, LEVEL, RISK, Estimate, estimate_median
from testbed.statistics.ranks import hodges_lehmann
from testbed.statistics.series import Drift, find_warmup, judge_drift

__all__ = [
    "FEWEST",
    "FEWEST_TO_SHOW",
    "LEVEL",
    "MARGIN",
    "MOST",
    "RISK",
    "Autocorrelation",
    "Blocks",
    "Comparison",
    "Drift",
    "Equivalence",
    "Estimate",
    "LevelCost",
    "MeanEstimate",
    "Repetition",
    "VarianceComponents",
    "Verdict",
    "adjust_holm",
    "autocorrelation",
    "compare_blocks",
    "compare_medians",
    "compare_pairs",
    "estimate_bca",
    "estimate_mean",
    "estimate_median",
    "estimate_median_difference",
    "estimate_median_of_series",
    "estimate_median_ratio",
    "find_components",
    "find_warmup",
    "hodges_lehmann",
    "judge_drift",
    "judge_equivalence",
    "judge_exactly",
    "judge_family",
    "plan_repetitions",
]
