"""Transient scopes: where systemd runs, cgroups are its own, so a container's cgroup is a scope that systemd makes,
knows the limits of, and hands over to us (systemd.scope(5), "Delegate"). The manager is asked through busctl: root's
containers are units of the system's, those of an unprivileged user units of the user's own manager.

Names, slices and properties are as runc's and crun's systemd drivers have them (runc, docs/systemd.md), because engines
look for them there. What systemd cannot express is written to the cgroup besides, and what it can is told to it too:
it writes its own idea of a unit's limits again whenever it reloads.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from msgspec import Struct

from runtime.cgroups.hierarchy import Hierarchies
from runtime.cgroups.resources import Setting
from runtime.config.decode import is_number
from runtime.errors import PrerequisiteError, TestbedError, UsageError

_SERVICE, _OBJECT = "org.freedesktop.systemd1", "/org/freedesktop/systemd1"
_MANAGER = f"{_SERVICE}.Manager"
_ANNOTATION = "org.systemd.property."
_UNLIMITED = str(2**64 - 1)
# Beyond this a manager that does not answer, or a job that does not end, is an error.
_TIMEOUT_S = 10.0
# All user ids, as the first user namespace maps them (user_namespaces(7)).
_ALL_IDS = 2**32 - 1

# The name of a unit's property, its D-Bus signature, and its value in the words of busctl(1).
Property = tuple[str, str, tuple[str, ...]]

# Control files of cgroup v2 whose value a property takes as it is (systemd.resource-control(5)).
_NUMBERS = {
    "memory.max": "MemoryMax",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "cpu.weight": "CPUWeight",
    "pids.max": "TasksMax",
}
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
# How GVariant text spells types (GLib, "GVariant Text Format"), and D-Bus signatures.
_TYPES = {"byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t"}


class Scope(Struct, frozen=True):
    """A transient scope: its unit's name and its slice's, and the cgroup ``above`` them, that of the manager."""

    unit: str
    slice: str
    above: str = ""

    @property
    def cgroup(self) -> str:
        """The scope's cgroup below the root of the hierarchy: each dash of a slice's name is a step down."""
        parts = self.slice.removesuffix(".slice").split("-") if self.slice != "-.slice" else []
        slices = ["-".join(parts[: depth + 1]) + ".slice" for depth in range(len(parts))]
        return "/".join([*([self.above] if self.above else []), *slices, self.unit])


def maps_all_ids(uid_map: str) -> bool:
    """Whether a user namespace is the host's own, from its /proc/PID/uid_map."""
    return uid_map.split() == ["0", "0", str(_ALL_IDS)]


@cache
def is_unprivileged() -> bool:
    """Whether we are an unprivileged user: by number, or root of a user namespace, as under a rootless engine."""
    return os.geteuid() != 0 or not maps_all_ids(Path("/proc/self/uid_map").read_text())


class Bus(Struct, frozen=True):
    """How a manager is asked: ``run`` executes busctl(1) for whoever has the ``environment``, and returns its exit
    status, its output and its errors; it raises OSError where that cannot be executed."""

    environment: Mapping[str, str]
    run: Callable[[Sequence[str], Mapping[str, str]], tuple[int, str, str]]

    def of_user(self) -> dict[str, str]:
        """The environment; where a login did not say where the user's bus is, it is where pam_systemd(8) puts it."""
        found = dict(self.environment)
        directory = f"/run/user/{os.geteuid()}"
        if "DBUS_SESSION_BUS_ADDRESS" not in found and "XDG_RUNTIME_DIR" not in found and os.path.isdir(directory):
            found["XDG_RUNTIME_DIR"] = directory
        return found


def missing(hierarchies: Hierarchies, bus: Bus) -> str:
    """Why no scope can be made here, in words; empty where one can."""
    if not os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        return "this host does not run systemd"
    if hierarchies.v1 or hierarchies.unified is None:
        return f"this host has its cgroups in mode {hierarchies.mode}, not v2 alone"
    if is_unprivileged():
        environment = bus.of_user()
        directory = environment.get("XDG_RUNTIME_DIR")
        if "DBUS_SESSION_BUS_ADDRESS" not in environment and not (directory and os.path.exists(f"{directory}/bus")):
            return "no bus of this user's own manager (DBUS_SESSION_BUS_ADDRESS, XDG_RUNTIME_DIR/bus)"
    return ""


