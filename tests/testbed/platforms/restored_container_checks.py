"""What is checked of containers that CRIU restores, on a Debian kernel with cgroup v2 alone. It runs inside a guest, as
PID 1, not under pytest.

Each function is a check; one that fails raises. The console gets a line for each, which
tests/testbed/platforms/test_restored_container_guest.py reads.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime import checkpoint
from runtime.cgroups import hierarchies
from runtime.errors import UsageError, WorkloadError
from runtime.images.model import Image, ImageConfig
from runtime.lease import cgroup_name, lease
from runtime.spec import Process, Resources, Spec, User
from testbed.lab import Lab
from testbed.ladder.features import Stage, show_features
from testbed.platforms.protocol import Instance
from testbed.platforms.restored import Warmed
from testbed.platforms.restored_container import RestoredContainerPlatform
from tests.runtime.guest_checks import work_off

BUSYBOX = "/layers/busybox"
MODULES = Path("/layers/modules")
# Everything in the guest is emulated.
TIMEOUT_S = 60.0
# The secret is in the server's memory only, and of each process that is started another one.
SERVE = """
mkdir -p /tmp/www/cgi-bin
echo written > /tmp/www/before
printf '#!/bin/sh\\necho; echo $SECRET; cat /tmp/www/before /tmp/www/own 2>&1; cat /etc/hosts; id -u; hostname' \
    > /tmp/www/cgi-bin/tell
