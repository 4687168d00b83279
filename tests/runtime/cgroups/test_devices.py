"""Device rules: cgroup v1's files and the program for cgroup v2 let the same devices through."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.cgroups.devices import CONFINED, device_program, rule_texts
from runtime.cgroups.hierarchy import Hierarchies, hierarchies
from runtime.config.resources import DeviceRule
from runtime.errors import TestbedError
from runtime.launcher import launch
from runtime.plan import steps as s
from runtime.plan.cgroup import device_steps

ALLOW, DENY = True, False
RULES = {
    "everything": (DeviceRule(ALLOW),),
    "nothing": (DeviceRule(DENY),),
    "what a container has": CONFINED,
    "reading only": (DeviceRule(DENY), DeviceRule(ALLOW, "c", 1, 3, "r")),
    "two kinds from two rules": (
        DeviceRule(DENY),
        DeviceRule(ALLOW, "c", 1, 3, "r"),
        DeviceRule(ALLOW, "c", 1, 3, "w"),
    ),
    "a number of either kind": (DeviceRule(DENY), DeviceRule(ALLOW, "a", 1, 3, "r")),
    "one access of everything": (DeviceRule(DENY, access="w"),),
    "any minor": (DeviceRule(DENY), DeviceRule(ALLOW, "c", 1, None, "rw")),
    "any minor, as engines write it": (DeviceRule(DENY), DeviceRule(ALLOW, "c", 1, -1, "rw")),
    "block devices only": (DeviceRule(DENY), DeviceRule(ALLOW, "b", None, None, "rwm")),
    "all but one": (DeviceRule(DENY, "c", 1, 3, "rwm"),),
    "all but one to write": (DeviceRule(DENY, "c", 1, 3, "w"),),
    "taken back": (DeviceRule(DENY), DeviceRule(ALLOW, "c", 1, 3, "rw"), DeviceRule(DENY, "c", 1, 3, "w")),
    "what came before the last word": (DeviceRule(ALLOW, "c", 1, 3, "rw"), DeviceRule(DENY)),
}


def opened(path: str, flags: int) -> Callable[[Path], None]:
    return lambda _: os.close(os.open(path, flags))


def made(mode: int, major: int, minor: int) -> Callable[[Path], None]:
    return lambda directory: os.mknod(directory / "node", mode, os.makedev(major, minor))


ACTS: dict[str, Callable[[Path], None]] = {
    "read null": opened("/dev/null", os.O_RDONLY),
    "write null": opened("/dev/null", os.O_WRONLY),
    "read and write null": opened("/dev/null", os.O_RDWR),
    "read zero": opened("/dev/zero", os.O_RDONLY),
    "read kmsg": opened("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK),
    "make null": made(0o020600, 1, 3),
    "make a disk": made(0o060600, 7, 0),
}


def verdicts(cgroup: Path, scratch: Path) -> dict[str, bool]:
    """Which acts a process in the cgroup may do."""
    scratch.mkdir(exist_ok=True)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        (cgroup / "cgroup.procs").write_text("0")
        for act in ACTS.values():
            try:
                act(scratch)
                os.write(writing, b"1")
            except PermissionError:
                os.write(writing, b"0")
            (scratch / "node").unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writing)
    answer = os.read(reading, 100)
    os.close(reading)
    assert len(answer) == len(ACTS)
    return {name: byte == ord("1") for name, byte in zip(ACTS, answer, strict=True)}


def perform(found: Hierarchies, name: str, rules: tuple[DeviceRule, ...]) -> None:
    plan = s.Plan((s.Exec(("/bin/true",)),), device_steps(found, name, rules))
    os.waitpid(launch(plan, stdin=0, stdout=1, stderr=2).pid, 0)


@pytest.fixture
def cgroups(run_name: str) -> Iterator[tuple[Path, Path]]:
    found = hierarchies()
    if found.unified is None or "devices" not in found.v1:
        pytest.skip("compares cgroup v1 with v2, and this host has not both")
    both = (found.v1["devices"] / run_name, found.unified / run_name)
    for directory in both:
        directory.mkdir()
    yield both
    for directory in both:
        directory.rmdir()


@pytest.mark.root
@pytest.mark.parametrize("name", RULES)
def test_both_versions_agree(name: str, cgroups: tuple[Path, Path], run_name: str, tmp_path: Path) -> None:
    first, second = cgroups
    found = hierarchies()
    perform(found, run_name, RULES[name])
    perform(Hierarchies({}, found.unified, frozenset()), run_name, RULES[name])
    assert verdicts(second, tmp_path / "a") == verdicts(first, tmp_path / "a")


@pytest.mark.root
def test_the_program_confines(cgroups: tuple[Path, Path], run_name: str, tmp_path: Path) -> None:
    perform(Hierarchies({}, hierarchies().unified, frozenset()), run_name, CONFINED)
    allowed = {name for name, fine in verdicts(cgroups[1], tmp_path / "a").items() if fine}
    assert allowed == set(ACTS) - {"read kmsg"}


@pytest.mark.root
def test_a_program_that_the_kernel_refuses_is_an_error(cgroups: tuple[Path, Path]) -> None:
    step = s.CgroupProgram(str(cgroups[1]), device_program(CONFINED)[:-8])
    with pytest.raises(TestbedError, match="BPF_PROG_ATTACH"):
        launch(s.Plan((s.Exec(("/bin/true",)),), (step,)), stdin=0, stdout=1, stderr=2)


def test_rules_in_the_words_of_the_files() -> None:
    assert rule_texts(DeviceRule(True)) == ("a",)
    assert rule_texts(DeviceRule(True, "a", access="wrm")) == ("a",)
    assert rule_texts(DeviceRule(True, "a", 1, None, "r")) == ("b 1:* r", "c 1:* r")
    assert rule_texts(DeviceRule(True, "c", 1, -1, "rw")) == ("c 1:* rw",)
