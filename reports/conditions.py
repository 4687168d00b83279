"""Notes the conditions of a run: what its host was, what disturbed its trials, what its limits held back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from msgspec import Struct

from testbed.analysis import Platform, Run, get_mapping
from testbed.comparisons import examine_series
from testbed.pairs import find_noise_floor
from testbed.results import LEAST_HELD_BACK
from testbed.statistics import FEWEST_TO_SHOW

# What a manifest calls a host whose processor QEMU emulates (systemd-detect-virt(1)).
_EMULATOR = "qemu"
_TRIALS_SHOWN = 3
_WALLS_SHOWN = _ROOT_SHOWN = 200
_COUNTED_SHOWN = _SHARES_SHOWN = 600
_NAMES_SHOWN, _NAME_SHOWN = 20, 63
INSTRUCTION_TIME = "instruction time"


class Verdict(Struct, frozen=True):
    """Whether a run's host was quiet: in a word or two, and why, a short sentence each."""

    level: Literal["quiet", "disturbed", "unknown"]
    title: str
    reasons: tuple[str, ...]


class Badge(Struct, frozen=True):
    """What a reader must know before any figure, in a few words."""

    level: Literal["alarm", "note"]
    text: str


# What starts guests in the reference machine where it is not KVM, by the accelerator of a platform.
_HYPERVISORS: Mapping[str, str] = MappingProxyType({"xen": "Xen", "virtualbox": "VirtualBox"})


def hypervisor(run: Run) -> str:
    """Return what the host itself ran on, as its manifest says it; empty for a machine of its own."""
    host = get_mapping(run.manifest.get("host"))
    if host.get("hypervisor"):
        return str(host["hypervisor"])
    return "unknown" if get_mapping(host.get("cpu")).get("under_hypervisor") is True else ""


def this_host(run: Run) -> str:
    """Return the end of a sentence of figures, "on this host": whether it is a machine of its own is part of what they
    mean."""
    if run.instruction_time:
        return f"in the reference machine{in_instruction_time(run)}"
    below = hypervisor(run)
    if below == _EMULATOR:
        return "on this host, which is itself emulated"
    return "on this host, which is itself a virtual machine" if below else "on this host"


def in_instruction_time(run: Run) -> str:
    """Return what a sentence with times must say besides; nothing where they are of a clock as everybody has it."""
    return ", in instruction time" if run.instruction_time else ""


def unit_of_time(run: Run, unit: str) -> str:
    """Return a unit of time as axes and captions name it."""
    return f"{unit} of {INSTRUCTION_TIME}" if run.instruction_time else unit


def describe_clock(run: Run) -> str:
    """Return what the run's clock counts, in a sentence; empty for a clock as everybody has it."""
    return (
        "All times are instruction time: one instruction a nanosecond, on an emulated processor." * run.instruction_time
    )


def _note_instruction_time(run: Run) -> str:
    if not run.instruction_time:
        return ""
    named = [_HYPERVISORS.get(str(one.facts.get("accelerator"))) for one in run.platforms]
    name = next(filter(None, named), "KVM")
    return (
        f"{describe_clock(run)} This run was made in the reference machine: {name} there is the real {name}, and"
        " containers and virtual machines have equal, emulated hardware. So its figures are the same on every host, and"
        " no seconds: caches, TLB, the bandwidth of memory and the hardware's own price of an exit are not in them."
    )


