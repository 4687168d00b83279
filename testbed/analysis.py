"""Turns a run folder into tidy frames and estimates. Trials that are not ``ok`` are counted, never averaged."""

from __future__ import annotations

import io
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from msgspec import Struct, field
from msgspec.structs import replace

from testbed.aliases import is_again
from testbed.results import THROTTLED, THROTTLED_PERIODS, RunFolder, Trial, counts_instructions
from testbed.soundness import list_faults, void_impossible
from testbed.statistics import Estimate, estimate_median, estimate_median_of_series
from testbed.temperature import TEMPERATURES, Temperature, find_cold, find_temperature

if TYPE_CHECKING:
    import pandas as pd

_T = TypeVar("_T")

__all__ = [
    "TEMPERATURES",
    "Estimate",
    "estimate_median",
    "find_cold",
    "list_faults",
]

# The phases of an application's start, in order; every one is seconds since the request.
START_PHASES = ("created", "first_process", "port_open", "ready")
STEADY = "steady"
# What else a start has: latency once it is steady, and what was done before the request.
START_EXTRAS = ("steady_latency", "pool_fill", "pool_memory")
# What is counted until an application is ready (testbed.measures.counting, metering): all that begins so.
COUNT_BEGINNINGS = ("exits", "page_faults", "major_faults", "context_switches", "host_", "metered_")
# What an accelerator's label says of an emulated host (testbed.qemu.accelerator). In the reference machine containers
# run on the same emulated processor, so it would say a difference where there is none.
_ON_EMULATED_HOST = " on an emulated host"
# Beyond this no sample is a quantity of this planet's hosts, but damage.
_LARGEST = 1e18


class Platform(Struct, frozen=True):
    """A platform as the manifest records it: its name, the label it carries everywhere, whether it is emulated, and the
    temperature at which it starts."""

    name: str
    label: str
    emulated: bool
    facts: Mapping[str, Any]
    temperature: Temperature = "cold"

    def __hash__(self) -> int:
        return hash(self.name)


class Tally(Struct, frozen=True):
    """How the trials of one measure on one platform ended; ``reasons`` are those of the trials that are not ok."""

    platform: str
    measure: str
    ok: int
    failed: int
    void: int
    interrupted: int
    reasons: tuple[str, ...]


class Run(Struct, frozen=True):
    """A run folder's content, read once. ``again`` are those platforms that were measured once more as they are
    (A/A): they say how large a difference of nothing is (testbed.pairs), and stand beside no other."""

    folder: RunFolder
    manifest: Mapping[str, Any]
    trials: tuple[Trial, ...]
    platforms: tuple[Platform, ...]
    again: tuple[Platform, ...] = ()
    _memory: dict[tuple[object, ...], Any] = field(default_factory=dict)

    def remember(self, key: tuple[object, ...], make: Callable[[], _T]) -> _T:
        """Return what ``make`` returns, which is called once for a key: a run never changes, and has many readers."""
        if key not in self._memory:
            self._memory[key] = make()
        return cast(_T, self._memory[key])

    @property
    def instruction_time(self) -> bool:
        """Whether its seconds count instructions: it was made in the reference machine (testbed.machine)."""
        return counts_instructions(self.manifest)

    @property
    def emulated(self) -> tuple[Platform, ...]:
        return tuple(platform for platform in self.platforms if platform.emulated)


def get_mapping(value: object) -> Mapping[str, Any]:
    """Return a part of a manifest that should have names; an empty one where it is something else."""
    return value if isinstance(value, Mapping) else {}


def read_run(folder: RunFolder) -> Run:
    """Return the whole of a run folder. Platforms that start cold come first, then those of the manifest before those
    that only trials mention."""
    trials = void_impossible(folder.trials())
    run = Run(folder, folder.manifest, trials, ())
    platforms: dict[str, Platform] = {}
    for name, facts in get_mapping(folder.manifest.get("platforms")).items():
        facts = get_mapping(facts)
        rest = {key: value for key, value in facts.items() if key not in ("label", "emulated")}
        label, emulated = str(facts.get("label") or name), bool(facts.get("emulated"))
        label = label.replace(_ON_EMULATED_HOST, "") if run.instruction_time else label
        platforms[name] = Platform(name, label, emulated, rest, _temperature(name, facts.get("temperature")))
    for trial in trials:
        name = trial.platform
        platforms.setdefault(name, Platform(name, name, False, {}, find_temperature(name)))
    ordered = sorted(platforms.values(), key=lambda one: TEMPERATURES.index(one.temperature))
    again = tuple(one for one in ordered if is_again(one.name))
    return replace(run, platforms=tuple(one for one in ordered if one not in again), again=again)


def _temperature(name: str, recorded: object) -> Temperature:
    """Return the temperature that a manifest records; what an older one leaves out follows from the name."""
    return next((one for one in TEMPERATURES if one == recorded), find_temperature(name))


def list_compared(run: Run, measure: str) -> tuple[Platform, ...]:
    """Return the platforms that may be set side by side in a measure: those that start cold, and of the others those
    beside whose figures the run has those of the same kind that starts cold."""
    alone = list_alone(run, measure)
    return tuple(one for one in run.platforms if one not in alone)


