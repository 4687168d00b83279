"""Virtual machines for real: they boot, serve, see what a container sees, and leave nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime import container
from runtime.cgroups import Cgroup, Hierarchies
from runtime.cgroups.hierarchy import delegations
from runtime.errors import UsageError, WorkloadError
from runtime.launcher import STATIC_BINARY
from runtime.plan.constants import CAPABILITIES
from runtime.plan.encode import encode
from runtime.plan.workload import workload_plan
from runtime.spec import Process, Resources, Spec, User
from testbed.lab import Lab
from testbed.measures.throttling import make_metrics
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.qemu import connection
from testbed.qemu.account import find_emulator_account
from tests.owned import files_of, mounts_of
from tests.testbed.platforms.answers import fetch
from tests.testbed.ports import require_fixed

pytestmark = [pytest.mark.root, pytest.mark.vm]

# Boots take 3 s on an idle host; this is for a busy one.
TIMEOUT_S = 60.0


@pytest.fixture
def platform(make_vm: Callable[[str], VmPlatform]) -> VmPlatform:
    """The platform ``vm``, in a lab of its own."""
    return make_vm("vm")


def shell(layer: Path, script: str, **process: object) -> Spec:
    return Spec(
        Process(args=("sh", "-c", script), **process),  # type: ignore[arg-type]
        (str(layer),),
        "boxed",
        Resources(128 << 20, 1.0, 24),
        hosts=(("redis", "10.0.0.3"),),
    )


def instance(spec: Spec, tmp_path: Path, name: str = "a0-web") -> Instance:
    return Instance(name, 0, {"web": spec}, tmp_path / f"{name}.log")


def test_a_machine_that_its_own_quota_stalls_shows_it(platform: VmPlatform, layer: Path, tmp_path: Path) -> None:
    """Its boot alone takes more than a third of a processor; of a busy host it gets more than a seventh."""
    spec = replace(shell(layer, "sleep 60"), resources=Resources(128 << 20, 0.15))
    held = instance(spec, tmp_path)
    platform.start(held)
    try:
        platform.started(held, 5 * TIMEOUT_S)
        seen = platform.cgroup(held).throttling()
        assert seen.fraction > 0.3 and seen.throttled_ns > 500_000_000, seen
        figures = {metric.metric: metric.value for metric in make_metrics({"web": seen})}
        assert figures["web.throttled_periods"] == seen.fraction
    finally:
        platform.stop(held)


def printed(log: Path) -> list[str]:
    """What the workload wrote: the console's lines after the exec, without stamps, up to the panic of its end."""
    text = re.sub(r"^\[\d+\.\d+\] ", "", log.read_text(), flags=re.MULTILINE)
    lines = text.split("testbed: exec\n", 1)[1].splitlines()
    return [line for line in lines if not re.match(r"\[ +\d+\.\d+\]", line)]


def traces(run_name: str) -> dict[str, object]:
    """What a guest of this run could leave on the host; other runs may go on beside."""
    processes = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            processes += [file] if run_name.encode() in file.read_bytes() else []
    return {
        "processes": processes,
        "interfaces": _interfaces(),
        "mounts": mounts_of(run_name),
        "temporary": files_of(run_name, Path(tempfile.gettempdir()), 1),
    }


