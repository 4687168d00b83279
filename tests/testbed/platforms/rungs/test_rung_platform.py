"""Rungs as they run: what a workload finds on each, what is left when it ends, and what one wall less changes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.container import reap
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.lease import lease
from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.rungs.names import RUNGS
from testbed.platforms.rungs.needs import check_rung
from testbed.platforms.rungs.plans import FIRST_ID
from testbed.platforms.rungs.platform import RungPlatform
from testbed.rungs.read import find_rung
from tests.waiting import until

pytestmark = pytest.mark.root
SHOW = (
    'echo "pid $$"; echo "name $(hostname)"; grep -E "^(CapBnd|Seccomp|NoNewPrivs):" /proc/self/status;'
    " echo written > /bin/new && echo writes; test -e /host/etc && echo host; echo all; exec sleep 99"
)


class Bench:
    """A lab, and instances of rungs in it."""

    def __init__(self, run: str, scratch: Path, lab: Lab, layer: Path, undo: ExitStack) -> None:
        self.run, self.scratch, self.lab, self.layer, self.undo = run, scratch, lab, layer, undo

    def start(
        self, name: str, without: frozenset[str] = frozenset(), script: str = SHOW, number: int = 0
    ) -> tuple[RungPlatform, Instance]:
        rung = find_rung(name)
        try:
            check_rung(rung)
        except PrerequisiteError as error:
            pytest.skip(error.message)
        platform = RungPlatform(rung, self.run, self.scratch, self.lab, without)
        self.undo.callback(platform.close)
        platform.prepare_rung()
        process = Process(("sh", "-c", script), ("PATH=/bin",))
        spec = Spec(process, (str(self.layer),), "boxed", Resources(64 << 20, 0.5, 24), self.lab.link(number, 0))
        one = Instance(f"a{number}-web", number, {"web": spec}, self.scratch / f"log{number}")
        self.undo.callback(lambda: one.log.unlink(missing_ok=True))
        platform.start(one)
        self.undo.callback(platform.stop, one)
        return platform, one

    def show(self, name: str, *without: str, script: str = SHOW) -> str:
        platform, one = self.start(name, frozenset(without), script)
        until(lambda: "all" in one.log.read_text() or not platform.alive(one), 10, lambda: platform.ending(one))
        text = one.log.read_text()
        assert "all\n" in text, text
        return text


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended; whose child it has become may take a while to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def bench(run_name: str, busybox_layer: Path) -> Iterator[Bench]:
    with lease(run_name) as scratch, Lab() as lab, ExitStack() as undo:
        yield Bench(run_name, scratch, lab, busybox_layer, undo)


@pytest.mark.parametrize("name", RUNGS)
def test_each_rung_runs_a_workload_behind_its_walls_and_leaves_nothing(name: str, bench: Bench) -> None:
    platform, one = bench.start(name)
    isolation = platform.made.isolation
    until(lambda: "all\n" in one.log.read_text() or not platform.alive(one), 10, lambda: platform.ending(one))
    text = one.log.read_text()
    assert ("pid 1\n" in text) == ("pid" in isolation.namespaces)
    assert f"name {'boxed' if 'uts' in isolation.namespaces else socket.gethostname()}\n" in text
    assert f"Seccomp:\t{2 if isolation.system_calls != 'all' else 0}\n" in text
    assert f"NoNewPrivs:\t{int(isolation.no_new_privileges)}\n" in text
    assert ("host\n" in text) == (isolation.root == "host")
    if not isolation.landlock:
        assert "writes\n" in text, "the layers of a rung with mapped users are its own"
    pid = platform.first_pid(one)
    user = int(Path(f"/proc/{pid}/status").read_text().partition("Uid:\t")[2].split()[0])
    assert user == (FIRST_ID if "user" in isolation.namespaces else 0)
    assert platform.execute(one, "web", ("cat", "/etc/hostname"), 10) == 0
    assert platform.execute(one, "web", ("false",), 10) == 1
    phases = platform.started(one, 1).phases
    assert phases["request"] < phases["created"] < phases["first_process"]
    assert (bench.layer / "bin" / "new").exists() is False
    cgroup = platform.cgroup(one)
    platform.stop(one)
    assert not cgroup.exists() and not Path(f"/proc/{pid}").exists()


def test_what_a_rung_without_a_pid_namespace_leaves_behind_is_killed_with_it(bench: Bench) -> None:
    platform, one = bench.start("chroot-1982", script="sleep 99 & sleep 98 & exec sleep 97")
    until(lambda: len(platform.cgroup(one).pids()) == 3, 10, lambda: str(platform.cgroup(one).pids()))
    pids = platform.cgroup(one).pids()
    platform.stop(one)
    assert not [pid for pid in pids if runs(pid)]


@pytest.mark.parametrize("name", ["jail-2000", "vserver-2001", "zones-2005"])
def test_who_may_not_write_to_sysfs_keeps_nobody_else_on_its_stack_from_it(name: str, bench: Bench) -> None:
    script = "(exec 3>>/sys/kernel/mm/transparent_hugepage/enabled) && echo opened; echo all; exec sleep 99"
    for number, (rung, opens) in enumerate(((name, False), ("chroot-1982", True))):
        platform, one = bench.start(rung, script=script, number=number)
        until(lambda one=one: "all\n" in one.log.read_text(), 10, partial(platform.ending, one))  # type: ignore[misc]
        assert ("opened" in one.log.read_text()) is opens, one.log.read_text()


@pytest.mark.parametrize("name", ["chroot-1982", "docker-2013", "rootless"])
def test_it_is_reached_at_its_address_from_the_lab(name: str, bench: Bench) -> None:
    (bench.layer / "bin" / "nc").symlink_to("busybox")
    script = "while true; do echo served | nc -l -p 8080; done"
    _, one = bench.start(name, script=script)
    address = (str(one.spec.link.address.ip) if one.spec.link else "", 8080)

    def answers() -> bool:
        try:
            with socket.create_connection(address, 1) as connected:
                return connected.recv(10) == b"served\n"
        except OSError:
            return False

    until(answers, 10, lambda: one.log.read_text())


@pytest.mark.parametrize(("name", "gets_out"), [("chroot-1982", True), ("lxc-2008", False)])
def test_a_second_chroot_leads_out_of_a_chroot_and_not_of_a_pivoted_root(
    name: str, gets_out: bool, bench: Bench
) -> None:
    (secret := bench.scratch / "secret").write_text("of the host")
    bench.undo.callback(secret.unlink)
    up = "cd -P /proc/self/fd/3; " + "cd -P ..; " * 12 + f"/bin/busybox cat .{secret}"
    second = (
        "b=/bin/busybox; $b mkdir -p /in/bin /in/proc; $b cp $b /in/bin/; $b mount -t proc proc /in/proc; exec 3</;"
        f" $b chroot /in /bin/busybox sh -c '{up}'; echo all; exec sleep 99"
    )
    assert ("of the host" in bench.show(name, script=second)) == gets_out


HELD, FREE = ("jail-2000", frozenset[str]()), ("jail-2000", frozenset({"address"}))


@pytest.mark.parametrize(("rung", "table", "bound"), [(HELD, "tcp", "0A014D0A"), (FREE, "tcp6", "0" * 32)])
def test_who_binds_to_any_address_gets_the_only_one(
    rung: tuple[str, frozenset[str]], table: str, bound: str, bench: Bench
) -> None:
    (bench.layer / "bin" / "nc").symlink_to("busybox")  # it asks for a socket of IPv6, and then for another
    bench.start(*rung, script="while true; do nc -l -p 8080; done")
    listening = Path("/proc/thread-self/net", table)
    until(lambda: f" {bound}:1F90 " in listening.read_text(), 10, listening.read_text)


@pytest.mark.parametrize("rung", [HELD, FREE], ids=["held", "free"])
def test_who_binds_to_another_address_is_refused(rung: tuple[str, frozenset[str]], bench: Bench) -> None:
    (bench.layer / "bin" / "httpd").symlink_to("busybox")
    text = bench.show(*rung[:1], *rung[1], script="httpd -p 10.77.0.1:81 -h /; echo status $?; echo all; exec sleep 99")
    assert ("status 0\n" in text) == (rung is FREE) and ("not permitted" in text) == (rung is HELD)


@pytest.mark.parametrize(("rung", "source"), [(HELD, "10.77.1.10"), (FREE, "10.77.0.1")], ids=["held", "free"])
def test_who_connects_comes_from_its_own_address(rung: tuple[str, frozenset[str]], source: str, bench: Bench) -> None:
    (bench.layer / "bin" / "nc").symlink_to("busybox")
    with socket.create_server(("10.77.0.1", 0)) as listening:
        listening.settimeout(10)
        bench.start(*rung, script=f"exec nc 10.77.0.1 {listening.getsockname()[1]}")
        connected, (address, _) = listening.accept()
        connected.close()
    assert address == source


@pytest.mark.parametrize("without", [(), ("landlock",), ("no_new_privileges",)], ids=["whole", "free", "privileged"])
def test_landlock_keeps_who_is_inside_from_writing(without: tuple[str, ...], bench: Bench) -> None:
    (bench.layer / "tmp").mkdir(mode=0o777)
    script = "echo a > /new && echo root; echo a > /tmp/new && echo below; echo all; exec sleep 99"
    text = bench.show("sandboxed", *without, script=script)
    assert "below\n" in text and ("root\n" in text) == ("landlock" in without)


def test_a_command_beside_the_workload_may_have_a_terminal(bench: Bench) -> None:
    platform, one = bench.start("docker-2013", script="exec sleep 99")
    joined = platform.join(one, ("sh",), (), terminal=True)
    os.write(joined.master, b"hostname; exit 7\n")
    said = b""
    with suppress(OSError):  # it has ended
        while data := os.read(joined.master, 4096):
            said += data
    os.close(joined.master)
    assert reap(joined.pid) == 7 and b"boxed" in said


def test_without_the_wall_of_users_root_is_root(bench: Bench) -> None:
    text = bench.show("rootless", "user")
    assert "pid 1\n" in text and "writes\n" in text


def test_each_wall_of_a_sandbox_can_be_left_out(bench: Bench) -> None:
    assert "Seccomp:\t0\n" in bench.show("sandboxed", "seccomp")


def test_a_wall_that_it_has_not_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="chroot-1982 without pid"):
        RungPlatform(find_rung("chroot-1982"), "run", tmp_path, Lab(), frozenset({"pid"}))
    with pytest.raises(UsageError, match="it is not made of walls"):
        RungPlatform(find_rung("container"), "run", tmp_path, Lab())
    assert not list(tmp_path.iterdir())


def test_a_start_that_fails_takes_its_address_back(bench: Bench) -> None:
    with pytest.raises(TestbedError, match=r"[Nn]o such"):
        rung = find_rung("jail-2000")
        platform = RungPlatform(rung, bench.run, bench.scratch, bench.lab)
        bench.undo.callback(platform.close)
        platform.prepare_rung()
        spec = Spec(Process(("/nowhere",)), (str(bench.layer),), "boxed", link=bench.lab.link(0, 0))
        platform.start(Instance("a0-web", 0, {"web": spec}, bench.scratch / "log"))
    (bench.scratch / "log").unlink(missing_ok=True)
    with socket.socket() as one, pytest.raises(OSError, match="assign"):
        one.bind(("10.77.1.10", 0))
    assert not Cgroup(f"testbed/{bench.run}/a0-web").exists()
