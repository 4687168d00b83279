"""How often each statistical method is right, by simulation, on the shapes that measurements have.

    .venv/bin/python benchmarks/coverage.py [--times 4000] [--seed 1] [--json]

Intervals: the percentage that hold the true value, of those that are given; what is refused stands behind it in
brackets. An interval that says 95 % is short where it covers less than 94 %, and such a cell is marked with "!".
Verdicts and tests: the percentage that claim something where there is nothing to be claimed, at most 5 %, marked beyond
6 %. The chance of the simulation itself is about 0.35 % with 4,000 times.

Shapes: lognormal (sigma 0.5, and 1 as `skewed`), bimodal (30 % of the values 1.5 times as large), unequal (one side of
a comparison varies five times as much as the other), correlated (each trial has half its deviation from the one before
of its platform; 0.8 of it where the name says so), shared (correlated, too, but half of the variance is one state for
all platforms of a block), blocks (as a run is made: four trials a block in random order, half of the variance a state
of the host that is 0.95 of what it was one trial before), and for means and verdicts normal (sd 5 %, as the memory of
copies about is), also correlated.

Widths: how many times as wide an interval of independent trials is as if the method took them for such: the median over
samples, and the 95th percentile.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import NormalDist
from unittest import mock

from msgspec import Struct, to_builtins

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from testbed import statistics as st  # noqa: E402
from testbed.statistics import correlation, means, ranks  # noqa: E402

SIZES = (6, 10, 20, 50)
LEAST, MOST = 94.0, 6.0
RATIO = 1.3  # of the other side's values to those of the base, where they differ
FAMILY = 5
_STEP, _STRONG, _NOISE = 0.5, 0.8, 0.5
_TRIALS_OF_BLOCK, _STEP_OF_TRIAL = 4, 0.95
_BIMODAL, _APART, _WITHIN = 0.3, 1.5, 0.05


class Pair(Struct, frozen=True):
    """Samples of two platforms in the order of blocks: their distributions have the medians and means ``median`` and
    ``mean``, unless ``other`` is scaled."""

    base: list[float]
    other: list[float]
    median: float
    mean: float


Draw = Callable[[random.Random, int], Pair]
# Whether a method is right; None when it refuses.
Judge = Callable[[Pair], bool | None]


def _lognormal(sigma: float, sigma_other: float | None = None) -> Draw:
    def draw(chance: random.Random, n: int) -> Pair:
        sides = [[chance.lognormvariate(0, of) for _ in range(n)] for of in (sigma, sigma_other or sigma)]
        return Pair(sides[0], sides[1], 1.0, math.exp(sigma**2 / 2))

    return draw


def _normal(chance: random.Random, n: int) -> Pair:
    base, other = ([chance.gauss(1, _WITHIN) for _ in range(n)] for _ in range(2))
    return Pair(base, other, 1.0, 1.0)


def _bimodal(chance: random.Random, n: int) -> Pair:
    sides = [
        [chance.lognormvariate(0, _WITHIN) * (_APART if chance.random() < _BIMODAL else 1) for _ in range(n)]
        for _ in range(2)
    ]
    mean = math.exp(_WITHIN**2 / 2) * (1 + _BIMODAL * (_APART - 1))
    return Pair(sides[0], sides[1], _BIMODAL_MEDIAN, mean)


def _find_bimodal_median() -> float:
    of_logs, low, high = NormalDist(0, _WITHIN), 0.5, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        below = (1 - _BIMODAL) * of_logs.cdf(math.log(middle)) + _BIMODAL * of_logs.cdf(math.log(middle / _APART))
        low, high = (middle, high) if below < 0.5 else (low, middle)
    return low


_BIMODAL_MEDIAN = _find_bimodal_median()


def _autoregressive(chance: random.Random, n: int, step: float = _STEP) -> list[float]:
    states = [chance.gauss(0, 1)]
    while len(states) < n:
        states.append(step * states[-1] + math.sqrt(1 - step**2) * chance.gauss(0, 1))
    return states


def _correlated(step: float) -> Draw:
    def draw(chance: random.Random, n: int) -> Pair:
        sides = [[math.exp(_NOISE * state) for state in _autoregressive(chance, n, step)] for _ in range(2)]
        return Pair(sides[0], sides[1], 1.0, math.exp(_NOISE**2 / 2))

    return draw


def _correlated_normal(step: float) -> Draw:
    def draw(chance: random.Random, n: int) -> Pair:
        sides = [[1 + _WITHIN * state for state in _autoregressive(chance, n, step)] for _ in range(2)]
        return Pair(sides[0], sides[1], 1.0, 1.0)

    return draw


def _shared(chance: random.Random, n: int) -> Pair:
    """Each trial has the state of its block, and noise of its own; both have the same size."""
    states, half = _autoregressive(chance, n), _NOISE / math.sqrt(2)
    sides = [[math.exp(half * (state + chance.gauss(0, 1))) for state in states] for _ in range(2)]
    return Pair(sides[0], sides[1], 1.0, math.exp(_NOISE**2 / 2))


def _in_blocks(chance: random.Random, n: int) -> Pair:
    """The state goes on from trial to trial; which trials of a block are the two platforms' is random."""
    states = _autoregressive(chance, n * _TRIALS_OF_BLOCK, _STEP_OF_TRIAL)
    sides: list[list[float]] = [[], []]
    for begin in range(0, len(states), _TRIALS_OF_BLOCK):
        for side, at in zip(sides, chance.sample(range(_TRIALS_OF_BLOCK), 2), strict=True):
            side.append(math.exp(_NOISE / math.sqrt(2) * (states[begin + at] + chance.gauss(0, 1))))
    return Pair(sides[0], sides[1], 1.0, math.exp(_NOISE**2 / 2))