def list_alone(run: Run, measure: str) -> tuple[Platform, ...]:
    """Return the platforms that start warm and are set against nothing in a measure: the run has no figures of the same
    kind that starts cold, so nobody could tell the kind's part from that of the temperature."""
    measured = {one.name for one in run.platforms if select_trials(run, measure, one.name)}
    return tuple(
        one
        for one in run.platforms
        if one.temperature != "cold" and one.name in measured and find_cold(one.name) not in measured
    )


def build_frame(trials: Iterable[Trial]) -> pd.DataFrame:
    """Return the tidy frame: a row for every metric of every trial, with its parameters as further columns."""
    import pandas as pd

    rows = [
        {
            "trial": trial.trial,
            "block": trial.block,
            "platform": trial.platform,
            "measure": trial.measure,
            "outcome": trial.outcome,
            "rate_per_s": get_offered_rate(trial),
            "metric": metric.metric,
            "value": metric.value,
            "unit": metric.unit,
        }
        for trial in trials
        for metric in trial.metrics
    ]
    columns = ["trial", "block", "platform", "measure", "outcome", "rate_per_s", "metric", "value", "unit"]
    return pd.DataFrame(rows, columns=columns)


def count_outcomes(run: Run) -> tuple[Tally, ...]:
    """Return the outcomes of all trials, by measure and platform, in the order they first appear."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in run.trials:
        groups.setdefault((trial.measure, trial.platform), []).append(trial)
    return tuple(_tally(platform, measure, group) for (measure, platform), group in groups.items())


def _tally(platform: str, measure: str, trials: list[Trial]) -> Tally:
    outcomes = [trial.outcome for trial in trials]
    reasons = dict.fromkeys(
        f"{trial.outcome}: {trial.reason or 'no reason given'}" for trial in trials if trial.outcome != "ok"
    )
    counts = {name: outcomes.count(name) for name in ("ok", "failed", "void", "interrupted")}
    return Tally(platform, measure, **counts, reasons=tuple(reasons))


def select_trials(run: Run, measure: str, platform: str) -> tuple[Trial, ...]:
    """Return the trials of a measure on a platform that are evidence, in their order."""
    return run.remember(("trials",), lambda: _group_counted(run.trials)).get((measure, platform), ())


def _group_counted(trials: Iterable[Trial]) -> dict[tuple[str, str], tuple[Trial, ...]]:
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        if trial.counted:
            groups.setdefault((trial.measure, trial.platform), []).append(trial)
    return {key: tuple(group) for key, group in groups.items()}


def select_values(run: Run, measure: str, platform: str, metric: str) -> tuple[float, ...]:
    """Return a metric's value in every counted trial that has it."""
    return tuple(_read_values(run, measure, platform).get(metric, ()))


def _read_values(run: Run, measure: str, platform: str) -> dict[str, list[float]]:
    return run.remember(("values", measure, platform), lambda: _group_values(select_trials(run, measure, platform)))


def _group_values(trials: Iterable[Trial]) -> dict[str, list[float]]:
    """Return the values of trials by metric, in the order in which the metrics first appear."""
    groups: dict[str, list[float]] = {}
    for trial in trials:
        seen = set()
        for metric in trial.metrics:
            if metric.metric not in seen:  # the first one counts, as Trial.value has it
                seen.add(metric.metric)
                groups.setdefault(metric.metric, []).append(metric.value)
    return groups


def estimate_start_phases(run: Run, platform: str) -> dict[str, Estimate]:
    """Return the median of each phase of the application's start, seconds since the request, in order, the last of them
    when its latency was steady."""
    return _estimate(run, platform, (*START_PHASES, STEADY))


def estimate_start_extras(run: Run, platform: str) -> dict[str, Estimate]:
    """Return the medians of what else a start has (``START_EXTRAS``), in base units."""
    return _estimate(run, platform, START_EXTRAS)


def _estimate(run: Run, platform: str, names: Iterable[str]) -> dict[str, Estimate]:
    observed = {name: values for name in names if (values := select_values(run, "start", platform, name))}
    return {
        name: run.remember(("median", platform, name), partial(estimate_median_of_series, values))
        for name, values in observed.items()
    }


def estimate_start_counts(run: Run, platform: str) -> dict[str, Estimate]:
    """Return the medians of what was counted from the request until the application was ready."""
    names = _read_values(run, "start", platform)
    return _estimate(run, platform, [name for name in names if "." not in name and name.startswith(COUNT_BEGINNINGS)])


def count_steady(run: Run, platform: str) -> tuple[int, int]:
    """Return in how many starts latency became steady while it was watched, and in how many it was watched."""
    watched = select_values(run, "start", platform, "steady_window")
    return len(select_values(run, "start", platform, STEADY)), len(watched)


def estimate_service_phases(run: Run, platform: str) -> dict[tuple[str, str], Estimate]:
    """Return the median of each phase of each service, seconds since the application's request, by (service, phase)."""
    found = {}
    for name in _read_values(run, "start", platform):
        service, dot, phase = name.rpartition(".")
        if dot and phase not in (THROTTLED, THROTTLED_PERIODS):
            found[service, phase] = _estimate(run, platform, (name,))[name]
    return dict(sorted(found.items(), key=lambda item: (item[0][0], item[1].value)))


