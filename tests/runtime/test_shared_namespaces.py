"""Containers that share namespaces, for real: what each sees of the other, from inside and from outside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime import container
from runtime.container import Container
from runtime.errors import TestbedError
from runtime.plan.sharing import with_paths
from runtime.spec import Process, Resources, Spec
from tests.owned import mounts_of
from tests.waiting import until

pytestmark = pytest.mark.root
FILES = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup", "mount": "mnt"}
LENDER = "echo lent > /dev/shm/memory; busybox nc -l -p 80 -e echo answered & exec sleep 100"
Start = Callable[..., Container]


def shell(layer: Path, script: str, shared: tuple[tuple[str, str], ...] = (), **more: object) -> Spec:
    process = Process(args=("sh", "-c", script))
    return Spec(process, (str(layer),), "boxed", Resources(64 << 20, 1.0, 32), shared=shared, **more)  # type: ignore[arg-type]


@pytest.fixture
def start(cgroup_parent: str, tmp_path: Path) -> Iterator[Start]:
    """What starts containers by name; those that share come last, and end first."""
    running: dict[str, Container] = {}
    with ExitStack() as undo:

        def begin(name: str, spec: Spec) -> Container:
            spec = with_paths(spec, lambda other: running[other].process.pid)
            with (tmp_path / name).open("wb") as file:
                running[name] = container.start(spec, name=f"{cgroup_parent}/{name}", stdout=file.fileno())
            undo.callback(running[name].delete)
            return running[name]

        yield begin


def kinds_shared(one: int | str, other: int | str) -> set[str]:
    """The kinds of namespaces that two processes have in common."""
    links = {kind: [os.readlink(f"/proc/{pid}/ns/{file}") for pid in (one, other)] for kind, file in FILES.items()}
    return {kind for kind, (first, second) in links.items() if first == second}


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_one_joins_anothers(busybox_layer: Path, start: Start, tmp_path: Path, kind: str) -> None:
    """And nothing else of it: its own files, its own cgroup."""
    lender = start("lender", shell(busybox_layer, LENDER))
    until((Path(f"/proc/{lender.process.pid}/root") / "dev/shm/memory").exists)
    script = "ls /dev/shm; echo pid $$; busybox nc 127.0.0.1 80 </dev/null; hostname; exec sleep 100"
    user = start("user", shell(busybox_layer, script, ((kind, "lender"),)))
    assert kinds_shared(user.process.pid, lender.process.pid) == {kind}
    until(lambda: "boxed\n" in (tmp_path / "user").read_text())
    told = (tmp_path / "user").read_text().splitlines()
    assert ("memory" in told) == (kind == "ipc")
    assert ("answered" in told) == (kind == "network")
    assert ("pid 1" in told) == (kind != "pid")
    assert user.cgroup.pids() and not {*user.cgroup.pids()} & {*lender.cgroup.pids()}
    joined = container.join(
        replace(shell(busybox_layer, ""), shared=((kind, "lender"),)),
        Process(("sh", "-c", "sleep 100")),
        pid=user.process.pid,
        cgroup=user.cgroup.name,
        streams=(0, 2, 2),
    )
    try:
        assert kinds_shared(joined.pid, lender.process.pid) == {kind}
        assert joined.pid in user.cgroup.pids()
    finally:
        assert container.wait_or_kill(joined.pid, 0.0) is None


def test_memory_is_shared_both_ways_and_stays_the_lenders(
    busybox_layer: Path, start: Start, cgroup_parent: str
) -> None:
    lender = start("lender", shell(busybox_layer, LENDER))
    there = Path(f"/proc/{lender.process.pid}/root/dev/shm")
    until((there / "memory").exists)
    user = start("user", shell(busybox_layer, "echo back > /dev/shm/answer; exec sleep 100", (("ipc", "lender"),)))
    until((there / "answer").exists)
    mounts = [line.split() for line in Path(f"/proc/{user.process.pid}/mountinfo").read_text().splitlines()]
    (options,) = [line[5] for line in mounts if line[4] == "/dev/shm"]
    assert {"nosuid", "nodev", "noexec"} <= {*options.split(",")}
    user.delete()
    assert (there / "memory").exists() and mounts_of(cgroup_parent) == []


def test_the_callers_are_shared_too(busybox_layer: Path, start: Start) -> None:
    kinds = ("network", "pid", "ipc", "uts", "cgroup")
    one = start("one", shell(busybox_layer, "exec sleep 100", tuple((kind, "") for kind in kinds)))
    assert kinds_shared(one.process.pid, "self") == {*kinds}
    assert os.uname().nodename != "boxed"
    shm = Path(f"/proc/{one.process.pid}/root/dev/shm")
    assert shm.stat().st_dev == Path("/dev/shm").stat().st_dev


def test_one_without_shared_memory_has_none(busybox_layer: Path, start: Start) -> None:
    one = start("one", shell(busybox_layer, "exec sleep 100", shm=False))
    root = Path(f"/proc/{one.process.pid}/root/dev")
    assert (root / "mqueue").exists() and not (root / "shm").exists()


@pytest.mark.parametrize("of", ["", "lender"])
def test_all_of_one_that_has_no_processes_of_its_own_end_with_it(busybox_layer: Path, start: Start, of: str) -> None:
    """Its first process is not the namespace's, whose end would be theirs."""
    start("lender", shell(busybox_layer, "exec sleep 100"))
    user = start("user", shell(busybox_layer, "sleep 1000 & setsid sleep 1000 & exec sleep 100", (("pid", of),)))
    until(lambda: len(user.cgroup.pids()) == 3)
    pids = user.cgroup.pids()
    user.delete()
    assert not user.cgroup.exists() and not [pid for pid in pids if Path(f"/proc/{pid}/root/bin").exists()]


def test_who_shares_processes_ends_with_their_owner(busybox_layer: Path, start: Start) -> None:
    lender = start("lender", shell(busybox_layer, "exec sleep 100"))
    user = start("user", shell(busybox_layer, "exec sleep 100", (("pid", "lender"),)))
    lender.send_signal(9)
    assert user.wait(10.0) == 137 and lender.wait(10.0) == 137


def test_one_that_has_ended_lends_nothing(busybox_layer: Path, start: Start, tmp_path: Path) -> None:
    lender = start("lender", shell(busybox_layer, "true"))
    lender.wait(10.0)
    for kind, named in (("network", "net"), ("ipc", "mnt")):
        with pytest.raises(TestbedError, match=rf"/proc/{lender.process.pid}/ns/{named}.*No such file"):
            start("user", shell(busybox_layer, "true", ((kind, "lender"),)))
    assert (tmp_path / "user").read_text() == ""
