"""What a run was made of, what of it differs between runs, and whether they can be compared at all.

A manifest is read as data of unknown form: whatever stands in it ends as a short, printable text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from runtime.output import printable
from testbed.analysis import Run, get_mapping
from testbed.results import REFERENCE

# What two runs differ in, in the order in which it is told: the name, and the paths in the manifest.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "scenario": ("scenario",),
    "settings": ("settings", "platforms_ran", "quick", "measures"),
    "clock": ("clock",),
    "machine": ("machine.inputs", "machine.qemu"),
    "host": ("host.cpu", "host.memory", "host.machine", "host.hypervisor", "host.architecture", "host.kvm"),
    "kernel": ("host.kernel", "host.kernel_build", "host.cgroups", "host.distribution"),
    "commit": ("source",),
    "images": ("images", "seccomp", "guest_kernel"),
    "platforms": ("platforms",),
    "versions": ("versions",),
    "seed": ("seed",),
}
# Facts that are other in every run and make none of it another experiment.
PASSING = frozenset({"available_bytes", "swap_used_bytes", "load_average", "speed"})
# Settings that say how much is measured, not what.
_EFFORT = frozenset({"trials", "until", "budget_s", "most_trials"})
# Facts of a host that an update of it changes.
_PATCHED = ("host.cpu.microcode", "host.cpu.mitigations", "host.memory.total_bytes")
_LONGEST_TEXT = 100
_DEEPEST, _MOST_FACTS = 8, 2000


class Difference(Struct, frozen=True):
    """One fact that differs: its group (``GROUPS``), its name, and how it reads on each side, "" for none."""

    group: str
    name: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before or 'none'} → {self.after or 'none'}"


def name_values(value: object, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested data as a dotted name and a text; what is too deep is one leaf."""
    if isinstance(value, Mapping) and depth < _DEEPEST:
        for key, inner in value.items():
            if key not in PASSING:
                yield from name_values(inner, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, list) and depth < _DEEPEST and any(isinstance(inner, Mapping | list) for inner in value):
        for index, inner in enumerate(value):
            yield from name_values(inner, f"{name}.{index}", depth + 1)
    else:
        yield shorten(name), _text(value)


def shorten(text: str, most: int = _LONGEST_TEXT) -> str:
    """Return a text from a manifest as one printable line of bounded length."""
    line = " ".join(printable(text[: 4 * most]).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return shorten(", ".join(_text(inner) for inner in value[:_LONGEST_TEXT] if not isinstance(inner, list | dict)))
    return shorten(value if isinstance(value, str) else repr(value) if isinstance(value, float) else _plain(value))


def _plain(value: object) -> str:
    if isinstance(value, Mapping | list):
        return "…"
    try:
        return str(value)
    except ValueError:  # a whole number of thousands of digits
        return "a huge number"


def _pick(manifest: Mapping[str, Any], path: str) -> object:
    value: object = manifest
    for key in path.split("."):
        value = get_mapping(value).get(key)
    return value


def read_fingerprint(run: Run) -> dict[str, dict[str, str]]:
    """Return what a run was made of, by group: names of facts, and their texts."""
    clock = "instruction time" if run.instruction_time else "host clock"
    beside = "each with another at the same time" if any(trial.beside for trial in run.trials) else "each by itself"
    manifest = {**run.manifest, "clock": clock, "platforms_ran": beside}
    groups = dict(GROUPS)
    if run.instruction_time:  # the machine is emulated: what it runs on is no part of its figures
        groups = {name: paths for name, paths in groups.items() if name not in ("host", "kernel")}
    return {
        group: dict(
            islice(
                (pair for path in paths for pair in name_values(_pick(manifest, path), path) if pair[1]), _MOST_FACTS
            )
        )
        for group, paths in groups.items()
    }


def list_differences(before: Run, after: Run) -> tuple[Difference, ...]:
    """Return what differs in the fingerprints of two runs, in the order of ``GROUPS``."""
    old, new = read_fingerprint(before), read_fingerprint(after)
    return tuple(
        Difference(group, name, old.get(group, {}).get(name, ""), new.get(group, {}).get(name, ""))
        for group in GROUPS
        for name in dict.fromkeys((*old.get(group, {}), *new.get(group, {})))
        if old.get(group, {}).get(name) != new.get(group, {}).get(name)
    )


def look_ahead(before: Run, scenario: str, settings: Mapping[str, Any], instruction_time: bool) -> tuple[str, ...]:
    """Return why a run that is still to be made could not be compared with this one, as ``list_obstacles`` does."""
    planned = {"scenario": scenario, "settings": settings, "machine": {"kind": REFERENCE} if instruction_time else None}
    after = replace(before, manifest={**before.manifest, **planned})
    return list_obstacles(list_differences(before, after))


def list_obstacles(differences: Sequence[Difference]) -> tuple[str, ...]:
    """Return why runs that differ so cannot be compared, a sentence each; none when they can."""
    obstacles = []
    for one in differences:
        last = one.name.rpartition(".")[2]
        if one.group == "scenario":
            obstacles.append(f"they ran other scenarios ({one.before or 'none'} and {one.after or 'none'})")
        elif one.group == "clock":
            obstacles.append(f"their clocks are others ({one.before} and {one.after}): an instruction is no second")
        elif one.group == "settings" and one.name.startswith(("settings", "platforms_ran")) and last not in _EFFORT:
            obstacles.append(f"their settings differ ({one})")
    return tuple(obstacles)


def list_doubts(differences: Sequence[Difference]) -> tuple[str, ...]:
    """Return what else may explain a change than what was changed on purpose: another host is a reason of its own."""
    hosts = [one for one in differences if one.group == "host" and not one.name.startswith(_PATCHED)]
    if not hosts:
        return ()
    shown = "; ".join(map(str, hosts[:3])) + (f"; and {len(hosts) - 3} more" if len(hosts) > 3 else "")
    return (f"They were measured on different hosts ({shown}): a change may be the hosts'.",)


def list_changed_platforms(before: Run, after: Run) -> dict[str, str]:
    """Return the platforms that are something else in each run, and why their figures are not set side by side: an
    emulated guest is no hardware virtualisation."""
    old, new = ({one.name: one for one in run.platforms} for run in (before, after))
    return {
        name: f"{shorten(old[name].label)} in the baseline, {shorten(new[name].label)} here"
        for name in old.keys() & new.keys()
        if old[name].emulated != new[name].emulated or old[name].temperature != new[name].temperature
    }


def read_commit(run: Run) -> str:
    """Return the commit that measured, with a mark when files were changed since; "" when the manifest has none."""
    source = get_mapping(run.manifest.get("source"))
    commit = source.get("commit")
    if not isinstance(commit, str):
        return ""
    return shorten(commit[:12]) + ("+changes" if source.get("dirty") is True else "")
