"""Reads what consolidation found: how many servers each platform held in each mix, how well the host was used then, and
what an idle one costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from testbed.analysis import Platform, Run, get_mapping, select_trials
from testbed.results import Trial
from testbed.statistics import Estimate, estimate_median_of_series, estimate_median_ratio
from testbed.tables import parse_figure, read_table

MEASURE = "consolidation"
# The manifest's member with the rates that all platforms were given (testbed.measures.calibration).
CALIBRATION = "calibration"
IDLE = ("idle_cpu", "idle_wakeups", "idle_memory", "idle_pss")
_MOST_RATES = 20


class Rate(Struct, frozen=True):
    """A rate (requests/s) at which a copy alone used ``reached`` of a machine, where ``fraction`` (0 to 1) was
    wanted; ``memory_bytes`` is what it was charged."""

    fraction: float
    rate_per_s: float
    reached: float
    memory_bytes: float


class Calibration(Struct, frozen=True):
    """What the run's servers are: ``rates`` were found on ``platform``, as parts of a machine with ``processors``."""

    platform: str
    processors: float
    host_processors: float
    rates: tuple[Rate, ...]


class Packed(Struct, frozen=True):
    """The servers of one mix on a platform: medians over ramps, by metric, and why the ramps ended.

    ``overhead`` is the processor time of one server alone, as a multiple of that on the platform that was calibrated
    on, in the same mix; None on that platform itself, without it, and where one server broke the service level.
    """

    platform: str
    figures: Mapping[str, Estimate]
    reasons: tuple[str, ...]
    ramps: int
    overhead: Estimate | None = None

    @property
    def is_broken(self) -> bool:
        """Whether not even one server held the service level, in half of the ramps or more."""
        return "servers" in self.figures and self.figures["servers"].value < 1

    @property
    def is_capped(self) -> bool:
        """Whether ramps ended at a number that was set, so that more servers may fit."""
        return bool(self.reasons) and all(reason.startswith("cap:") for reason in self.reasons)


class Mix(Struct, frozen=True):
    """A mix of servers (testbed.scenario.consolidation.Mix) and how each platform packed it, in their order."""

    name: str
    fraction: float
    zombies: float
    rate_per_s: float
    packed: tuple[Packed, ...]


class Step(Struct, frozen=True):
    """What a ramp saw with so many servers: latency, and the parts (0 to 1) of the host that they and all used."""

    servers: float
    p99_ms: float
    used: float
    busy: float


def read_calibration(run: Run) -> Calibration | None:
    """Return the rates of the run's servers; None in a run that has none, or whose record of them is damaged."""
    recorded = get_mapping(run.manifest.get(CALIBRATION))
    listed = recorded.get("rates")
    rates = []
    for one in listed[:_MOST_RATES] if isinstance(listed, list) else []:
        names = ("fraction", "rate_per_s", "reached", "memory_bytes")
        values = [_number(get_mapping(one).get(name)) for name in names]
        if all(value is not None for value in values):
            rates.append(Rate(*(value for value in values if value is not None)))
    processors, host = _number(recorded.get("processors")), _number(recorded.get("host_processors"))
    if not rates or not processors or not host:
        return None
    return Calibration(str(recorded.get("platform", ""))[:100], processors, host, tuple(rates))


def _number(value: object) -> float | None:
    """Return a number of a manifest from 0 on; None for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return parse_figure(str(value)) if is_number and float(str(value)) >= 0 else None


def list_mixes(run: Run) -> tuple[Mix, ...]:
    """Return each mix that was measured, the least used servers first, those with zombies last."""
    return run.remember((MEASURE,), lambda: _list_mixes(run))


def select_middle(run: Run) -> Mix | None:
    """Return the mix that stands for all where there is room for one: without zombies, the one in the middle."""
    plain = [mix for mix in list_mixes(run) if not mix.zombies]
    return plain[len(plain) // 2] if plain else None


def _list_mixes(run: Run) -> tuple[Mix, ...]:
    found: dict[str, dict[str, list[Trial]]] = {}
    for platform in run.platforms:
        for trial in select_trials(run, MEASURE, platform.name):
            name = str(trial.parameters.get("mix", ""))[:60]
            if name:
                found.setdefault(name, {}).setdefault(platform.name, []).append(trial)
    calibration = read_calibration(run)
    baseline = calibration.platform if calibration else ""
    mixes = [_mix(name, of, baseline) for name, of in found.items()]
    return tuple(sorted(mixes, key=lambda mix: (mix.zombies, mix.fraction, mix.name)))


def _mix(name: str, by_platform: Mapping[str, Sequence[Trial]], baseline: str) -> Mix:
    first = next(iter(by_platform.values()))[0]
    fraction, zombies, rate = (
        _number(first.parameters.get(key)) or 0.0 for key in ("fraction", "zombies", "rate_per_s")
    )
    alone = _values(_select_served(by_platform.get(baseline, ())), "alone_cpu")
    packed = tuple(_pack(platform, trials, baseline, alone) for platform, trials in by_platform.items())
    return Mix(name, fraction, zombies, rate, packed)


def _pack(platform: str, trials: Sequence[Trial], baseline: str, base: Sequence[float]) -> Packed:
    names = dict.fromkeys(metric.metric for trial in trials for metric in trial.metrics)
    figures = {name: estimate_median_of_series(_values(trials, name)) for name in names}
    own = _values(_select_served(trials), "alone_cpu")
    overhead = None
    if platform != baseline and base and own and min(*base, *own) > 0:
        overhead = estimate_median_ratio(own, base)
    reasons = tuple(dict.fromkeys(trial.reason for trial in trials))
    return Packed(platform, figures, reasons, len(trials), overhead)


def _select_served(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials in which one server alone held its level: else it has not done the work that it was given."""
    return [trial for trial in trials if (trial.value("servers") or 0) >= 1]


def _values(trials: Sequence[Trial], metric: str) -> list[float]:
    return [value for trial in trials if (value := trial.value(metric)) is not None]


def estimate_idle(run: Run, platform: str) -> dict[str, Estimate]:
    """Return what an idle server takes: medians of IDLE over the trials of all mixes, in base units (processors,
    wake-ups per second, bytes)."""
    trials = select_trials(run, MEASURE, platform)
    return {name: estimate_median_of_series(values) for name in IDLE if (values := _values(trials, name))}


def read_steps(run: Run, platform: Platform, mix: str) -> tuple[tuple[Step, ...], ...]:
    """Return the steps of each ramp of a platform in a mix; none of one whose samples are gone or damaged."""
    ramps = (
        tuple(step for row in read_table(run.folder.samples_path(trial)) if (step := _step(row)) is not None)
        for trial in select_trials(run, MEASURE, platform.name)
        if trial.parameters.get("mix") == mix
    )
    return tuple(ramp for ramp in ramps if ramp)


def _step(row: Mapping[str, str | None]) -> Step | None:
    names = ("applications", "p99_ms", "host_application", "host_utilisation")
    values = [parse_figure(row.get(name)) for name in names]
    known = [value for value in values if value is not None and value >= 0]
    return Step(*known) if len(known) == len(names) and known[0] >= 1 else None
