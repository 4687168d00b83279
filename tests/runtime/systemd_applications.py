"""What is checked of images, unions, roots and compose files on a host with systemd, by the commands that people type;
see ``systemd_checks``. Each leaves the host's mounts and cgroups as they were."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

from runtime.unionfs import mount_api
from tests.runtime.guest_checks import captured
from tests.runtime.systemd_programs import BUSYBOX, UNIFIED, WORK, podman
from tests.waiting import until

# In memory: the guest's own root is an overlay, which no overlay writes to.
PLACE = WORK / "applications"
HOME, OTHER = PLACE / "home", PLACE / "other"
APP = PLACE / "app"
STATE = Path("/run/testbed")
_END_S = 30.0
# What the commands import: under emulation that takes longer than what they do.
_MODULES = (
    "tasks",
    *(f"runtime.builder.{name}" for name in ("build", "running")),
    *(f"runtime.images.{name}" for name in ("collection", "listing", "load", "save", "verification")),
    *(f"runtime.registry.{name}" for name in ("client", "pull", "push", "serve")),
    *(f"runtime.{name}" for name in ("container", "roots.running", "roots.store", "unionfs.unions")),
    *(f"testbed.projects.{name}" for name in ("control", "execution", "holder", "logs", "outward", "volumes")),
    "testbed.substitutes.resolving",
)

DOCKERFILE = """FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir /www /data && echo of the build > /www/index.html && cat /proc/self/cgroup > /www/cgroup
RUN --mount=type=cache,target=/kept --mount=type=tmpfs,target=/gone echo kept > /kept/file && touch /gone/file
RUN --network=none ls /sys/class/net > /www/interfaces
ENV PATH=/bin
CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
"""
LIMITS = "{resources: {limits: {cpus: '0.5', memory: 64M}}}"
COMPOSE = f"""name: shop
services:
  web:
    build: ./app
    stop_grace_period: 1s
    ports: ["8080"]
    volumes: [data:/data]
    sysctls: {{net.core.somaxconn: 77}}
    devices: ["/dev/net/tun:/dev/granted:r"]
    healthcheck: {{test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8080/"], interval: 300ms}}
    depends_on:
      db: {{condition: service_healthy}}
      setup: {{condition: service_completed_successfully}}
    deploy: {LIMITS}
  db:
    build: ./app
    command: [sh, -c, "trap 'echo asked >/out/end; exit 0' USR1; echo db is here; >/ok; while :; do sleep 0.1; done"]
    stop_signal: SIGUSR1
    volumes: ["./out:/out"]
    shm_size: 1m
    healthcheck: {{test: test -e /ok, interval: 300ms}}
    deploy: {LIMITS}
  setup:
    build: ./app
    command: [sh, -c, echo set up > /data/done]
    volumes: [data:/data]
    deploy: {LIMITS}
  side: {{build: ./app, command: [sleep, "1000"], network_mode: "service:web", pid: "service:web", ipc: "service:web",
         deploy: {LIMITS}}}
  agent: {{build: ./app, network_mode: host, pid: host, ipc: host, uts: host, cgroup: host, ports: ["8080"],
          deploy: {LIMITS}}}
volumes: {{data: }}
"""


def mounts() -> list[str]:
    """The host's mounts, but for those that systemd makes when it likes."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if "/run/user/" not in line and "binfmt" not in line]


def cgroups() -> list[str]:
    """The cgroups outside systemd's slices and mounts, and ours wherever they are."""
    found = [directory for directory, _, _ in os.walk(UNIFIED)]
    return sorted(name for name in found if "testbed" in name or not re.search(r"\.(slice|mount)\b", name))


@contextmanager
def unchanged() -> Iterator[None]:
    """Raises AssertionError when the host's mounts are others at the end, or when there are more cgroups; those of what
    ended before may go meanwhile."""
    before, had = mounts(), set(cgroups())
    yield
    until(
        lambda: mounts() == before and had.issuperset(cgroups()),
        told=lambda: (set(before) ^ set(mounts()), set(cgroups()) - had),
    )


def on_a_host_unchanged(check: Callable[[], None]) -> Callable[[], None]:
    @wraps(check)
    def checked() -> None:
        with unchanged():
            check()

    return checked


def run_task(*words: str, home: Path = HOME) -> int:
    """Do what the command line says, with the store in ``home``, in this process; its exit status."""
    from tasks import program

    os.environ["TESTBED_HOME"] = str(home)
    sys.argv = ["testbed", *words]
    try:
        program.run()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def invoke(*words: str, home: Path = HOME, status: int = 0) -> str:
    """What the command line says, in a process forked from this one, which has imported it."""
    for module in _MODULES:
        importlib.import_module(module)  # once, not in each of the processes
    found, said = captured(lambda: run_task(*words, home=home))
    assert found == status, f"{words}: {found}: {said}"
    return said


@on_a_host_unchanged
def images_are_built() -> None:
    """RUN with a network and without, a cache and a tmpfs; again from the cache; and one that fails."""
    invoke("images.build", str(APP), "--tag", "checks/app")
    again = invoke("images.build", str(APP), "--tag", "checks/app")
    identity = again.splitlines()[-1]
    assert json.loads(invoke("images.inspect", "checks/app"))["id"] == identity, again
    wrong = APP / "wrong.dockerfile"
    wrong.write_text("FROM checks/app\nRUN sleep 100 & echo went wrong; exit 3\n")
    said = invoke("images.build", str(APP), "--file", str(wrong), "--tag", "checks/wrong", status=6)
    assert "went wrong" in said and "Traceback" not in said, said
    assert "checks/wrong" not in invoke("images.list")


@on_a_host_unchanged
def images_are_saved_and_loaded() -> None:
    """As both kinds of archive, into another store, and verified there."""
    for kind in ("oci", "docker"):
        archive = PLACE / f"{kind}.tar"
        invoke("images.save", "checks/app", "--to", str(archive), "--format", kind)
        assert "checks/app" in invoke("images.load", str(archive), home=OTHER)
        archive.unlink()
    assert "all is as it should be" in invoke("images.verify", home=OTHER)
    ours, theirs = (json.loads(invoke("images.inspect", "checks/app", home=home))["id"] for home in (HOME, OTHER))
    assert ours == theirs
    invoke("images.rm", "checks/app", home=OTHER)
    invoke("images.gc", home=OTHER)


@contextmanager
def serving() -> Iterator[str]:
    """Lend the store as a registry; its host and port."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(writing, 1)
            status = run_task("images.serve")
        finally:
            os._exit(status)
    os.close(writing)
    try:
        with os.fdopen(reading) as said:
            yield said.readline().strip()
    finally:
        os.kill(pid, signal.SIGTERM)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status == 130, status


@on_a_host_unchanged
def images_come_from_a_registry_and_go_to_one() -> None:
    """From the store that is lent, to another store of ours; and through the distribution's registry."""
    from benchmarks.docker_registry import docker_registry

    with serving() as address:
        pulled = f"{address}/checks/app"
        assert "plain" in invoke("images.pull", pulled, home=OTHER, status=5)
        invoke("images.pull", pulled, "--plain-http", home=OTHER)
        assert "Traceback" not in invoke("images.push", "checks/app", "--to", f"{address}/a", "--plain-http", status=5)
    registry = PLACE / "registry"
    registry.mkdir()
    with docker_registry(registry) as address:
        invoke("images.push", "checks/app", "--to", f"{address}/team/app:1", "--plain-http")
        invoke("images.rm", pulled, home=OTHER)
        invoke("images.gc", "--cache", home=OTHER)
        invoke("images.pull", f"{address}/team/app:1", "--plain-http", home=OTHER)
    assert "all is as it should be" in invoke("images.verify", home=OTHER)


def podman_pulls_from_the_store_that_is_lent() -> None:
    """What podman itself mounts for its storage is its own."""
    with serving() as address:
        pulled = f"{address}/checks/app"
        podman("pull", "--quiet", "--tls-verify=false", pulled)
        config = podman("image", "inspect", "--format={{json .Config.Cmd}}", pulled)
        podman("rmi", "--force", pulled)
    assert json.loads(config) == ["httpd", "-f", "-p", "8080", "-h", "/www"]


@on_a_host_unchanged
def unions_are_mounted_on_a_shared_tree() -> None:
    """Below a mount that is shared, as all are where systemd is."""
    for name in ("a", "b", "c", "union"):
        (PLACE / name).mkdir()
    (PLACE / "b" / "file").write_text("of b")
    (PLACE / "c" / "file").write_text("of c")
    target = PLACE / "union"
    invoke("union.mount", f"br:{PLACE}/a=rw:{PLACE}/b=ro", str(target))
    assert (target / "file").read_text() == "of b"
    with (target / "file").open() as kept:
        invoke("union.add", f"1:{PLACE}/c=ro", str(target))
        assert kept.read() == "of b" and (target / "file").read_text() == "of c"
    assert invoke("union.which", str(target / "file")).startswith(f"{PLACE}/c=ro: ")
    (target / "file").write_text("written")
    assert (PLACE / "a" / "file").read_text() == "written"
    assert invoke("union.which", str(target / "file")).startswith(f"{PLACE}/a=rw: ")
    invoke("union.umount", str(target))
    assert not list(target.iterdir()) and "union" not in invoke("union.list")


@on_a_host_unchanged
def roots_are_snapshots_and_clones() -> None:
    invoke("roots.create", "web", "checks/app")
    invoke("roots.run", "web", "--command", "sh -c 'echo one > /file; cat /proc/self/cgroup'")
    invoke("roots.snapshot", "web", "first")
    invoke("roots.clone", "web@first", "copy")
    invoke("roots.run", "copy", "--command", "sh -c 'echo two >> /file'")
    assert "two" in invoke("roots.run", "copy", "--command", "cat /file")
    invoke("roots.run", "web", "--command", "rm /file /www/index.html")
    assert "D /www/index.html" in invoke("roots.diff", "web").splitlines()
    invoke("roots.rollback", "web", "first")
    assert invoke("roots.run", "web", "--command", "cat /file").strip() == "one"
    assert invoke("roots.diff", "web").splitlines() == ["A /file"]
    for name in ("copy", "web"):
        invoke("roots.rm", name)
    assert invoke("roots.list") == ""


def find_shared(one: int | str, other: int | str) -> set[str]:
    """The kinds of namespaces that two processes have in common."""
    kinds = ("net", "pid", "ipc", "uts", "cgroup", "mnt")
    return {kind for kind in kinds if os.readlink(f"/proc/{one}/ns/{kind}") == os.readlink(f"/proc/{other}/ns/{kind}")}


@on_a_host_unchanged
def an_application_is_up_and_down() -> None:
    """A compose file as containers: with conditions, health, limits that systemd leaves alone, and a published port."""
    (PLACE / "compose.yaml").write_text(COMPOSE)
    invoke("up", str(PLACE / "compose.yaml"))
    try:
        (shop,) = json.loads(invoke("ps", "--json"))
        services = {one["name"]: one for one in shop["members"]}
        assert {name: one["state"] for name, one in services.items()} == {
            "web": "running",
            "db": "running",
            "setup": "exited",
            "side": "running",
            "agent": "running",
        }, services
        assert services["db"]["health"] == "healthy" and services["setup"]["exit_status"] == 0, services
        assert {one["service"] for one in shop["published"]} == {"web", "agent"}, shop
        for published in shop["published"]:
            address = f"http://{published['address']}:{published['host_port']}/"
            with urllib.request.urlopen(address, timeout=_END_S) as answer:
                assert answer.read() == b"of the build\n"
        web, side, agent = (services[name]["pid"] for name in ("web", "side", "agent"))
        assert find_shared(web, side) == {"net", "pid", "ipc"}, find_shared(web, side)
        assert find_shared(agent, "self") == {"net", "pid", "ipc", "uts", "cgroup"}, find_shared(agent, "self")
        Path(f"/proc/{web}/root/dev/shm/lent").touch()
        assert Path(f"/proc/{side}/root/dev/shm/lent").exists()
        assert invoke("exec", "web", "cat", "/data/done").strip() == "set up"
        assert invoke("exec", "web", "cat", "/proc/sys/net/core/somaxconn").strip() == "77"
        assert "256" in invoke("exec", "db", "stat", "-f", "-c", "%b", "/dev/shm")
        assert "opened" in invoke("exec", "web", "sh", "-c", ": </dev/granted && echo opened")
        assert "Operation not permitted" in invoke("exec", "web", "sh", "-c", "echo x >/dev/granted", status=1)
        assert "db is here" in invoke("logs", "--service", "db")
        cgroup = UNIFIED / Path(f"/proc/{services['db']['pid']}/cgroup").read_text().strip().removeprefix("0::/")
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        limits = [(cgroup / name).read_text().strip() for name in ("memory.max", "cpu.max")]
        assert limits == [str(64 << 20), "50000 100000"], limits
    finally:
        said = invoke("down", "shop", "--volumes")
    assert "shop is down" in said and "data" in said, said
    assert (PLACE / "out" / "end").read_text() == "asked\n", "it got its own signal, and its time"
    assert invoke("ps").startswith("nothing is up") and not list(STATE.glob("*shop*"))


@on_a_host_unchanged
def an_application_that_never_starts_leaves_nothing() -> None:
    compose = COMPOSE.replace(">/ok", "exit 4")
    (PLACE / "compose.yaml").write_text(compose)
    said = invoke("up", str(PLACE / "compose.yaml"), status=6)
    assert "db" in said and "Traceback" not in said, said
    assert invoke("ps").startswith("nothing is up")


@contextmanager
def in_memory() -> Iterator[None]:
    PLACE.mkdir()
    mount_api.mount("tmpfs", str(PLACE), "tmpfs")
    try:
        APP.mkdir()
        shutil.copy2(BUSYBOX / "bin" / "busybox", APP)
        (APP / "Dockerfile").write_text(DOCKERFILE)
        yield
    finally:
        mount_api.unmount(str(PLACE), lazy=True)
        PLACE.rmdir()


CHECKS = (
    images_are_built,
    images_are_saved_and_loaded,
    images_come_from_a_registry_and_go_to_one,
    podman_pulls_from_the_store_that_is_lent,
    unions_are_mounted_on_a_shared_tree,
    roots_are_snapshots_and_clones,
    an_application_is_up_and_down,
    an_application_that_never_starts_leaves_nothing,
)
