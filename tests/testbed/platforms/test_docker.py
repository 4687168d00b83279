"""Docker for real, by a daemon of the tests' own in its own namespaces: it serves, is metered, and leaves nothing."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError, TestbedError, WorkloadError
from runtime.lease import CGROUP_ROOT
from runtime.spec import Process, Resources, Spec, User
from testbed import leftovers
from testbed.lab import Lab
from testbed.platforms import docker_client
from testbed.platforms.docker import DockerPlatform
from testbed.platforms.docker_client import find_daemon, find_marked
from testbed.platforms.peers.sweep import find_directories
from testbed.platforms.protocol import Instance, Overseen
from tests.testbed.platforms.answers import fetch
from tests.testbed.platforms.shared_spaces import check_pair, check_without_shm, make_pair
from tests.waiting import until

pytestmark = pytest.mark.root
TIMEOUT_S = 60.0
TOLD = '{"ServerVersion": "1", "Driver": "vfs", "DefaultRuntime": "runc", "CgroupDriver": "%s", "Name": "%s"}'
ROOT = Path(__file__).resolve().parents[3]
DAEMON = """
umount /sys/fs/cgroup/unified 2>/dev/null
exec dockerd --data-root "$0/data" --exec-root "$0/exec" --host "unix://$0/socket" --pidfile "$0/pid" \\
    --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[None]:
    """A daemon of our own, which DOCKER_HOST names."""
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        pytest.skip("dockerd is not on the PATH: install the package docker.io")
    with tempfile.TemporaryDirectory(prefix="testbed-docker-") as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{name}/socket")
        with Path(name, "log").open("wb") as log:
            words = ["unshare", "--mount", "--net", "sh", "-c", DAEMON, name]
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until(lambda: _answers() or process.poll() is not None, TIMEOUT_S)
            if not _answers():
                pytest.skip(f"dockerd does not run here: {Path(name, 'log').read_text()[-300:]}")
            yield
        finally:
            process.terminate()
            process.wait()


def _answers() -> bool:
    try:
        find_daemon()
    except PrerequisiteError:
        return False
    return True


def instance(layer: Path, lab: Lab, folder: Path, *args: str, number: int = 0, **process: object) -> Instance:
    link = lab.link(number, 0)
    command = Process(args=args, env=("PATH=/bin", "GREETING=hello world"), **process)  # type: ignore[arg-type]
    spec = Spec(command, (str(layer),), "boxed", Resources(64 << 20, 1.0, 24), link, (("web", str(link.address.ip)),))
    return Instance(f"a{number}-web", number, {"web": spec}, folder / f"a{number}.log")


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def platform(
    daemon: None, lab: Lab, busybox_layer: Path, cgroup_parent: str, run_name: str
) -> Iterator[DockerPlatform]:
    scratch = Path("/run/testbed") / run_name
    (busybox_layer / "srv").mkdir()
    (busybox_layer / "srv" / "index.html").write_text("served")
    made = DockerPlatform(run_name, scratch, lab)
    made.prepare_layers([(str(busybox_layer),)], ["app"])
    with lab:
        yield made
        made.close()
    assert [path.name for path in scratch.iterdir()] == ["lock"]
    leased = set(Cgroup(f"{CGROUP_ROOT}/{run_name}").directories())
    assert [path for path in find_directories(f"{CGROUP_ROOT}/{run_name}") if path not in leased] == []
    assert [one for one in find_marked() if one.mark == run_name] == []


def test_it_serves_at_its_address_within_its_limits(
    platform: DockerPlatform, lab: Lab, busybox_layer: Path, tmp_path: Path
) -> None:
    one = instance(busybox_layer, lab, tmp_path, "busybox", "httpd", "-f", "-p", "80", "-h", "/srv")
    platform.start(one)
    phases = platform.started(one, TIMEOUT_S).phases
    assert list(phases) == ["request", "created", "first_process"]
    assert one.spec.link is not None
    assert fetch(f"http://{one.spec.link.address.ip}/", TIMEOUT_S) == "served"
    cgroup = platform.cgroup(one)
    workload = Cgroup(platform._running[one.name].cgroup)
    assert workload.name.startswith(cgroup.name + "/") and set(workload.pids()) == set(cgroup.pids()) != set()
    assert int(workload.file("memory", "memory.limit_in_bytes", "memory.max").read_text()) == 64 << 20
    assert workload.file("pids", "pids.max", "pids.max").read_text().strip() == "24"
    assert isinstance(platform, Overseen)
    assert platform.overhead(one).memory_bytes > 1 << 20, "containerd's shim"
    shared = platform.shared_overhead()
    assert shared is not None and shared.memory_bytes > platform.overhead(one).memory_bytes
    assert platform.memory_parts(one)["application"] > 0
    platform.stop(one)
    platform.stop(one)
    assert not cgroup.exists()