def scope_names(cgroups_path: str, container_id: str, unprivileged: bool) -> tuple[str, str]:
    """The unit and its slice for ``slice:prefix:name``, all of which may be empty. Raises UsageError for others."""
    slice_, prefix, name = "", "testbed-runtime", container_id
    if cgroups_path:
        if cgroups_path.count(":") != 2:
            raise UsageError(
                f"config.json: linux.cgroupsPath: {cgroups_path!r}", "with systemd's cgroups it is slice:prefix:name"
            )
        slice_, prefix, name = cgroups_path.split(":")
    slice_ = {"": "user.slice" if unprivileged else "system.slice", "-": "-.slice"}.get(slice_, slice_)
    if not re.fullmatch(r"(-|[A-Za-z0-9:_.\\]+(-[A-Za-z0-9:_.\\]+)*)\.slice", slice_):
        raise UsageError(f"config.json: linux.cgroupsPath: {slice_!r} is not the name of a slice")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if not re.fullmatch(r"[A-Za-z0-9:_.\\@-]{1,255}", unit) or not name or name.endswith(".slice"):
        raise UsageError(f"config.json: linux.cgroupsPath: {unit!r} is not the name of a scope")
    return unit, slice_


def scope_of(cgroups_path: str, container_id: str, bus: Bus) -> Scope:
    """The scope of a container, below the manager that this user has. Raises UsageError, PrerequisiteError."""
    unprivileged = is_unprivileged()
    unit, slice_ = scope_names(cgroups_path, container_id, unprivileged)
    if not unprivileged:
        return Scope(unit, slice_)
    said = _busctl(bus, "get-property", _SERVICE, _OBJECT, _MANAGER, "ControlGroup")
    return Scope(unit, slice_, str(json.loads(said)["data"]).strip("/"))


