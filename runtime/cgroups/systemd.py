"""This module makes, changes and stops transient systemd scopes for containers.

Where systemd runs, it owns the cgroups. A container's cgroup is therefore a scope that systemd makes, knows the limits
of, and delegates to us (systemd.scope(5), "Delegate"). The manager is called through busctl: root's containers are
units of the system manager, and an unprivileged user's containers are units of that user's own manager.

Names, slices and properties follow runc's and crun's systemd drivers (runc, docs/systemd.md), because engines look for
them there. Limits that systemd cannot express are only written to the cgroup. Limits that it can express are also
passed to systemd, because it writes its own values of a unit's limits again whenever it reloads.
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
# A manager that does not answer, or a job that does not end, within this time is an error.
_TIMEOUT_S = 10.0
# All user ids, as the first user namespace maps them (user_namespaces(7)).
_ALL_IDS = 2**32 - 1

# The name of a unit's property, its D-Bus signature, and its value as arguments of busctl(1).
Property = tuple[str, str, tuple[str, ...]]

# Control files of cgroup v2 whose value a property takes unchanged (systemd.resource-control(5)).
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
# The names of types in GVariant text (GLib, "GVariant Text Format") and their D-Bus signatures.
_TYPES = {"byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t"}


class Scope(Struct, frozen=True):
    """A transient scope: the names of its unit and its slice, and the manager's cgroup, which is ``above`` them."""

    unit: str
    slice: str
    above: str = ""

    @property
    def cgroup(self) -> str:
        """This is the scope's cgroup below the hierarchy's root. Each dash in a slice's name leads one level down."""
        parts = self.slice.removesuffix(".slice").split("-") if self.slice != "-.slice" else []
        slices = ["-".join(parts[: depth + 1]) + ".slice" for depth in range(len(parts))]
        return "/".join([*([self.above] if self.above else []), *slices, self.unit])


def maps_all_ids(uid_map: str) -> bool:
    """Tell from its /proc/PID/uid_map whether a user namespace is the host's own."""
    return uid_map.split() == ["0", "0", str(_ALL_IDS)]


@cache
def is_unprivileged() -> bool:
    """Tell whether we are unprivileged: by user id, or as root of a user namespace, as under a rootless engine."""
    return os.geteuid() != 0 or not maps_all_ids(Path("/proc/self/uid_map").read_text())


class Bus(Struct, frozen=True):
    """A way to call a systemd manager.

    ``run`` executes busctl(1) for the caller that has the ``environment`` and returns its exit status, its output and
    its errors. It raises OSError when busctl cannot be executed.
    """

    environment: Mapping[str, str]
    run: Callable[[Sequence[str], Mapping[str, str]], tuple[int, str, str]]

    def of_user(self) -> dict[str, str]:
        """Return the environment, with the user's bus in it.

        If the login set no address for the bus, the bus is taken to be where pam_systemd(8) puts it.
        """
        found = dict(self.environment)
        directory = f"/run/user/{os.geteuid()}"
        if "DBUS_SESSION_BUS_ADDRESS" not in found and "XDG_RUNTIME_DIR" not in found and os.path.isdir(directory):
            found["XDG_RUNTIME_DIR"] = directory
        return found


def missing(hierarchies: Hierarchies, bus: Bus) -> str:
    """Return the reason why no scope can be made here, in words, or an empty string where one can be made."""
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
    """Return the names of the unit and its slice for ``slice:prefix:name``, or for an empty path.

    The slice and the prefix may be empty. Raises UsageError for any other path.
    """
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
    """Return a container's scope, below this user's manager. Raises UsageError, PrerequisiteError or TestbedError."""
    unprivileged = is_unprivileged()
    unit, slice_ = scope_names(cgroups_path, container_id, unprivileged)
    if not unprivileged:
        return Scope(unit, slice_)
    said = _busctl(bus, "get-property", _SERVICE, _OBJECT, _MANAGER, "ControlGroup")
    return Scope(unit, slice_, str(json.loads(said)["data"]).strip("/"))


def _numbers(text: str, what: str) -> tuple[str, ...]:
    """Convert a list such as ``0-3,7`` to the count of bytes and the bytes of a bit mask. Raises UsageError."""
    mask = 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not is_number(first) or (dash and not is_number(last)) or not int(first) <= int(last or first) <= 8191:
            raise UsageError(f"{what}: {text!r} is not a list of numbers")
        mask |= (1 << int(last or first) + 1) - (1 << int(first))
    octets = mask.to_bytes(-(-mask.bit_length() // 8), "little")
    return (str(len(octets)), *map(str, octets))


def properties(settings: Iterable[Setting]) -> tuple[Property, ...]:
    """Convert settings of cgroup v2 to properties of a unit where systemd has such properties. Raises UsageError."""
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
                # systemd stores whole percents and rounds down when it reloads, so the quota is rounded up.
                usec = int(quota) * 1_000_000 // int(period or 100_000)
                share = str(-(-usec // 10_000) * 10_000)
            found.append(("CPUQuotaPerSecUSec", "t", (share,)))
            if period:
                found.append(("CPUQuotaPeriodUSec", "t", (period,)))
    return tuple(found)


def annotated(annotations: Mapping[str, str]) -> tuple[Property, ...]:
    """Return the properties from annotations ``org.systemd.property.NAME``, whose values are GVariant text.

    Raises UsageError, which names the annotation that cannot be understood.
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
    """Call the manager. Raises PrerequisiteError without busctl or a bus, TestbedError with the manager's message."""
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
    """Have systemd make the scope with the process in it. Raises TestbedError with systemd's message.

    If the call fails, a failed unit of this name that is still loaded is reset, and the call is repeated.
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
    """Wait until the process is in the scope's cgroup, because systemd answers a call before the job is done."""
    line, deadline = f"0::/{scope.cgroup}\n", time.monotonic() + _TIMEOUT_S
    while (lies := Path(f"/proc/{pid}/cgroup").read_text()) != line:
        if time.monotonic() > deadline:
            raise TestbedError(
                f"start {scope.unit}: after {_TIMEOUT_S:.0f} s process {pid} is in {lies.strip()}, not {line.strip()}",
                f"see `systemctl status {scope.unit}`",
            )
        time.sleep(0.001)


def attach(unit: str, below: str, pid: int, bus: Bus) -> None:
    """Have systemd move another process into the scope's cgroup, or into the cgroup ``below`` it.

    systemd may do so where its user may not. Raises TestbedError.
    """
    _call(bus, "AttachProcessesToUnit", "ssau", unit, below, "1", str(pid))


def update(unit: str, found: tuple[Property, ...], bus: Bus) -> None:
    """Tell systemd about changed limits, which hold for as long as the unit exists. Raises TestbedError."""
    if found:
        _call(bus, "SetUnitProperties", "sba(sv)", unit, "true", *_flat(found))


def stop(unit: str, bus: Bus) -> None:
    """Make systemd forget the scope, whose processes have ended.

    A scope that systemd no longer knows is ignored, and so is a manager that is gone, because its units are gone with
    it. Raises TestbedError when systemd still has the scope after some seconds, because its name could not be reused.
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