def judge_noise(run: Run) -> Verdict:
    """Return whether the host was quiet: before the run, in each trial, and over the run's whole time."""
    watched = [trial for trial in run.trials if trial.window]
    disturbed = sum(1 for trial in watched if trial.disturbances)
    noise = run.manifest.get("noise")
    before = noise if isinstance(noise, list) else []
    moved = _describe_series(run)
    reasons = []
    if watched:
        shown = f"{disturbed} of {len(watched)}" if disturbed else f"none of {len(watched)}"
        reasons.append(f"Trials disturbed: {shown}.")
    if before:
        reasons.append(f"Before the run: {'; '.join(str(line)[:120] for line in before[:2])}.")
    if floor := find_noise_floor(run, "start", "ready"):
        reasons.append(f"A/A noise floor of first answers: ±{floor.spread:.1%}.".replace("%", " %"))
    reasons += moved
    if not watched and not before:
        return Verdict("unknown", "Noise was not recorded", tuple(moved))
    if disturbed or before or moved:
        title = "The host was not quiet" if disturbed or before else "The figures moved"
        return Verdict("disturbed", title, tuple(reasons))
    return Verdict("quiet", "The host was quiet", tuple(reasons))


def _describe_series(run: Run) -> list[str]:
    """Say which platforms' figures drifted over the run, and where neighbouring trials are alike."""
    labels = {one.name: one.label for one in run.platforms}
    series = examine_series(run)
    drifted = [f"{labels[one.platform]} {one.drift.relative:+.1%}".replace("%", " %") for one in series if one.drifts]
    related = list(dict.fromkeys(labels[one.platform] for one in series if one.is_related))
    said = [f"Figures drifted over the run: {', '.join(drifted[:_TRIALS_SHOWN])}."] if drifted else []
    if related:
        few = any(one.is_related and one.effective is None for one in series)
        effect = f"intervals are widened{f', but of fewer than {FEWEST_TO_SHOW} trials' if few else ''}"
        said.append(f"Trials resemble their neighbours ({', '.join(related[:_TRIALS_SHOWN])}): {effect}.")
    return said


def list_badges(run: Run) -> list[Badge]:
    """Return what stands beside the answer: an emulated or nested guest, a clock of instructions, an end."""
    badges = []
    if run.emulated:
        labels = ", ".join(one.label for one in run.emulated)
        badges.append(Badge("alarm", f"Emulated, no hardware virtualisation: {labels}"))
    if run.instruction_time:
        badges.append(Badge("alarm", "Instruction time, not seconds"))
    if _note_hypervisor(run):
        badges.append(Badge("alarm", "Guests are nested"))
    if run.manifest.get("status") not in ("finished", None):
        badges.append(Badge("alarm", f"The run did not finish ({str(run.manifest.get('status'))[:40]})"))
    if run.manifest.get("quick") is True:
        badges.append(Badge("note", "Quick settings: few trials, orders of magnitude"))
    return badges


def list_notes(run: Run) -> list[str]:
    """Return what a reader must know of the run's conditions before its figures, a sentence each."""
    return [
        note
        for note in (
            _note_instruction_time(run),
            _note_hypervisor(run),
            _note_walls(run),
            _note_host_network(run),
            _note_shares(run),
            _note_counted(run),
            _note_noise_before(run),
            _note_disturbed(run),
            _note_held_back(run),
        )
        if note
    ]


def _note_hypervisor(run: Run) -> str:
    nested = [one.label for one in run.platforms if not one.emulated and one.facts.get("accelerator") == "kvm"]
    below = hypervisor(run)
    if not below or not nested or run.instruction_time:
        return ""
    return (
        f"This host is itself {'emulated' if below == _EMULATOR else 'a virtual machine'} ({below}), so the guests of "
        f"{', '.join(nested)} are nested: they cost more than on a machine of its own."
    )


def _join_alike(run: Run, say: Callable[[Platform], object], most: int) -> str:
    """Return what is to be said of platforms, ``most`` characters of each, after all of which it is said."""
    found: dict[str, list[str]] = {}
    for one in run.platforms:
        if said := say(one):
            found.setdefault(str(said)[:most], []).append(one.label)
    return "; ".join(f"{', '.join(labels)}: {said}" for said, labels in found.items())


def _note_walls(run: Run) -> str:
    """Say which platforms confine a workload by something else than the others do, as their facts have it."""
    shown = _join_alike(run, lambda one: one.facts.get("other_walls"), _WALLS_SHOWN)
    return f"Not every platform has the same walls around a workload. {shown}." if shown else ""