chmod 755 /tmp/www/cgi-bin/tell
export SECRET="secret $(od -An -N8 -tx1 /dev/urandom | tr -d ' ')"
exec busybox httpd -f -p 8080 -h /tmp/www
"""
USER = 1000


def spec_of(lab: Lab, application: int, script: str = SERVE) -> Spec:
    process = Process(("sh", "-c", script), ("PATH=/bin",), user=User(USER, USER))
    hosts = (("web", f"10.0.0.{application}"),)
    return Spec(process, (BUSYBOX,), "web", Resources(64 << 20, 1.0, 32), lab.link(application, 0), hosts)


def tell(one: Instance) -> list[str]:
    assert one.spec.link is not None
    with urllib.request.urlopen(f"http://{one.spec.link.address.ip}:8080/cgi-bin/tell", timeout=20) as answer:
        said: bytes = answer.read(65536)
    return said.decode().splitlines()


@contextmanager
def saved(script: str = SERVE) -> Iterator[tuple[RestoredContainerPlatform, Lab, Path]]:
    """A platform with a saved server, in a lab; nothing of it is left at the end."""
    with lease("checks") as scratch, Lab() as lab:
        platform = RestoredContainerPlatform("checks", lab, scratch)
        try:
            platform.save({"web": Warmed(spec_of(lab, 9, script), (8080,))}, lab)
            yield platform, lab, scratch
        finally:
            platform.close()
        assert sorted(path.name for path in scratch.iterdir() if path.suffix != ".log") == ["lock"]


def started(platform: RestoredContainerPlatform, one: Instance, undo: ExitStack) -> dict[str, int]:
    undo.callback(platform.stop, one)
    platform.start(one)
    return dict(platform.started(one, TIMEOUT_S).phases)


def the_host_is_what_it_should_be() -> None:
    assert hierarchies().mode == "v2"
    print(checkpoint.find_criu(), flush=True)


def criu_is_probed_by_saving_and_restoring() -> None:
    with lease("probe") as scratch:
        (scratch / "probe").mkdir()
        criu = checkpoint.find_criu()
        lost = checkpoint.probe(criu, cgroup_name("probe", "probe"), scratch / "probe")
        assert lost == (() if criu.skips_lock else ("NoNewPrivs",)), lost


def the_ladder_shows_a_checkpoint() -> None:
    with lease("shown") as scratch, Lab() as lab:
        platform = RestoredContainerPlatform("shown", lab, scratch)
        none = Image("none", "", ImageConfig(), ())
        stage = Stage(platform, lab, none, none, scratch, "shown")
        (feature,) = show_features({"container": stage})
        assert feature.done and "saved and restored by CRIU" in feature.words, feature
        print(feature.words, flush=True)


def copies_have_the_memory_of_the_saved_one_and_an_identity_of_their_own() -> None:
    with saved() as (platform, lab, scratch), ExitStack() as undo:
        print(platform.facts(), flush=True)
        copies = [Instance(f"a{n}", n, {"web": spec_of(lab, n)}, scratch / f"a{n}.log") for n in (1, 2)]
        for one in copies:
            phases = started(platform, one, undo)
            took_ms = {name: (at_ns - phases["request"]) / 1e6 for name, at_ns in phases.items()}
            print(f"{one.name}: {took_ms}", flush=True)
            assert platform.alive(one)
        first, second = map(tell, copies)
        assert first[0] == second[0] and first[0].startswith("secret "), (first, second)
        for number, told in ((1, first), (2, second)):
            assert told[1] == "written", told
            assert f"10.0.0.{number}\tweb" in told and str(USER) in told and told[-1] == "web", told
        (pid,) = (pid for pid in platform.cgroup(copies[0]).pids() if Path(f"/proc/{pid}").stat().st_uid == USER)
        status = Path(f"/proc/{pid}/status").read_text()
        assert "Seccomp:\t2" in status and "CapBnd:\t00000000a80425fb" in status, status
        assert ("NoNewPrivs:\t0" in status) == ("without NoNewPrivs" in platform.label), platform.label
        assert Path(f"/proc/{pid}/cgroup").read_text().strip().endswith("/checks/a1")
        Path(f"/proc/{pid}/root/tmp/www/own").write_text("of the first\n")
        assert "of the first" in tell(copies[0]) and "of the first" not in tell(copies[1])
        charge = platform.cgroup(copies[0]).memory_bytes()
        assert 100_000 < charge < 64 << 20, charge


def a_copy_that_ends_says_so_and_is_gone() -> None:
    with saved() as (platform, lab, scratch), ExitStack() as undo:
        one = Instance("a1", 1, {"web": spec_of(lab, 1)}, scratch / "a1.log")
        started(platform, one, undo)
        (pid,) = platform.cgroup(one).pids()
        os.kill(pid, 9)
        while platform.alive(one):
            time.sleep(0.01)
        assert platform.ending(one) == "exit status 137"
        platform.stop(one)
        assert not platform.cgroup(one).exists()
        started(platform, one, undo)
        assert tell(one)[1] == "written"


def what_was_not_saved_is_refused() -> None:
    with saved() as (platform, lab, scratch):
        other = Instance("a1", 1, {"web": spec_of(lab, 1, "sleep 1")}, scratch / "a1.log")
        try:
            platform.start(other)
        except UsageError as error:
            assert "none that it could be a copy of was saved" in str(error)
        else:
            raise AssertionError("it was started")


def criu_failing_is_told_with_its_reason_and_leaves_nothing() -> None:
    with saved() as (platform, lab, scratch):
        one = Instance("a1", 1, {"web": spec_of(lab, 1)}, scratch / "a1.log")
        for image in (scratch / platform.name / "web" / "images").glob("core-*.img"):
            image.write_bytes(image.read_bytes()[:20])
        platform.start(one)
        try:
            platform.started(one, TIMEOUT_S)
        except WorkloadError as error:
            assert "restore container testbed/checks/a1 with CRIU" in str(error) and "Error (" in str(error), error
        else:
            raise AssertionError("it was restored")
        assert not platform.cgroup(one).exists()
        platform.stop(one)


def a_service_with_connections_cannot_be_saved_and_says_so() -> None:
    script = "busybox httpd -p 8080; sleep 600 | busybox nc 127.0.0.1 8080"
    try:
        with saved(script):
            raise AssertionError("it was saved")
    except WorkloadError as error:
        assert "connections before anyone asks it anything" in error.hint, error


def nothing_is_left() -> None:
    """Comes last."""
    parent = Path("/sys/fs/cgroup/testbed")
    assert not parent.exists() or [path for path in parent.iterdir() if path.is_dir()] == []
    assert Path("/proc/self/mountinfo").read_text() == MOUNTS
    users = [path.name for path in Path("/proc").glob("[0-9]*") if path.stat().st_uid == USER]
    assert users == []


MOUNTS = ""
CHECKS = (
    the_host_is_what_it_should_be,
    criu_is_probed_by_saving_and_restoring,
    the_ladder_shows_a_checkpoint,
    copies_have_the_memory_of_the_saved_one_and_an_identity_of_their_own,
    a_copy_that_ends_says_so_and_is_gone,
    what_was_not_saved_is_refused,
    criu_failing_is_told_with_its_reason_and_leaves_nothing,
    a_service_with_connections_cannot_be_saved_and_says_so,
    nothing_is_left,
)


def check_all() -> None:
    global MOUNTS
    for name in Path(f"{MODULES}/order").read_text().split():
        subprocess.run([f"{BUSYBOX}/bin/busybox", "insmod", f"{MODULES}/{name}"], check=True)
    MOUNTS = Path("/proc/self/mountinfo").read_text()
    work_off(CHECKS)


def main() -> None:
    """Be an init: have the checks done in a child, and reap whoever is orphaned, until it ends."""
    # As on every host: what a container writes cannot lie on an overlay, which the root is.
    subprocess.run([f"{BUSYBOX}/bin/busybox", "mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    child = os.fork()
    if child == 0:
        try:
            check_all()
        finally:
            os._exit(0)
    while os.wait()[0] != child:
        continue
    fcntl.ioctl(1, 0x5409, 1)  # TCSBRK: what is in the serial port when PID 1 ends is lost


if __name__ == "__main__":
    main()