SHAPES: Mapping[str, Draw] = {
    "lognormal": _lognormal(0.5),
    "skewed": _lognormal(1.0),
    "bimodal": _bimodal,
    "unequal": _lognormal(0.1, 0.5),
    "correlated": _correlated(_STEP),
    "correlated 0.8": _correlated(_STRONG),
    "shared": _shared,
    "blocks": _in_blocks,
    "normal": _normal,
    "normal, correlated": _correlated_normal(_STEP),
    "normal, 0.8": _correlated_normal(_STRONG),
}
_CORRELATED = {"correlated", "correlated 0.8", "shared", "blocks", "normal, correlated", "normal, 0.8"}


def _holds(estimate: st.Estimate, true: float, level: float = st.LEVEL) -> bool | None:
    return estimate.low <= true <= estimate.high if estimate.level >= level else None


def _scale(values: Sequence[float], factor: float) -> list[float]:
    return [value * factor for value in values]


def _blocks(values: Sequence[float]) -> list[tuple[int, float]]:
    return list(enumerate(values))


def _mean(pair: Pair) -> bool | None:
    estimate = st.estimate_mean(pair.base)
    return (
        estimate.low <= pair.mean <= estimate.high if estimate.low is not None and estimate.high is not None else None
    )


def _bca(pair: Pair) -> bool | None:
    import numpy as np

    return _holds(st.estimate_bca(pair.base, np.mean), pair.mean)


def _paired_ratio(pair: Pair) -> bool | None:
    ratio = st.compare_pairs(pair.base, _scale(pair.other, RATIO)).ratio
    return _holds(ratio, RATIO) if ratio else None


def _run_ratio(pair: Pair) -> bool | None:
    """The ratio that a run's report gives, within blocks or not."""
    ratio = st.compare_blocks(_blocks(pair.base), _blocks(_scale(pair.other, RATIO))).ratio
    return _holds(ratio, RATIO) if ratio else None


