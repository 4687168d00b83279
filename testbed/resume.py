"""Goes on with a run that was interrupted: the same folder, settings, images, code and host, or not at all.

There is no way to force it: figures of two hosts, or of two states of the code, in one run folder would be no run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.lease import is_dead, is_held
from testbed.leftovers import remove_run
from testbed.request import Options
from testbed.results import TRIALS, RunFolder, counts_instructions

# A run's id is a part of paths and the name of a cgroup.
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What must be as it was. Of the host it is what a trial depends on and a reboot does not change.
_SAME = ("settings", "seccomp", "guest_kernel", "versions", "against", "design.groups")
_SAME_OF_HOST = ("kernel", "kernel_build", "architecture", "hypervisor", "distribution", "cgroups", "kvm")
_SAME_OF_CPU = ("model", "processors", "microcode", "smt", "governor", "mitigations")
_SAME_OF_PLATFORM = ("label", "emulated", "temperature", "kernel_sha256", "images")
_MEMORY_TOLERANCE = 0.01


class Resumed(Struct, frozen=True):
    """A run to go on with: what was asked for of it, and the seconds of measuring that it has had."""

    folder: RunFolder
    options: Options
    spent_s: float

    @property
    def run_id(self) -> str:
        return self.folder.run_id

    def clean(self) -> None:
        """Remove what the run left on this host if it was killed; to be called when no other run is measured."""
        if is_dead(self.run_id):
            remove_run(self.run_id)


def open_resumed(options: Options) -> Resumed:
    """Return the run to go on with, of which ``options`` name the folder and what may be different: command, wait and
    budget.

    Raises UsageError for what is no run folder, or has a newer format, is damaged or was made by a testbed that noted
    no options; for a run that is finished or being measured now; and for one of the reference machine.
    """
    assert options.resume is not None
    folder = RunFolder.open(options.resume)
    manifest = folder.manifest
    if not _RUN_ID.fullmatch(folder.run_id):
        raise UsageError(f"{folder.path} names a run {folder.run_id[:64]!r}, which is no name of one")
    if counts_instructions(manifest):
        raise UsageError(
            f"{folder.path} was measured in the reference machine, which cannot be resumed",
            "run it again: it gives the same figures",
        )
    if manifest.get("status") == "finished":
        raise UsageError(f"the run {folder.run_id} is finished: nothing of it is left to measure", "make a new one")
    if is_held(folder.run_id):
        raise UsageError(f"the run {folder.run_id} is being measured right now", "wait for its end, or end it")
    try:
        asked = msgspec.convert(manifest["options"], Options, dec_hook=_as_path)
    except KeyError as error:
        hint = "make a new one"
        raise UsageError(f"{folder.path} says nothing of what was asked for: it cannot be resumed", hint) from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{folder.path}: damaged options in its manifest: {error}", "restore it") from error
    folder.trials()  # what is damaged is told before anything is built
    own_budget = options.budget_s is not None
    asked = replace(
        asked,
        command=options.command,
        wait=options.wait,
        out=folder.path.parent,
        resume=folder.path,
        budget_s=options.budget_s if own_budget else asked.budget_s,
    )
    return Resumed(folder, asked, 0.0 if own_budget else _sum_spent_s(folder))


def _as_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError


def _sum_spent_s(folder: RunFolder) -> float:
    """Return the seconds that the sessions of a run have measured. One that was killed counts until its last trial."""
    spent_s = 0.0
    for session in folder.sessions:
        measured_s = session.get("measured_s")
        if isinstance(measured_s, int | float):
            spent_s += max(0.0, float(measured_s))
        elif session is folder.sessions[-1]:
            spent_s += _seconds_to_last_trial(folder, session.get("started"))
    return spent_s


def _seconds_to_last_trial(folder: RunFolder, started: object) -> float:
    try:
        began = datetime.fromisoformat(str(started))
        last = datetime.fromtimestamp((folder.path / TRIALS).stat().st_mtime, UTC)
        return max(0.0, (last - began).total_seconds())
    except (OSError, ValueError, TypeError):
        return 0.0


def find_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what differs between a run's manifest and the one that it would get now, ``name: was A, is B`` each."""
    return tuple(
        f"{name}: was {_show(was)}, is {_show(found)}" for name, was, found in _pairs(before, now) if was != found
    )


def check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError, with all that differs, when a run cannot be gone on with here and now."""
    if differences := find_differences(before, now):
        raise UsageError(
            f"the run {before.get('run')} cannot be resumed, for its trials would not be alike:\n  "
            + "\n  ".join(differences),
            "restore what was, or make a new run",
        )


def _pairs(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield what must be the same: its name, what it was and what it is, as JSON has them."""
    before, now = (msgspec.json.decode(msgspec.json.encode(one, enc_hook=str)) for one in (before, now))
    for name in _SAME:
        yield name, _at(before, name), _at(now, name)
    yield "images", _images(before), _images(now)
    for name in _SAME_OF_HOST:
        yield f"host.{name}", _at(before, f"host.{name}"), _at(now, f"host.{name}")
    for name in _SAME_OF_CPU:
        yield f"host.cpu.{name}", _at(before, f"host.cpu.{name}"), _at(now, f"host.cpu.{name}")
    memory = [_at(one, "host.memory.total_bytes") for one in (before, now)]
    if not all(isinstance(one, int) for one in memory) or abs(memory[0] - memory[1]) > _MEMORY_TOLERANCE * memory[0]:
        yield "host.memory.total_bytes", *memory
    yield "source.commit", _at(before, "source.commit"), _at(now, "source.commit")
    yield "source.dirty", _at(before, "source.dirty"), _at(now, "source.dirty")
    for platform in dict.fromkeys((*_mapping(before, "platforms"), *_mapping(now, "platforms"))):
        for name in _SAME_OF_PLATFORM:
            path = ("platforms", platform, name)
            yield ".".join(path), _follow(before, path), _follow(now, path)


def _images(manifest: Any) -> dict[str, Any]:
    return {name: _follow(image, ("id",)) for name, image in _mapping(manifest, "images").items()}


def _mapping(manifest: Any, name: str) -> Mapping[str, Any]:
    found = _follow(manifest, (name,))
    return found if isinstance(found, Mapping) else {}


def _at(tree: Any, path: str) -> Any:
    return _follow(tree, tuple(path.split(".")))


def _follow(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _show(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
