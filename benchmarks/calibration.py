"""What instruction time predicts: figures of a run on a host of its own beside those of one in the reference machine.

    .venv/bin/python benchmarks/calibration.py RUN_NATIVE RUN_REFERENCE [--json]

Both runs are of one scenario: ``./invoke bench --scenario clickme`` with the same settings, without and with
``--machine reference``. Compared are the times that both have of the container (what each step of its start took, by
service; processor time and latency at each rate) and of bare processes (testbed.bare), as medians. The rank
correlation (Spearman's) says whether one clock puts figures in the order of the other. Figures over many orders of
magnitude have a high one by themselves, so each group has its own, and its spread: how far the ratio of the two
clocks moves from one figure to another, which is the error of a ratio in instruction time. Machines are not compared:
of theirs, the price of an exit is missing.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from msgspec import Struct, to_builtins  # noqa: E402

from benchmarks.command import perform  # noqa: E402
from runtime.errors import UsageError  # noqa: E402
from testbed.analysis import (  # noqa: E402
    Run,
    estimate_service_phases,
    estimate_start_extras,
    estimate_start_phases,
    estimate_utilisation,
    get_mapping,
    read_run,
)
from testbed.results import RunFolder  # noqa: E402

PLATFORM = "container"
BARE, START, LOAD, ALL = "bare processes", "start of the container", "load on the container", "all"
_PHASES = ("request", "created", "first_process", "port_open")
_LOAD_TIMES = ("cpu_per_request", "latency_p50", "latency_p99")
# Fewer have an order by chance: of three, one in six.
LEAST_FIGURES = 4


class Pair(Struct, frozen=True):
    """One figure by both clocks, in seconds."""

    group: str
    figure: str
    native_s: float
    instruction_s: float

    @property
    def ratio(self) -> float:
        """Instruction time over the host's."""
        return self.instruction_s / self.native_s


class Agreement(Struct, frozen=True):
    """How the two clocks agree on a group of ``n`` figures: Spearman's rank correlation (None of too few
    figures), the geometric mean of their ratios, the least and the greatest."""

    group: str
    n: int
    rank_correlation: float | None
    ratio: float
    least: float
    greatest: float


def read_figures(run: Run) -> dict[tuple[str, str], float]:
    """Return the times of a run that have nothing to do with machines, in seconds, by group and name."""
    figures: dict[tuple[str, str], float] = {}
    for name, seconds in get_mapping(run.manifest.get("bare")).items():
        if isinstance(seconds, int | float):
            figures[BARE, str(name)] = float(seconds)
    figures |= {(START, name): seconds for name, seconds in _read_steps(run).items()}
    for rate, at_rate in estimate_utilisation(run, PLATFORM).items():
        figures |= {(LOAD, f"{name} at {rate:g}/s"): at_rate[name].value for name in _LOAD_TIMES if name in at_rate}
    return figures


def _read_steps(run: Run) -> dict[str, float]:
    """Return what each step of the container's start took: phases are counted since the request, and what adds up to
    more and more is in order by itself."""
    reached = {
        f"{service}.{phase}": one.value for (service, phase), one in estimate_service_phases(run, PLATFORM).items()
    }
    own = {name: one.value for name, one in estimate_start_phases(run, PLATFORM).items()}
    services = dict.fromkeys(name.rpartition(".")[0] for name in reached)
    chains = [[f"{service}.{phase}" for phase in _PHASES] for service in services] or [list(_PHASES)]
    reached |= own
    steps = {
        f"{earlier} to {later}": reached[later] - reached[earlier]
        for chain in (*chains, ["port_open", "ready"])
        for earlier, later in pairwise(name for name in chain if name in reached)
    }
    if latency := estimate_start_extras(run, PLATFORM).get("steady_latency"):
        steps["latency once steady"] = latency.value
    return steps


def pair_figures(native: Run, reference: Run) -> list[Pair]:
    """Return the figures that both runs have. Raises UsageError when the runs are not one of each clock, or of two
    scenarios."""
    if native.instruction_time or not reference.instruction_time:
        raise UsageError(
            "calibration wants a run on a host of its own, then one in the reference machine",
            "bench, and bench --machine reference",
        )
    if native.manifest.get("scenario") != reference.manifest.get("scenario"):
        raise UsageError("calibration: the runs are of two scenarios", "measure the same one twice")
    one, other = read_figures(native), read_figures(reference)
    return [Pair(*key, one[key], other[key]) for key in one if key in other and one[key] > 0 and other[key] > 0]


def find_agreement(group: str, pairs: Sequence[Pair]) -> Agreement:
    """Return how the clocks agree on some figures, of which there must be one."""
    ratios = [pair.ratio for pair in pairs]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    correlation = None
    if len(pairs) >= LEAST_FIGURES:
        from scipy.stats import spearmanr

        found = spearmanr([pair.native_s for pair in pairs], [pair.instruction_s for pair in pairs])
        if not math.isnan(found.statistic):  # all of one clock's are equal
            correlation = float(found.statistic)
    return Agreement(group, len(pairs), correlation, mean, min(ratios), max(ratios))


def find_agreements(pairs: Sequence[Pair]) -> list[Agreement]:
    """Return the agreement of each group that there is, and of all figures together."""
    groups = {group: [pair for pair in pairs if pair.group == group] for group in (BARE, START, LOAD)}
    return [find_agreement(group, of) for group, of in ({**groups, ALL: list(pairs)}).items() if of]


def _show_seconds(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            return f"{seconds * scale:.3g} {unit}"
    raise AssertionError


def show(pairs: Sequence[Pair], agreements: Sequence[Agreement]) -> str:
    """Return both tables as Markdown."""
    lines = ["| figure | native | instruction time | ratio |", "| --- | ---: | ---: | ---: |"]
    for pair in pairs:
        times = f"{_show_seconds(pair.native_s)} | {_show_seconds(pair.instruction_s)}"
        lines.append(f"| {pair.group}: {pair.figure} | {times} | {pair.ratio:.2f} |")
    lines += [
        "",
        "| group | figures | Spearman's rank correlation | ratio, geometric mean | least to greatest | spread |",
    ]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    for one in agreements:
        rank = "too few" if one.rank_correlation is None else f"{one.rank_correlation:.2f}"
        spread = f"{one.least:.2f} to {one.greatest:.2f} | {one.greatest / one.least:.1f}"
        lines.append(f"| {one.group} | {one.n} | {rank} | {one.ratio:.2f} | {spread} |")
    return "\n".join(lines)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("native", type=Path, help="run folder of a host of its own")
    parser.add_argument("reference", type=Path, help="run folder of the reference machine")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def as_data(pairs: Sequence[Pair], agreements: Sequence[Agreement]) -> Mapping[str, Any]:
    """Return the same as data."""
    return {"figures": to_builtins(pairs), "agreement": to_builtins(agreements)}


def main() -> None:
    """Print both tables. Raises UsageError when there is nothing to compare."""
    asked = _arguments(sys.argv[1:])
    pairs = pair_figures(*(read_run(RunFolder.open(path)) for path in (asked.native, asked.reference)))
    if not pairs:
        raise UsageError("calibration: the runs have no figure in common", "measure start and utilisation in both")
    agreements = find_agreements(pairs)
    print(json.dumps(as_data(pairs, agreements), indent=1) if asked.json else show(pairs, agreements))


if __name__ == "__main__":
    perform(main)