@pytest.mark.parametrize("callers", [False, True])
def test_services_share_namespaces(
    platform: DockerPlatform, lab: Lab, busybox_layer: Path, tmp_path: Path, callers: bool
) -> None:
    """The host's network is not among them: it would be the daemon's."""
    kinds = ("pid", "ipc", "uts", "cgroup") if callers else ("network", "pid", "ipc")
    pair = make_pair(lab, busybox_layer, tmp_path, tuple((kind, "" if callers else "app") for kind in kinds))
    check_pair(platform, pair, {*kinds}, lambda one: platform._running[one.name].pid, callers=callers)
    if callers:
        check_without_shm(platform, pair[0], lambda one: platform._running[one.name].pid)


def test_the_workload_is_confined_as_others_are(
    platform: DockerPlatform, lab: Lab, busybox_layer: Path, tmp_path: Path
) -> None:
    seen = "id; pwd; hostname; env | grep -e GREETING -e HOME | sort; ulimit -n; echo $$;"
    seen += (
        "ip -4 -o address show eth0 | wc -l; grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp:)' /proc/self/status; exit 7"
    )
    one = instance(busybox_layer, lab, tmp_path, "sh", "-c", seen, cwd="/srv", user=User(1000, 1001))
    platform.start(one)
    platform.started(one, TIMEOUT_S)
    until(lambda: not platform.alive(one))
    assert platform.ending(one) == "exit status 7"
    platform.stop(one)
    printed = [line.partition("] ")[2] for line in one.log.read_text().splitlines()]
    assert printed[1:] == [
        "uid=1000 gid=1001 groups=1001",
        "/srv",
        "boxed",
        "GREETING=hello world",
        "HOME=/",
        "1024",
        "1",
        "1",
        "CapEff:\t0000000000000000",
        "CapBnd:\t00000000a80425fb",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ]


def test_a_command_that_is_not_there_fails_and_leaves_nothing(
    platform: DockerPlatform, lab: Lab, busybox_layer: Path, tmp_path: Path
) -> None:
    one = instance(busybox_layer, lab, tmp_path, "/bin/nowhere")
    platform.start(one)
    with pytest.raises((WorkloadError, AssertionError)):
        platform.started(one, TIMEOUT_S)
        until(lambda: not platform.alive(one))
        raise WorkloadError(platform.ending(one))
    platform.stop(one)


KILLED = """
import os, signal, sys
from pathlib import Path
from runtime.lease import lease
from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.docker import DockerPlatform
from testbed.platforms.protocol import Instance
run, layer, log = sys.argv[1:]
with lease(run) as scratch:
    lab = Lab()
    platform = DockerPlatform(run, scratch, lab)
    platform.prepare_layers([(layer,)])
    with lab:
        spec = Spec(Process(args=("sleep", "600"), env=("PATH=/bin",)), (layer,), "web", Resources(), lab.link(0, 0))
        one = Instance("a0-web", 0, {"web": spec}, Path(log))
        platform.start(one)
        platform.started(one, 60)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_leaves_is_cleaned(daemon: None, busybox_layer: Path, run_name: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", textwrap.dedent(KILLED), run_name, str(busybox_layer), str(tmp_path / "log")]
    assert subprocess.run(words, cwd=ROOT, check=False).returncode == -9
    found = tuple(one for one in leftovers.find() if one.run == run_name)
    kinds = {one.kind: one.what for one in found}
    assert {"process", "cgroup", "directory", "docker"} <= kinds.keys()
    leftovers.remove(found)
    assert [one for one in leftovers.find() if one.run == run_name] == []
    assert find_directories(f"{CGROUP_ROOT}/{run_name}") == []


def test_without_a_daemon_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not on the PATH: install the package docker.io")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(PrerequisiteError, match="docker's daemon does not answer") as caught:
        find_daemon()
    assert "the testbed starts no daemon" in caught.value.hint
    assert find_marked() == ()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("not json", "does not answer: not json"),
        ("[1, 2]", r"does not answer: \[1, 2\]"),
        ('{"ServerVersion":"","Name":""}Cannot connect', "does not answer: Cannot connect"),
        ("{}", "does not answer: nothing"),
        (TOLD % ("systemd", socket.gethostname()), "by systemd"),
        (TOLD % ("cgroupfs", "elsewhere"), "on another host, elsewhere"),
    ],
)
def test_a_daemon_that_cannot_serve_is_refused(
    answer: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "docker"
    fake.write_text(f"#!/bin/sh\n[ \"$1\" = --version ] && echo Docker version 1.0 && exit\necho '{answer}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(PrerequisiteError, match=message):
        find_daemon()


def test_a_command_that_fails_is_told_with_what_it_says(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"try: exit status 3") as caught:
        docker_client.run(("sh", "-c", "echo why >&2; exit 3"), "try")
    assert caught.value.hint == "why"