INTERVALS: Mapping[str, Judge] = {
    "median, order statistics": lambda pair: _holds(st.estimate_median(pair.base), pair.median),
    "median, of a series": lambda pair: _holds(st.estimate_median_of_series(pair.base), pair.median),
    "ratio of medians": lambda pair: _holds(st.estimate_median_ratio(_scale(pair.other, RATIO), pair.base), RATIO),
    "difference of medians": lambda pair: _holds(st.estimate_median_difference(pair.other, pair.base), 0.0),
    "shift, Hodges-Lehmann": lambda pair: _holds(st.hodges_lehmann(pair.base, pair.other), 0.0),
    "median of paired ratios": _paired_ratio,
    "ratio that a run reports": _run_ratio,
    "mean, BCa": _bca,
    "mean, Student's t": _mean,
}


def _claims_difference(pair: Pair) -> bool:
    return st.compare_blocks(_blocks(pair.base), _blocks(pair.other)).verdict in ("more", "less")


def _claims_equivalence(pair: Pair) -> bool:
    """The medians are as far apart as the margin, which is not within it."""
    return st.compare_blocks(_blocks(pair.base), _blocks(_scale(pair.other, 1 + st.MARGIN))).verdict == "equivalent"


CLAIMS: Mapping[str, Callable[[Pair], bool]] = {
    "more or less, of equal medians": _claims_difference,
    "equivalent, at the margin": _claims_equivalence,
    "warm-up": lambda pair: st.find_warmup(pair.base) > 0,
    "drift": lambda pair: st.judge_drift(pair.base).found,
    "autocorrelation": lambda pair: st.autocorrelation(pair.base).found,
}
# Those that are about two samples: on `unequal` all others are the same as on `lognormal`.
_OF_PAIRS = ("ratio", "difference", "shift", "median of paired", "more", "equivalent")


class Cell(Struct, frozen=True):
    """One method on one shape and size: how often it was ``right`` (or, of a claim, wrong) of ``given``, and how often
    it ``refused``."""

    method: str
    shape: str
    n: int
    right: int
    given: int
    refused: int

    @property
    def percentage(self) -> float:
        """Of those that were given."""
        return 100 * self.right / self.given if self.given else math.nan


def simulate(method: str, shape: str, n: int, times: int, seed: int) -> Cell:
    """Return how a method fared. The same arguments always give the same cell."""
    chance = random.Random(f"{seed} {shape} {n}")
    judge: Judge = INTERVALS.get(method) or CLAIMS[method]
    answers = [judge(SHAPES[shape](chance, n)) for _ in range(times)]
    given = [answer for answer in answers if answer is not None]
    return Cell(method, shape, n, sum(given), len(given), times - len(given))


def is_short(cell: Cell) -> bool:
    """Whether an interval covers too little, or a claim is made too often."""
    if not cell.given:
        return False
    return cell.percentage < LEAST if cell.method in INTERVALS else cell.percentage > MOST


def list_cells(method: str) -> list[tuple[str, int]]:
    """Return the shapes and sizes that a method is tried on: those on which it is not the same as on another, or right
    whatever it says."""
    left_out = set() if method.startswith(_OF_PAIRS) else {"unequal"}
    left_out |= set() if method.startswith(("mean", "more", "equivalent")) else {"normal"}
    left_out |= set() if method.startswith("mean") else {"normal, correlated", "normal, 0.8"}
    left_out |= _CORRELATED if method == "autocorrelation" else set()
    return [(shape, n) for shape in SHAPES if shape not in left_out for n in SIZES]


def simulate_family(times: int, seed: int, n: int) -> float:
    """Return the percentage of families of ``FAMILY`` comparisons of equal samples in which anything is claimed to
    differ."""
    chance = random.Random(f"{seed} family {n}")
    draw, wrong = SHAPES["lognormal"], 0
    for _ in range(times):
        pairs = [draw(chance, n) for _ in range(FAMILY)]
        judged = st.judge_family([st.compare_medians(pair.base, pair.other) for pair in pairs])
        wrong += any(one.verdict in ("more", "less") for one in judged)
    return 100 * wrong / times