class HeldBack(Struct, frozen=True):
    """What the quota of processor time held back: the fraction (0 to 1) of periods, and seconds."""

    periods: Estimate
    seconds: Estimate


def estimate_held_back(run: Run, platform: str) -> dict[str, HeldBack]:
    """Return the medians of what quotas held back until an application was ready, by instance."""
    end = f".{THROTTLED}"
    parts = [name.removesuffix(end) for name in _read_values(run, "start", platform) if name.endswith(end)]
    held_back = {}
    for part in parts:
        fractions, seconds = (
            select_values(run, "start", platform, f"{part}.{name}") for name in (THROTTLED_PERIODS, THROTTLED)
        )
        if fractions and seconds:
            held_back[part] = HeldBack(*map(estimate_median_of_series, (fractions, seconds)))
    return held_back


def read_points(run: Run, trial: Trial) -> dict[str, Sequence[float]]:
    """Return the columns of a trial's samples; none when the file is gone or is not as it was written."""
    table = read_samples(run, trial)
    return {} if table is None else select_numbers(table)


def select_numbers(table: pd.DataFrame) -> dict[str, Sequence[float]]:
    """Return the columns of samples as numbers; what is none, or none that a host can have, is NaN.

    As arrays of the standard library: a run may have ten million of them, of which a tuple would make objects.
    """
    import numpy as np
    import pandas as pd

    columns: dict[str, Sequence[float]] = {}
    for name in table.columns:
        given = table[name]
        is_number = given.dtype.kind in "iuf"
        values = (given if is_number else pd.to_numeric(given, errors="coerce")).to_numpy(dtype=float)
        columns[str(name)] = array("d", np.where(np.abs(values) <= _LARGEST, values, np.nan).tobytes())
    return columns


def read_samples(run: Run, trial: Trial) -> pd.DataFrame | None:
    """Return a trial's time series as it was written; None when it has none, or the file is not as it was written."""
    import pandas as pd

    content = run.folder.read_samples(trial)
    if content is None:
        return None
    try:
        return pd.read_csv(io.BytesIO(content))
    except (ValueError, UnicodeDecodeError, pd.errors.ParserError):
        return None


def estimate_utilisation(run: Run, platform: str) -> dict[float, dict[str, Estimate]]:
    """Return the median of every metric of the ok trials, by offered rate (requests per second).

    A rate at which the platform was saturated in some trial has no latency: it is a matter of the window's length then.
    """
    return run.remember(("utilisation", platform), lambda: _estimate_rates(run, platform))


def _estimate_rates(run: Run, platform: str) -> dict[float, dict[str, Estimate]]:
    by_rate: dict[float, list[Trial]] = {}
    for trial in select_trials(run, "utilisation", platform):
        if (rate := get_offered_rate(trial)) is not None:
            by_rate.setdefault(rate, []).append(trial)
    too_high = find_saturated(run, platform)
    return {
        rate: {
            metric: estimate_median_of_series(values)
            for metric, values in _group_values(trials).items()
            if metric != "saturated" and not (rate in too_high and metric.startswith("latency_"))
        }
        for rate, trials in sorted(by_rate.items())
    }


def find_saturated(run: Run, platform: str) -> dict[float, tuple[int, int]]:
    """Return the offered rates (requests per second) that the platform could not keep up with: in how many of how many
    trials."""
    counts: dict[float, tuple[int, int]] = {}
    for trial in select_trials(run, "utilisation", platform):
        if (rate := get_offered_rate(trial)) is not None:
            behind, of = counts.get(rate, (0, 0))
            counts[rate] = (behind + bool(trial.value("saturated")), of + 1)
    return {rate: count for rate, count in sorted(counts.items()) if count[0]}


class Figure(Struct, frozen=True):
    """A figure of an application's work: its median over trials, in ``unit``."""

    estimate: Estimate
    unit: str


def list_work_figures(run: Run) -> tuple[str, ...]:
    """Return the names of the figures that the run's scenario asks its work for."""
    figures = get_mapping(get_mapping(run.manifest.get("settings")).get("work")).get("figures")
    pairs = figures if isinstance(figures, list) else []
    return tuple(str(pair[0]) for pair in pairs if isinstance(pair, list) and pair)


def estimate_work(run: Run, platform: str) -> dict[str, Figure]:
    """Return the medians of what an application's work has answered and took, by name, in base units."""
    trials = [trial for trial in run.trials if trial.counted and (trial.measure, trial.platform) == ("work", platform)]
    units = {metric.metric: metric.unit for trial in trials for metric in trial.metrics if "." not in metric.metric}
    return {
        name: Figure(estimate_median_of_series(select_values(run, "work", platform, name)), unit)
        for name, unit in units.items()
    }


def get_offered_rate(trial: Trial) -> float | None:
    """Return the rate that a trial offered, in requests per second; None when it records none."""
    rate = trial.parameters.get("rate_per_s")
    return float(rate) if isinstance(rate, int | float) else None