def _note_host_network(run: Run) -> str:
    """Say which services' files have them in the host's network, and what that was: the manifest's ``host_network``."""
    named = run.manifest.get("host_network")
    services = ", ".join(str(name)[:_NAME_SHOWN] for name in named[:_NAMES_SHOWN]) if isinstance(named, list) else ""
    if not services:
        return ""
    return (
        f"By their files {services} would be in the host's network. The run's own stood for it, in which the load is,"
        " too, and which nothing else reaches."
    )


def _note_shares(run: Run) -> str:
    """Say what services share on which platforms, and by which driver, as their facts have it."""
    shown = _join_alike(run, lambda one: one.facts.get("shares"), _SHARES_SHOWN)
    return f"Services share directories of the host, which are each copy's own. {shown}." if shown else ""


def _note_counted(run: Run) -> str:
    """Say of which platforms something else counts than cgroups, and what is not in that, as their facts have it."""
    counted = [
        f"{one.label}: {str(how)[:_COUNTED_SHOWN]}" for one in run.platforms if (how := one.facts.get("counted"))
    ]
    return f"Not every platform's processor time and memory are a cgroup's. {'; '.join(counted)}." if counted else ""


def describe_roots(run: Run) -> str:
    """Say what joins the layers of an image to the root of an instance, by platform; "" when no manifest says it."""
    driver = run.manifest.get("root_driver")

    def tell(one: Platform) -> str:
        inside = "in the guest" if "accelerator" in one.facts else ""
        return str(one.facts.get("root") or (f"{driver} {inside}" if driver else "")).strip()

    return _join_alike(run, tell, _ROOT_SHOWN)


def _note_noise_before(run: Run) -> str:
    noise = run.manifest.get("noise")
    lines = [str(line) for line in noise] if isinstance(noise, list) else []
    return f"The host was not quiet before the run: {'; '.join(lines)}." if lines else ""


def _note_disturbed(run: Run) -> str:
    disturbed = [trial for trial in run.trials if trial.disturbances]
    if not disturbed:
        return ""
    shown = "; ".join(f"trial {trial.trial}: {', '.join(trial.disturbances)}" for trial in disturbed[:_TRIALS_SHOWN])
    rest = len(disturbed) - _TRIALS_SHOWN
    more = f"; and {rest} more, listed in trials.jsonl" if rest > 0 else ""
    return f"Of {len(run.trials)} trials {len(disturbed)} were disturbed, and count all the same ({shown}{more})."


def _note_held_back(run: Run) -> str:
    """Say where a quota stopped instances; of a machine, that they are stopped with all that QEMU does for them."""
    most: dict[str, float] = {}
    for trial in run.trials:
        if (part := trial.window.get("throttled_periods", 0.0)) >= LEAST_HELD_BACK:
            most[trial.platform] = max(most.get(trial.platform, 0.0), part)
    by_name = {one.name: one for one in (*run.platforms, *run.again)}
    if not most:
        return ""
    shown = [
        f"{by_name[name].label if name in by_name else name} in up to {part:.0%} of a trial's periods"
        for name, part in most.items()
    ]
    machines = any("accelerator" in by_name[name].facts for name in most if name in by_name)
    shared = " A machine's quota is for its processors and for QEMU's own threads together." if machines else ""
    return f"The limit of processor time held instances back (nr_throttled): {', '.join(shown)}.{shared}"


def as_json(run: Run) -> dict[str, Any]:
    """Return the same as data: what there was before the run, and what each trial's window showed."""
    noise = run.manifest.get("noise")
    return {
        "before": noise if isinstance(noise, list) else [],
        "hypervisor": hypervisor(run) or None,
        "trials": [
            {"trial": trial.trial, "window": dict(trial.window), "disturbances": list(trial.disturbances)}
            for trial in run.trials
            if trial.window
        ],
    }