WIDTHS: Mapping[str, tuple[str, Callable[[Pair], st.Estimate | st.MeanEstimate]]] = {
    "median, of a series": ("lognormal", lambda pair: st.estimate_median_of_series(pair.base)),
    "ratio of medians": ("lognormal", lambda pair: st.estimate_median_ratio(pair.other, pair.base)),
    "shift, Hodges-Lehmann": ("lognormal", lambda pair: st.hodges_lehmann(pair.base, pair.other)),
    "mean, Student's t": ("normal", lambda pair: st.estimate_mean(pair.base)),
}


def measure_widths(method: str, n: int, times: int, seed: int) -> tuple[float, float]:
    """Return how many times as wide a method's intervals of independent trials are as if it took them for such: the
    median and the 95th percentile."""
    shape, estimate = WIDTHS[method]
    chance = random.Random(f"{seed} width {n}")
    widths = []
    for _ in range(times):
        pair = SHAPES[shape](chance, n)
        allowed = _width(estimate(pair))
        with ExitStack() as patches:
            for module in (correlation, ranks, means):
                patches.enter_context(mock.patch.object(module, "find_inflation", lambda *_: 1.0))
            widths.append(allowed / _width(estimate(pair)))
    widths.sort()
    return widths[times // 2], widths[times * 95 // 100]


def _width(estimate: st.Estimate | st.MeanEstimate) -> float:
    assert estimate.low is not None and estimate.high is not None
    return estimate.high - estimate.low


def _show(cell: Cell) -> str:
    if not cell.given:
        return "refused"
    refused = f" ({100 * cell.refused / (cell.given + cell.refused):.0f})" if cell.refused else ""
    return f"{cell.percentage:.1f}{'!' if is_short(cell) else ''}{refused}"


def _print(title: str, methods: Sequence[str], cells: Sequence[Cell]) -> None:
    print(_head(title))
    for method in methods:
        name = method
        for shape in dict.fromkeys(shape for shape, _ in list_cells(method)):
            row = [cell for cell in cells if (cell.method, cell.shape) == (method, shape)]
            print(f"{name:32}{shape:20}" + "".join(f"{_show(cell):>12}" for cell in row), flush=True)
            name = ""


def _head(title: str) -> str:
    return f"\n{title}\n{'':52}" + "".join(f"{f'n = {n}':>12}" for n in SIZES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    by_method: dict[str, list[Cell]] = {}
    for method in (*INTERVALS, *CLAIMS):
        of_method = max(50, options.times // 10) if method == "mean, BCa" else options.times
        by_method[method] = [simulate(method, shape, n, of_method, options.seed) for shape, n in list_cells(method)]
        print(f"{method}: done", file=sys.stderr)
    families = {n: simulate_family(options.times // 4, options.seed, n) for n in SIZES}
    widths = {of: [measure_widths(of, n, options.times // 2, options.seed) for n in SIZES] for of in WIDTHS}
    cells = [cell for of in by_method.values() for cell in of]
    if options.json:
        print(json.dumps({"cells": to_builtins(cells), "families": families, "widths": widths}))
        return
    _print(f"Intervals of 95 %: % that hold the true value, of {options.times}", tuple(INTERVALS), cells)
    _print("Claims where there is nothing: %, at most 5", tuple(CLAIMS), cells)
    shown = "".join(f"{percentage:>12.1f}" for percentage in families.values())
    print(f"{f'any of {FAMILY} comparisons (Holm)':32}{'lognormal':20}{shown}")
    print(_head("Widths on independent data, times those of the method that takes trials as independent"))
    for method, found in widths.items():
        cells_of = "".join(f"{f'{typical:.2f} ({wide:.1f})':>12}" for typical, wide in found)
        print(f"{method:32}{WIDTHS[method][0]:20}{cells_of}")


if __name__ == "__main__":
    perform(main)
