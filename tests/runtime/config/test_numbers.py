"""Every number of a configuration, found by its type: what is outside its range is refused, what is inside works.

A field that is added is here by itself; one whose number has no range fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
from msgspec import Meta, structs

from runtime.cgroups.hierarchy import ALL, Hierarchies
from runtime.config.decode import Object, decode
from runtime.config.process import Process
from runtime.config.types import Config
from runtime.config.validate import validate
from runtime.errors import TestbedError, UsageError
from runtime.plan.bundle import Choices, bundle_plan
from runtime.plan.encode import encode
from tests.runtime.config.test_decode import HOST, changed

INT64, UINT64 = range(-(1 << 63), 1 << 63), range(1 << 64)
# The specification's types (specs-go/config.go, schema/defs.json), where the kernel takes all of them.
SPECIFIED = {
    "process.rlimits[].soft": UINT64,
    "process.rlimits[].hard": UINT64,
    "process.user.umask": range(1 << 32),
    "process.scheduler.nice": range(-(1 << 31), 1 << 31),
    "process.scheduler.runtime": UINT64,
    "process.oomScoreAdj": range(-1000, 1001),
    "linux.devices[].fileMode": range(1 << 32),
    "linux.resources.cpu.quota": INT64,
    "linux.resources.cpu.shares": UINT64,
    "linux.resources.blockIO.weight": range(1 << 16),
    "linux.resources.hugepageLimits[].limit": UINT64,
    "linux.resources.memory.limit": range(-1, 1 << 63),
    "linux.resources.network.classID": range(1 << 32),
    "linux.resources.pids.limit": INT64,
    "linux.seccomp.syscalls[].args[].value": UINT64,
    "linux.timeOffsets{}.secs": INT64,
    # (uid_t)-1 is nobody's number
    "process.user.uid": range((1 << 32) - 1),
    "process.user.additionalGids[]": range((1 << 32) - 1),
    "linux.uidMappings[].hostID": range((1 << 32) - 1),
}


def numbers(kind: Any, path: str = "") -> Iterator[tuple[str, Meta | None]]:
    """All numbers below a type: where, as ``mounts[].uidMappings[].size``, and the range they are declared with."""
    if isinstance(kind, type) and issubclass(kind, Object):
        for field in structs.fields(kind):
            yield from numbers(field.type, f"{path}.{field.encode_name}".lstrip("."))
    elif kind is int:
        yield path, None
    elif get_origin(kind) is Annotated and get_args(kind)[0] is int:
        yield path, next(each for each in get_args(kind) if isinstance(each, Meta))
    else:
        mark = {tuple: "[]"}.get(
            get_origin(kind), "{}" if len(get_args(kind)) == 2 and get_args(kind)[0] is str else ""
        )
        for each in get_args(kind):
            yield from numbers(each, path + mark)


NUMBERS = dict(numbers(Config))


def bounds(meta: Meta | None) -> tuple[int, int]:
    assert meta is not None
    low, high = (-(1 << 63) if meta.ge is None else meta.ge), meta.le
    return int(low), int((1 << 64) - 1 if high is None else high)


# What must be there beside the number for the object to be one, and for the runtime to carry it out.
BESIDE: dict[str, dict[str, Any]] = {
    "process.rlimits[]": {"type": "RLIMIT_NOFILE", "soft": 0, "hard": (1 << 64) - 1},
    "process.scheduler": {"policy": "SCHED_OTHER"},
    "process.ioPriority": {"class": "IOPRIO_CLASS_BE"},
    "process.consoleSize": {"height": 1, "width": 1},
    "mounts[]": {"destination": "/m", "type": "bind", "source": "/", "options": ["bind"]},
    "linux.devices[]": {"path": "/dev/x", "type": "c"},
    "linux.resources.devices[]": {"allow": False},
    "linux.resources.network.priorities[]": {"name": "eth0", "priority": 0},
    "linux.resources.hugepageLimits[]": {"pageSize": "2MB", "limit": 0},
    "linux.seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
    "linux.seccomp.syscalls[]": {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"},
    "linux.seccomp.syscalls[].args[]": {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
}
MAPPING = {"containerID": 0, "hostID": 0, "size": 1}
DEVICE = {"major": 0, "minor": 0}


def beside(path: str) -> dict[str, Any]:
    if path.endswith("Mappings[]"):
        return MAPPING
    if path.startswith("hooks."):
        return {"path": "/hook"}
    return (
        (DEVICE | {"rate": 0} if "throttle" in path else DEVICE)
        if "blockIO" in path and path[-1] == "]"
        else BESIDE.get(path, {})
    )


def holding(path: str, value: int) -> dict[str, Any]:
    """A configuration with one number set."""

    def made(parts: list[str], above: str) -> Any:
        if not parts:
            return value
        name, rest = parts[0], parts[1:]
        bare = name.rstrip("[]{}")
        here = f"{above}.{name}".lstrip(".")
        inner = made(rest, here)
        if isinstance(inner, dict):
            inner = {**beside(here), **inner}
        inner = [inner] if name.endswith("[]") else {"a": inner} if name.endswith("{}") else inner
        return {bare: inner}

    ((first, rest),) = made(path.split("."), "").items()
    config = changed(first, None)
    original = changed("annotations", {})
    config[first] = merged(original.get(first), rest)
    return config


def merged(old: Any, new: Any) -> Any:
    return (
        {**old, **{k: merged(old.get(k), v) for k, v in new.items()}}
        if isinstance(old, dict) and isinstance(new, dict)
        else new
    )


@pytest.mark.parametrize("path", NUMBERS)
def test_every_number_has_a_range(path: str) -> None:
    low, high = bounds(NUMBERS[path])
    assert low in INT64 and high in UINT64
    if path in SPECIFIED:
        assert (low, high) == (SPECIFIED[path][0], SPECIFIED[path][-1])
    assert (low >= 0) or high < 1 << 63


def test_the_specified_ones_are_there() -> None:
    assert SPECIFIED.keys() <= NUMBERS.keys() and len(NUMBERS) > 60


@pytest.mark.parametrize("path", NUMBERS)
def test_what_is_outside_is_refused(path: str) -> None:
    low, high = bounds(NUMBERS[path])
    for value in {low - 1, high + 1, -(1 << 63) - 1, 1 << 64, 1 << 300}:
        with pytest.raises(UsageError, match=r"expected `int` [<>]=|does not fit into 64 bits"):
            decode(Config, holding(path, value), "")


@pytest.mark.parametrize("path", NUMBERS)
def test_what_is_inside_becomes_a_plan_or_an_error_in_words(path: str) -> None:
    low, high = bounds(NUMBERS[path])
    for value in {low, low + 1, 0, 1, high - 1, high} & set(range(max(low, -2), 3)) | {low, high, high - 1}:
        config = decode(Config, holding(path, value), "")
        found = Hierarchies({name: Path("/c") for name in ALL}, None, frozenset(), ALL)
        try:
            validate(config, HOST)
            encode(bundle_plan(config, found, "/b", Choices("/b/rootfs", "c")))
        except TestbedError as error:
            assert "\n" not in error.message


def test_a_number_that_was_put_together_is_checked_too() -> None:
    from runtime.config.decode import checked
    from runtime.config.process import User

    for uid in (-1, (1 << 32) - 1, 1 << 32):
        with pytest.raises(UsageError, match=r"exec.user.uid"):
            checked(Process("/", user=User(uid)), "exec")
    assert checked(Process("/", user=User((1 << 32) - 2)), "exec").user.uid == (1 << 32) - 2