def _numbers(text: str, what: str) -> tuple[str, ...]:
    """A list such as ``0-3,7`` as bytes whose bits are the numbers, after their count."""
    mask = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not is_number(first) or (dash and not is_number(last)) or not int(first) <= int(last or first) <= 8191:
            raise UsageError(f"{what}: {text!r} is not a list of numbers")
        mask |= (1 << int(last or first) + 1) - (1 << int(first))
    octets = mask.to_bytes(-(-mask.bit_length() // 8), "little")
    return (str(len(octets)), *map(str, octets))


def properties(settings: Iterable[Setting]) -> tuple[Property, ...]:
    """Settings of cgroup v2 as properties of a unit, those that systemd has. Raises UsageError."""
    found: list[Property] = []
    for _, file, value in settings:
        if name := _NUMBERS.get(file):
            found.append((name, "t", (_UNLIMITED if value == "max" else value,)))
        elif name := _SETS.get(file):
            found.append((name, "ay", _numbers(value, file)))
        elif file == "cpu.max":
            quota, _, period = value.partition(" ")
            share = _UNLIMITED
            if quota != "max":
                # systemd writes whole percents down: rounded up, for it would round down when it reloads.
                usec = int(quota) * 1_000_000 // int(period or 100_000)
                share = str(-(-usec // 10_000) * 10_000)
            found.append(("CPUQuotaPerSecUSec", "t", (share,)))
            if period:
                found.append(("CPUQuotaPeriodUSec", "t", (period,)))
    return tuple(found)


def annotated(annotations: Mapping[str, str]) -> tuple[Property, ...]:
    """The properties that annotations ``org.systemd.property.NAME`` give, whose values are GVariant text.

    Raises UsageError naming an annotation that cannot be understood.
    """
    found: list[Property] = []
    for key, text in annotations.items():
        if not key.startswith(_ANNOTATION):
            continue
        name, word = key.removeprefix(_ANNOTATION), text.strip()
        kind, _, number = word.rpartition(" ")
        if word in ("true", "false"):
            found.append((name, "b", (word,)))
        elif re.fullmatch(r"'[^'\\]*'|\"[^\"\\]*\"", word):
            found.append((name, "s", (word[1:-1],)))
        elif re.fullmatch(r"-?\d+", number) and (not kind or kind.strip() in _TYPES):
            found.append((name, _TYPES[kind.strip() or "int32"], (number,)))
        elif strings := re.fullmatch(r"\[((?:'[^'\\]*'(?:, *(?=')|(?=\])))+)\]", word):
            words = re.findall(r"'([^']*)'", strings[1])
            found.append((name, "as", (str(len(words)), *words)))
        else:
            raise UsageError(
                f"config.json: annotations: {key}: {text!r} is not understood",
                "a number with its type (uint64 5), 'text', true, false or ['text', ...]",
            )
    return tuple(found)


def _flat(found: Iterable[Property]) -> tuple[str, ...]:
    listed = list(found)
    return (str(len(listed)), *(word for name, kind, value in listed for word in (name, kind, *value)))


def _busctl(bus: Bus, *arguments: str) -> str:
    """Ask the manager. Raises PrerequisiteError without busctl or a bus, TestbedError with the manager's own words."""
    user = is_unprivileged()
    command = ["busctl", "--user" if user else "--system", f"--timeout={_TIMEOUT_S:.0f}", "--json=short", *arguments]
    what = f"ask {'the user' if user else 'the system'}'s systemd: {' '.join(arguments[4:] or arguments)}"
    try:
        status, output, errors = bus.run(command, bus.of_user())
    except OSError as error:
        raise PrerequisiteError(f"{what}: {command[0]}: {error.strerror}", "it comes with systemd") from error
    if status != 0:
        said = errors.strip() or f"exit status {status}"
        if "bus" in said and ("connect" in said or "address" in said):
            hint = "log in anew, or `loginctl enable-linger`, and let XDG_RUNTIME_DIR lead to the user's bus"
            raise PrerequisiteError(f"{what}: {said}", hint if user else "start the system's D-Bus daemon")
        raise TestbedError(f"{what}: {said}")
    return output


def _call(bus: Bus, method: str, signature: str, *arguments: str) -> str:
    return _busctl(bus, "call", _SERVICE, _OBJECT, _MANAGER, method, signature, *arguments)


def start(scope: Scope, pid: int, found: Iterable[Property], bus: Bus) -> None:
    """Have the scope made, with the process in it. Raises TestbedError with what systemd says.

    A unit of this name that has failed, and that nobody has looked at, goes first.
    """
    wanted: tuple[Property, ...] = (
        ("Description", "s", (f"testbed-runtime container {scope.unit.removesuffix('.scope')}",)),
        ("Slice", "s", (scope.slice,)),
        ("PIDs", "au", ("1", str(pid))),
        ("Delegate", "b", ("true",)),
        *((f"{name}Accounting", "b", ("true",)) for name in ("CPU", "IO", "Memory", "Tasks")),
        ("DefaultDependencies", "b", ("false",)),
        *found,
    )
    arguments = ("StartTransientUnit", "ssa(sv)a(sa(sv))", scope.unit, "fail", *_flat(wanted), "0")
    try:
        _call(bus, *arguments)
    except PrerequisiteError:
        raise
    except TestbedError as error:
        try:
            _call(bus, "ResetFailedUnit", "s", scope.unit)
        except TestbedError:
            raise error from None
        _call(bus, *arguments)
    _await(scope, pid)


def _await(scope: Scope, pid: int) -> None:
    """Wait until the process is in the scope's cgroup: the answer to a call comes before the job is done."""
    line, deadline = f"0::/{scope.cgroup}\n", time.monotonic() + _TIMEOUT_S
    while (lies := Path(f"/proc/{pid}/cgroup").read_text()) != line:
        if time.monotonic() > deadline:
            raise TestbedError(
                f"start {scope.unit}: after {_TIMEOUT_S:.0f} s process {pid} is in {lies.strip()}, not {line.strip()}",
                f"see `systemctl status {scope.unit}`",
            )
        time.sleep(0.001)


def attach(unit: str, below: str, pid: int, bus: Bus) -> None:
    """Have a further process put into the scope's cgroup, or the one ``below``: systemd may where its user may not.

    Raises TestbedError."""
    _call(bus, "AttachProcessesToUnit", "ssau", unit, below, "1", str(pid))


def update(unit: str, found: tuple[Property, ...], bus: Bus) -> None:
    """Tell systemd of limits that have changed, for as long as the unit is there. Raises TestbedError."""
    if found:
        _call(bus, "SetUnitProperties", "sba(sv)", unit, "true", *_flat(found))


def stop(unit: str, bus: Bus) -> None:
    """Let systemd forget the scope, whose processes have ended; one that it does not know any more is fine, and so is a
    manager that is gone: its units are gone with it.

    Raises TestbedError when systemd still has it after some seconds: the name could not be used again.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            _call(bus, "StopUnit", "ss", unit, "replace")
        except PrerequisiteError:
            return
        except TestbedError as error:
            if "not loaded" in error.message:
                return
            raise
        with suppress(TestbedError):
            _call(bus, "ResetFailedUnit", "s", unit)
        if time.monotonic() > deadline:
            raise TestbedError(f"stop {unit}: systemd still has it after {_TIMEOUT_S:.0f} s")
        time.sleep(0.005)