def test_it_serves_and_leaves_nothing(
    platform: VmPlatform,
    layer: Path,
    tmp_path: Path,
    cgroup_parent: str,
    run_name: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Lab() as lab:
        before = traces(run_name)
        link = lab.link(0, 0)
        interfaces = _interfaces()
        served = replace(shell(layer, "exec busybox httpd -f -p 80 -h /srv"), link=link)
        one = instance(served, tmp_path)
        platform.start(one)
        phases = platform.started(one, TIMEOUT_S).phases
        assert list(sorted(phases, key=lambda name: phases[name])) == [
            "request",
            "defined",
            "spawned",
            "created",
            "kernel_entry",
            "first_userspace",
            "first_process",
        ]
        assert fetch(f"http://{link.address.ip}/index.html", 10) == "from the layer"
        assert platform.alive(one)
        assert connection._root is not None
        assert "is tainted" in (connection._root / "log" / "qemu" / f"{one.name}.log").read_text()
        assert "tainted" not in capfd.readouterr().err, "which libvirt says of every machine"
        cgroup = platform.cgroup(one)
        assert len(cgroup.pids()) == 1
        assert Path(f"/proc/{cgroup.pids()[0]}/comm").read_text().startswith("qemu")
        assert cgroup.memory_bytes() > 64 << 20
        assert cgroup.cpu_usage_ns() > 100_000_000
        assert_without_rights(cgroup.pids()[0], cgroup)
        (tap,) = set(_interfaces()) - set(interfaces)
        require_fixed(tap, link.mac)
        with pytest.raises(UsageError, match="in use"):
            platform.start(one)
        platform.stop(one)
        platform.stop(one)
        assert not platform.alive(one)
        assert _interfaces() == interfaces
        assert not any(directory.exists() for directory in Cgroup(f"{cgroup_parent}/{one.name}").directories())
        assert traces(run_name) == before
    assert "Linux version" in one.log.read_text()


def assert_without_rights(qemu: int, cgroup: Cgroup) -> None:
    """QEMU is an ordinary account's, filtered by seccomp, in its cgroup with all threads and all pages."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{qemu}/status").read_text().splitlines())
    (uid,) = set(status["Uid"].split())
    assert int(uid) >= 1_879_048_192, "of those that are the guests'"
    assert set(status["Groups"].split()) | set(status["Gid"].split()) == set(map(str, find_emulator_account().gids))
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapAmb"], 16) == 0
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    resident_bytes = int(status["RssAnon"].split()[0]) * 1024
    assert cgroup.memory_bytes() > 0.98 * resident_bytes, "pages of before it joined are charged elsewhere"
    threads = {int(path.name) for path in Path(f"/proc/{qemu}/task").iterdir()}
    for directory in cgroup.directories():
        members = next(path for name in ("tasks", "cgroup.threads") if (path := directory / name).exists())
        assert {int(thread) for thread in members.read_text().split()} == threads


# What a process may read of another: its memory, its open files, and what it has been given.
LOOK = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        print(path)
    except OSError:
        pass
"""


def test_a_guests_qemu_is_closed_to_anothers(platform: VmPlatform, layer: Path, tmp_path: Path) -> None:
    """Asked of the kernel, by a process with the other QEMU's user and group."""
    with Lab():
        one, other = (instance(shell(layer, "exec sleep 600"), tmp_path, name) for name in ("a0-web", "a1-web"))
        for each in (one, other):
            platform.start(each)
        (qemu,), (thief,) = (platform.cgroup(each).pids() for each in (one, other))
        folder = next(path for path in platform._scratch.iterdir() if str(path) in cmdline(qemu))
        own = [f"/proc/{qemu}/{what}" for what in ("mem", "maps", "environ")]
        own += [f"/proc/{qemu}/fd/{number}" for number in os.listdir(f"/proc/{qemu}/fd")]
        own += [str(path) for path in folder.iterdir()]
        key = re.search(r'"masterKey0",[^}]*"file":"([^"]+)"', cmdline(qemu))
        assert {path.name for path in folder.iterdir()} >= {"initrd", "plan"} and key
        own.append(key[1])
        account = Path(f"/proc/{thief}").stat()
        assert account.st_uid != Path(f"/proc/{qemu}").stat().st_uid
        command = [sys.executable, "-c", LOOK, *own]
        groups = find_emulator_account().gids
        done = subprocess.run(
            command, user=account.st_uid, group=account.st_gid, extra_groups=groups, capture_output=True, text=True
        )
        assert (done.stdout, done.returncode) == ("", 0), done
        for each in (one, other):
            platform.stop(each)


def cmdline(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def _interfaces() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


# What is still in the guest's serial port when PID 1 ends is lost, hence the sleep.
SEEN = """
id; pwd; umask; hostname; env | grep -v -e SHLVL -e _= | sort; ulimit -n; echo $$
grep -E '^(Cap|NoNewPrivs|Groups|Seccomp:)' /proc/self/status
cat /etc/hosts /etc/hostname
mount | grep -v -e ' on / ' -e /proc/ -e /sys/ | sed 's/,size=[0-9]*k.*//; s/,inode64//' | sort
ls -l /dev | grep -v '^total' | sed 's/  */ /g' | cut -d' ' -f1,3-6,10-
head -c 1 /proc/interrupts | wc -c; ls /sys/firmware | wc -l
touch /proc/sys/kernel/hostname /writable 2>&1
i=0; while [ $i -lt 40 ]; do sleep 1 & i=$((i+1)); done 2>&1 | tail -1
sleep 2
exit 7
"""


def test_the_workload_sees_what_a_containers_does(
    platform: VmPlatform, layer: Path, tmp_path: Path, cgroup_parent: str
) -> None:
    user = User(1000, 1001, 0o027, (5, 6))
    spec = shell(layer, SEEN, env=("PATH=/bin", "GREETING=hello world"), cwd="/srv", user=user)
    log = tmp_path / "container.log"
    with log.open("wb") as file:
        assert container.run(spec, name=f"{cgroup_parent}/container", log=file.fileno()) == 7
    with Lab():
        one = instance(spec, tmp_path)
        platform.start(one)
        platform.started(one, TIMEOUT_S)
        assert platform.exit_status(one, TIMEOUT_S) == 7
        assert not platform.alive(one)
        platform.stop(one)
    expected = log.read_text().splitlines()
    assert printed(one.log) == expected
    assert expected[0].startswith("uid=1000 gid=1001")
    assert any("fork" in line for line in expected), "the task limit was not reached"


def test_a_guest_that_fails_says_where(platform: VmPlatform, layer: Path, tmp_path: Path) -> None:
    with Lab():
        one = instance(replace(shell(layer, "true", cwd="/proc/not/there")), tmp_path)
        platform.start(one)
        with pytest.raises(WorkloadError, match="chdir /proc/not/there: ENOENT"):
            platform.started(one, TIMEOUT_S)
        platform.stop(one)
        assert not platform.alive(one)


def test_close_ends_what_runs(platform: VmPlatform, layer: Path, tmp_path: Path, cgroup_parent: str) -> None:
    with Lab():
        for name in ("a0-web", "a1-web"):
            platform.start(instance(shell(layer, "exec sleep 600"), tmp_path, name))
        platform.close()
    for name in ("a0-web", "a1-web"):
        assert not any(directory.exists() for directory in Cgroup(f"{cgroup_parent}/{name}").directories())


def test_an_image_that_was_not_prepared_is_refused(platform: VmPlatform, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="was not prepared"):
        platform.start(instance(shell(tmp_path, "true"), tmp_path))


@pytest.fixture
def nesting(layer: Path) -> Spec:
    """A workload that is a host with cgroup v2 itself and starts a container of ours; all it needs is in the layer."""
    unified = Path("/sys/fs/cgroup")
    hierarchies = Hierarchies({}, unified, frozenset({"memory", "cpu", "pids"}))
    name = "testbed/run/nested"
    script = "cat /proc/self/cgroup; for i in 1 2 3 4 5 6 7 8; do sleep 1 & done 2>&1 | tail -1; exit 4"
    shutil.copytree(layer / "bin", layer / "inner" / "bin", symlinks=True)
    nested = replace(shell(layer, script), layers=("/inner",), resources=Resources(32 << 20, 0.25, 6), hosts=())
    (layer / "plan").write_bytes(encode(workload_plan(nested, hierarchies, name)))
    shutil.copy2(STATIC_BINARY, layer / "launcher")
    files = [f"{unified}/{name}/{file}" for file in ("memory.max", "cpu.max", "pids.max")]
    outer = [
        f"mount -t cgroup2 none {unified}",
        f"busybox mkdir -p {unified}/{Path(name).parent}",
        *(
            f"echo {controllers} > {file}"
            for file, controllers in delegations(unified, str(Path(name).parent), frozenset({"memory", "cpu", "pids"}))
        ),
        f"/launcher /plan; echo status $?; cat {' '.join(files)}; sleep 2",
    ]
    spec = shell(layer, "; ".join(outer), capabilities=CAPABILITIES)
    # Without a task limit the guest makes no cgroup, and what runs in the root may make all of them.
    return replace(spec, resources=Resources(128 << 20, 1.0), masked_paths=(), readonly_paths=())


def test_a_container_on_a_host_with_cgroup_v2(nesting: Spec, platform: VmPlatform, tmp_path: Path) -> None:
    """``nesting`` comes before ``platform``, which makes a disk of the layer as it is then."""
    with Lab():
        one = instance(nesting, tmp_path)
        platform.start(one)
        platform.started(one, TIMEOUT_S)
        platform.exit_status(one, TIMEOUT_S)
        platform.stop(one)
    cgroup, refused, *rest = printed(one.log)
    assert cgroup == "0::/", "it is in a cgroup namespace of its own"
    assert "fork" in refused, "the task limit was not reached"
    assert rest == ["status 4", str(32 << 20), "25000 100000", "6"]
