"""The list of trials: those that are not ok first, each with its figure, what disturbed it, and links to its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from reports import provenance
from reports.quantities import LOAD, START
from reports.thinning import pick_evenly
from testbed.analysis import Run, get_offered_rate
from testbed.results import Trial

_MOST_BAD, _MOST_GOOD = 60, 60
_MOST_LINKS = 6


class Line(Struct, frozen=True):
    """One trial as text; ``links`` are a text and an address below the run folder."""

    number: int
    platform: str
    what: str
    outcome: str
    figure: str
    noise: str
    links: tuple[tuple[str, str], ...]
    ok: bool


class Listing(Struct, frozen=True):
    """The trials that are listed, in their order, and how many are not."""

    lines: tuple[Line, ...]
    left_out: int


def list_trials(run: Run, logs: Mapping[int, Sequence[str]]) -> Listing:
    """Return the trials to list: all of a small run; of a large one some that are not ok, and some of the others."""
    bad = pick_evenly([trial for trial in run.trials if not trial.counted], _MOST_BAD)
    good = pick_evenly([trial for trial in run.trials if trial.counted], _MOST_GOOD)
    listed = sorted((*bad, *good), key=lambda trial: trial.trial)
    labels = {one.name: one.label for one in (*run.platforms, *run.again)}
    lines = tuple(_line(run, trial, labels, logs.get(trial.trial, ())) for trial in listed)
    return Listing(lines, len(run.trials) - len(lines))


def _line(run: Run, trial: Trial, labels: Mapping[str, str], logs: Sequence[str]) -> Line:
    rate, mix = get_offered_rate(trial), trial.parameters.get("mix")
    what = f"{trial.measure} at {rate:g}/s" if rate is not None and trial.measure == "utilisation" else trial.measure
    what += f" of {str(mix)[:60]}" if mix is not None and trial.measure == "consolidation" else ""
    if trial.measure == "neighbours":
        what += f": {str(trial.parameters.get('case', '?'))[:60]}"
    said = [name for name, held in (("warm-up", trial.warmup), (f"again for {trial.repeats}", trial.repeats)) if held]
    links = [(_short(link), link) for link in (*logs, *provenance.sample_links(run.folder, trial))]
    return Line(
        trial.trial,
        labels.get(trial.platform, trial.platform),
        what,
        ", ".join((trial.outcome, *said)),
        _figure(trial),
        "; ".join(trial.disturbances)[:300],
        tuple(links[:_MOST_LINKS]),
        trial.counted,
    )


def _short(link: str) -> str:
    return link.rpartition("/")[2]


def _figure(trial: Trial) -> str:
    """Return the figure that a measure is known by; why there is none."""
    if trial.outcome != "ok":
        return trial.reason[:200]
    if (ready := trial.value("ready")) is not None:
        return START["ready"].show(ready)
    if (copies := trial.value("applications")) is not None:
        return f"{copies:g} copies; {trial.reason[:120]}"
    if (servers := trial.value("servers")) is not None:
        return f"{servers:g} servers; {trial.reason[:120]}"
    if (cost := trial.value("cpu_per_request")) is not None:
        return f"{LOAD['cpu_per_request'].show(cost)} of CPU a request"
    return ""
