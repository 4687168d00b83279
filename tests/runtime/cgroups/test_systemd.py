"""What is said to systemd; tests/runtime/test_systemd_guest.py says it to a real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.cgroups import Hierarchies
from runtime.cgroups.placing import place_cgroup
from runtime.cgroups.resources import settings
from runtime.cgroups.systemd import Bus, Scope, annotated, maps_all_ids, missing, properties, scope_names
from runtime.config.resources import Cpu, Memory, Pids, Resources
from runtime.config.types import Config, Linux, Root
from runtime.errors import UsageError

FOUND = Hierarchies({}, Path("/sys/fs/cgroup"), frozenset({"cpu", "cpuset", "memory", "pids"}))


@pytest.mark.parametrize(
    ("path", "ordinary", "unit", "slice_"),
    [
        ("", False, "testbed-runtime-a.scope", "system.slice"),
        ("", True, "testbed-runtime-a.scope", "user.slice"),
        ("machine.slice:libpod:0af", False, "libpod-0af.scope", "machine.slice"),
        (":runc:x", True, "runc-x.scope", "user.slice"),
        ("-:p:x", False, "p-x.scope", "-.slice"),
        ("a-b.slice::x", False, "x.scope", "a-b.slice"),
    ],
)
def test_the_names_of_a_scope(path: str, ordinary: bool, unit: str, slice_: str) -> None:
    assert scope_names(path, "a", ordinary) == (unit, slice_)


@pytest.mark.parametrize(
    "path",
    [
        "/plain",
        "a:b",
        "a:b:c:d",
        "x/y.slice:p:n",
        "../x.slice:p:n",
        "a--b.slice:p:n",
        "a:p:n",
        ":p:",
        ":p:a/b",
        ":p:n\n",
        ":p:x.slice",
        f":p:{'n' * 300}",
    ],
)
def test_names_that_systemd_would_not_take_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"linux\.cgroupsPath"):
        scope_names(path, "a", False)


@pytest.mark.parametrize(
    ("scope", "cgroup"),
    [
        (Scope("x.scope", "a-b-c.slice"), "a.slice/a-b.slice/a-b-c.slice/x.scope"),
        (Scope("x.scope", "-.slice"), "x.scope"),
        (Scope("x.scope", "user.slice", "user.slice/m.service"), "user.slice/m.service/user.slice/x.scope"),
    ],
)
def test_where_a_scope_is(scope: Scope, cgroup: str) -> None:
    assert scope.cgroup == cgroup


def test_limits_are_properties() -> None:
    limits = Resources(
        memory=Memory(limit=64 << 20, reservation=1 << 20, swap=-1),
        cpu=Cpu(shares=512, quota=30_000, period=90_000, cpus="0-1,9", mems="0"),
        pids=Pids(0),
        unified={"memory.high": "5", "memory.oom.group": "1"},
    )
    assert {name: (kind, *value) for name, kind, value in properties(settings(FOUND, limits))} == {
        "MemoryMax": ("t", str(64 << 20)),
        "MemoryLow": ("t", str(1 << 20)),
        "MemorySwapMax": ("t", str(2**64 - 1)),
        "MemoryHigh": ("t", "5"),
        "CPUWeight": ("t", "20"),
        "CPUQuotaPerSecUSec": ("t", "340000"),  # a third, in whole percents
        "CPUQuotaPeriodUSec": ("t", "90000"),
        "AllowedCPUs": ("ay", "2", "3", "2"),
        "AllowedMemoryNodes": ("ay", "1", "1"),
        "TasksMax": ("t", str(2**64 - 1)),
    }


def test_no_quota_is_told_as_none() -> None:
    assert properties([("cpu", "cpu.max", "max 100000")])[0] == ("CPUQuotaPerSecUSec", "t", (str(2**64 - 1),))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("uint64 7000000", "t", ("7000000",)),
        ("15", "i", ("15",)),
        ("int32 -1", "i", ("-1",)),
        ("'inactive-or-failed'", "s", ("inactive-or-failed",)),
        ('"x y"', "s", ("x y",)),
        ("true", "b", ("true",)),
        ("['a.service', 'b.service']", "as", ("2", "a.service", "b.service")),
    ],
)
def test_annotations_are_properties(text: str, kind: str, value: tuple[str, ...]) -> None:
    assert annotated({"org.systemd.property.Name": text, "other": "x"}) == (("Name", kind, value),)


@pytest.mark.parametrize("text", ["", "x", "uint65 3", "'a", "'a'b'", "['a' 'b']", "[]", "1.5", "uint64 x"])
def test_an_annotation_that_is_no_value_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"org\.systemd\.property\.Name"):
        annotated({"org.systemd.property.Name": text})


def test_a_user_namespace_is_told_from_the_hosts() -> None:
    assert maps_all_ids("         0          0 4294967295\n")
    assert not maps_all_ids("         0       1000          1\n         1     100000      65536\n")


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="this host runs systemd")
def test_without_systemd_the_directories_have_its_names() -> None:
    bus = Bus({}, lambda command, environment: (1, "", "nobody is asked"))
    assert "does not run systemd" in missing(FOUND, bus)
    config = Config("1.2.0", Root("rootfs"), linux=Linux(cgroups_path="a-b.slice:p:x"))
    placed = place_cgroup(config, "c", True, bus, os.getpid())
    assert (placed.cgroup, placed.scope) == ("a.slice/a-b.slice/p-x.scope", "")
