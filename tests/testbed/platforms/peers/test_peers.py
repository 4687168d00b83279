"""Each peer that is here for real: it serves a file of the layer at its address, within its limits, in its cgroups."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, UsageError, WorkloadError
from runtime.lease import CGROUP_ROOT, STATE_ROOT
from runtime.processes import parent
from runtime.spec import Process, Resources, Spec, User
from testbed import leftovers
from testbed.lab import Lab
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.platform import PeerPlatform, probe
from testbed.platforms.peers.sweep import find_directories
from testbed.platforms.protocol import Instance, Overseen
from tests.owned import files_of, mounts_of
from tests.testbed.platforms.answers import fetch
from tests.testbed.platforms.shared_spaces import check_pair, check_without_shm, make_pair
from tests.waiting import until

pytestmark = pytest.mark.root
TIMEOUT_S = 60.0
MEMORY_BYTES, TASKS = 64 << 20, 32
ROOT = Path(__file__).resolve().parents[4]
# What ends as soon as its output is written; gVisor's sandbox outlives its workload by a moment.
BARE, WALLED = ("process", "chroot"), ("bwrap", "nspawn", "lxc", "crun", "runc", "youki", "podman")


class Rig:
    """Makes the platforms of a run, in its lab, and the instances that they start."""

    def __init__(self, run: str, lab: Lab, layer: Path, folder: Path) -> None:
        self.run, self.lab, self.layer, self.folder = run, lab, layer, folder
        self.made: list[PeerPlatform] = []

    def platform(self, name: str) -> PeerPlatform:
        """The platform of a peer; the test is skipped, with the reason, where it is not here."""
        try:
            probe(PEERS[name])
        except PrerequisiteError as error:
            pytest.skip(f"{error.message}: {error.hint}")
        made = PeerPlatform(PEERS[name], self.run, Path("/run/testbed") / self.run, self.lab)
        made.prepare_program()
        self.made.append(made)
        return made

    def instance(self, *args: str, number: int = 0, **process: object) -> Instance:
        link = self.lab.link(number, 0)
        command = Process(args=args or SERVER, env=("PATH=/bin", "GREETING=hello world"), **process)  # type: ignore[arg-type]
        hosts = (("web", str(link.address.ip)), ("redis", "10.77.9.9"))
        spec = Spec(command, (str(self.layer),), "boxed", Resources(MEMORY_BYTES, 1.0, TASKS), link, hosts)
        return Instance(f"a{number}-web", number, {"web": spec}, self.folder / f"a{number}.log")

    def ask(self, one: Instance) -> str:
        assert one.spec.link is not None
        return fetch(f"http://{one.spec.link.address.ip}/", TIMEOUT_S)


SERVER = ("busybox", "httpd", "-f", "-p", "80", "-h", "/srv")


@pytest.fixture
def rig(busybox_layer: Path, cgroup_parent: str, run_name: str, tmp_path: Path) -> Iterator[Rig]:
    (busybox_layer / "srv").mkdir()
    (busybox_layer / "srv" / "index.html").write_text("served")
    with Lab() as lab:
        made = Rig(run_name, lab, busybox_layer, tmp_path)
        yield made
        for platform in made.made:
            platform.close()
    assert find_left(run_name) == []
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert sorted(path.name for path in busybox_layer.iterdir()) == ["bin", "srv"], "the layer is as it was"


def find_left(run: str) -> list[str]:
    """What is left of a run beside its lease: cgroups in any hierarchy, mounts, files."""
    run_cgroup = f"{CGROUP_ROOT}/{run}"
    leased = set(Cgroup(run_cgroup).directories())
    cgroups = [str(path) for path in find_directories(run_cgroup) if path not in leased]
    files = [str(path) for path in STATE_ROOT.joinpath(run).iterdir() if path.name != "lock"]
    others = [path for path in files_of(run, Path("/run")) if path != str(STATE_ROOT / run)]
    return [*cgroups, *mounts_of(run), *files, *others]


@pytest.mark.parametrize("name", PEERS)
def test_it_serves_within_its_limits_and_leaves_nothing(rig: Rig, name: str) -> None:
    platform, one = rig.platform(name), rig.instance()
    platform.start(one)
    with pytest.raises(UsageError, match="in use"):
        platform.start(one)
    phases = platform.started(one, TIMEOUT_S).phases
    assert list(phases) == ["request", "created", "program", "first_process"]
    assert list(phases.values()) == sorted(phases.values())
    assert rig.ask(one) == "served"
    assert platform.alive(one)
    if PEERS[name].detaches:
        assert (parent(platform._running[one.name].pid) != os.getpid()) is PEERS[name].monitors
    cgroup, overhead = platform.cgroup(one), platform.overhead_cgroup(one)
    assert isinstance(platform, Overseen) and overhead.name == f"{cgroup.name}/overhead"
    workload = Cgroup(platform._running[one.name].workload)
    assert set(workload.pids())
    until(lambda: set(workload.pids()) | set(overhead.pids()) == set(cgroup.pids()))  # one that serves may just end
    assert (workload.name == cgroup.name) == (name in BARE)
    assert int(workload.file("memory", "memory.limit_in_bytes", "memory.max").read_text()) == MEMORY_BYTES
    quota = workload.file("cpu", "cpu.cfs_quota_us", "cpu.max").read_text().split()
    assert quota[0] == "100000"
    if name not in ("runsc", "kata"):
        assert workload.file("pids", "pids.max", "pids.max").read_text().strip() == str(TASKS)
    own = platform.overhead(one)
    assert cgroup.memory_bytes() >= own.memory_bytes and cgroup.cpu_usage_ns() > own.cpu_ns
    assert cgroup.throttling().periods == workload.throttling().periods, "the quota is the workload's"
    if "cpu" in cgroup.hierarchies.v1:
        assert cgroup.file("cpu", "cpu.stat", "cpu.stat") == workload.file("cpu", "cpu.stat", "cpu.stat")
    parts = platform.memory_parts(one)
    assert parts["application"] > 0 and parts.get("overhead", 0) == pytest.approx(own.memory_bytes, abs=1 << 20)
    platform.stop(one)
    platform.stop(one)
    assert not cgroup.exists()


KINDS = ("network", "pid", "ipc")


@pytest.mark.parametrize("name", ["crun", "runc", "youki", "podman"])
def test_services_share_namespaces(rig: Rig, name: str) -> None:
    platform = rig.platform(name)
    for callers in (False, True):
        kinds = (*KINDS, "uts", "cgroup") if callers else KINDS
        shared = tuple((kind, "" if callers else "app") for kind in kinds)
        pair = make_pair(rig.lab, rig.layer, rig.folder, shared)
        check_pair(platform, pair, {*kinds}, lambda one: platform._running[one.name].pid, callers=callers)
    check_without_shm(platform, pair[0], lambda one: platform._running[one.name].pid)


@pytest.mark.parametrize("name", ["bwrap", "nspawn", "lxc", "podman"])
def test_its_own_processes_are_apart_from_the_workload(rig: Rig, name: str) -> None:
    platform, one = rig.platform(name), rig.instance()
    platform.start(one)
    platform.started(one, TIMEOUT_S)
    own = {"bwrap": "bwrap", "nspawn": "systemd-nspawn", "lxc": "lxc-start", "podman": "conmon"}[name]
    beside = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in platform.overhead_cgroup(one).pids()]
    assert own in beside and "busybox" not in beside
    assert platform.overhead_cgroup(one).memory_bytes() > 0
    platform.stop(one)


def test_nobody_waits_for_the_kernel_to_forget_what_was_watched(rig: Rig) -> None:
    """Closing the group of marks took 15 ms, in which the first process was known and not told."""
    platform = rig.platform("chroot")
    late_ms = []
    for number in range(8):
        one = rig.instance(number=number)
        platform.start(one)
        first_ns = platform.started(one, TIMEOUT_S).phases["first_process"]
        late_ms.append((time.monotonic_ns() - first_ns) / 1e6)
        platform.stop(one)
    assert sorted(late_ms)[2] < 8, late_ms


SEEN = """
id; pwd; umask; hostname; env | grep -v -e SHLVL -e _= -e container | sort; ulimit -n; echo $$
grep -E '^(CapBnd|CapEff|CapPrm|NoNewPrivs|Groups|Seccomp:)' /proc/self/status
cat /etc/hosts /etc/hostname
head -c 1 /proc/interrupts | wc -c
touch /proc/sys/kernel/hostname 2>&1
touch /writable && echo written
"""


def output(rig: Rig, platform: PeerPlatform, one: Instance) -> list[str]:
    """What an instance prints that ends by itself."""
    platform.start(one)
    platform.started(one, TIMEOUT_S)
    until(lambda: not platform.alive(one))
    platform.stop(one)
    return one.log.read_text().splitlines()


@pytest.mark.parametrize("name", WALLED)
def test_the_workload_sees_what_our_own_containers_does(rig: Rig, name: str) -> None:
    from runtime import container  # late: to be read beside what it is compared with

    platform = rig.platform(name)
    user = User(1000, 1001, 0o027, (5, 6))
    one = rig.instance("sh", "-c", SEEN, cwd="/srv", user=user)
    ours = rig.folder / "ours.log"
    with ours.open("wb") as file:
        spec = replace(one.spec, link=None)
        container.run(spec, name=f"{CGROUP_ROOT}/{rig.run}/ours", log=file.fileno())
    expected = [line for line in ours.read_text().splitlines() if "container=" not in line]
    seen = "\n".join(output(rig, platform, one))
    if name == "podman":  # it adds the user's own group to the others, and a variable
        seen = seen.replace("groups=5,6,1001", "groups=5,6").replace("5 6 1001 ", "5 6 ")
        seen = seen.replace("HOSTNAME=boxed\n", "").replace("boxed0", "boxed\n0")
    assert seen.splitlines() == expected


@pytest.mark.parametrize("name", BARE)
def test_a_bare_process_has_its_files_address_user_and_nothing_else(rig: Rig, name: str) -> None:
    platform = rig.platform(name)
    seen = "id; cat /etc/hostname; ip -4 -o address | grep -c 10.77; ls -d /proc/$$ | wc -l;"
    one = rig.instance("sh", "-c", f"{seen} grep Seccomp: /proc/self/status", user=User(1000, 1001))
    lines = output(rig, platform, one)
    assert lines[1:4] == ["boxed", "1", "1"] and lines[0].startswith("uid=1000 gid=1001"), lines


@pytest.mark.parametrize("name", PEERS)
def test_a_command_that_is_not_there_fails_and_leaves_nothing(rig: Rig, name: str) -> None:
    platform, one = rig.platform(name), rig.instance("/bin/nowhere")
    with pytest.raises((WorkloadError, Exception)) as caught:  # a StepError of our own launcher, too
        platform.start(one)
        platform.started(one, 10.0)
        until(lambda: not platform.alive(one))
        raise WorkloadError(platform.ending(one))
    assert str(caught.value)
    platform.stop(one)
    assert not platform.cgroup(one).exists()


def test_how_a_workload_ended_is_told(rig: Rig) -> None:
    for number, name in enumerate(("process", "bwrap", "crun")):
        # Not at once: crun itself would see it end, and tells nobody how.
        platform, one = rig.platform(name), rig.instance("sh", "-c", "sleep 1; exit 7", number=number)
        platform.start(one)
        platform.started(one, TIMEOUT_S)
        until(lambda platform=platform, one=one: not platform.alive(one))  # type: ignore[misc]
        assert platform.ending(one) == "exit status 7", name
        platform.stop(one)


@pytest.mark.parametrize("name", PEERS)
def test_close_ends_what_runs(rig: Rig, name: str) -> None:
    platform = rig.platform(name)
    instances = [rig.instance(number=number) for number in range(2)]
    for one in instances:
        platform.start(one)
    assert all(platform.alive(one) for one in instances)
    cgroups = [platform.cgroup(one) for one in instances]
    rig.made.remove(platform)
    platform.close()
    assert not any(cgroup.exists() for cgroup in cgroups)


KILLED = """
import os, signal, sys
from pathlib import Path
from runtime.lease import lease
from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.platform import PeerPlatform
from testbed.platforms.protocol import Instance
run, name, layer, log = sys.argv[1:]
with lease(run) as scratch:
    lab = Lab()
    platform = PeerPlatform(PEERS[name], run, scratch, lab)
    platform.prepare_program()
    with lab:
        command = Process(args=("sleep", "600"), env=("PATH=/bin",))
        spec = Spec(command, (layer,), "web", Resources(64 << 20, 1.0, 32), lab.link(0, 0))
        one = Instance("a0-web", 0, {"web": spec}, Path(log))
        platform.start(one)
        platform.started(one, 60)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["nspawn", "lxc", "crun", "podman", "runsc"])
def test_what_a_killed_run_leaves_is_cleaned(busybox_layer: Path, run_name: str, tmp_path: Path, name: str) -> None:
    try:
        probe(PEERS[name])
    except PrerequisiteError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    words = [sys.executable, "-c", textwrap.dedent(KILLED), run_name, name, str(busybox_layer), str(tmp_path / "log")]
    assert subprocess.run(words, cwd=ROOT, check=False).returncode == -9
    found = tuple(one for one in leftovers.find() if one.run == run_name)
    assert {"process", "cgroup", "directory"} <= {one.kind for one in found}
    leftovers.remove(found)
    assert [one for one in leftovers.find() if one.run == run_name] == []
    assert find_directories(f"{CGROUP_ROOT}/{run_name}") == []
    assert not Path("/run/testbed", run_name).exists()
