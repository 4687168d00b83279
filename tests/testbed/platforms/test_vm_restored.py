"""Copies of a saved guest for real: each has an identity of its own, and the saved one stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import Cgroup
from runtime.errors import TestbedError, UsageError, WorkloadError
from runtime.images.model import Image, ImageConfig, Layer
from runtime.lease import cgroup_name, lease
from runtime.plan.steps import AddEntropy, Plan
from runtime.spec import Link, Process, Resources, Spec
from testbed.lab import BRIDGE, Lab
from testbed.platforms import restored
from testbed.platforms.protocol import Instance
from testbed.platforms.restored import RestoredPlatform, Warmed
from testbed.qemu.variants import VARIANTS
from tests.testbed.platforms.answers import fetch
from tests.testbed.platforms.test_vm import traces
from vm_images.plans.restored import restored_plan, sleep_plan

pytestmark = [pytest.mark.root, pytest.mark.vm]

TIMEOUT_S = 60.0
# What a guest says of itself; the random bytes are the kernel's, by way of a process that was not there when the
# guest was saved.
TELL = r"""#!/bin/sh
say() { echo "\"$1\": \"$(tr '\n\t' '  ')\","; }
echo; echo "{"
hostname | say hostname
cat /etc/hostname | say file
cat /etc/machine-id | say machine
grep redis /etc/hosts | say hosts
cat /sys/class/net/eth0/address | say mac
ip -4 -o addr show eth0 | sed 's/.*inet //; s/ .*//' | say addresses
# An address of the link's own is there once the link has been seen to be up: a moment later, on a busy host.
for look in $(seq 50); do grep -q eth0 /proc/net/if_inet6 && break; sleep 0.1; done
grep eth0 /proc/net/if_inet6 | cut -c1-32 | say local
sed -n 's/^ *[0-9]*: *[0-9A-F]*\(........\):.*/\1/p' /proc/net/tcp /proc/net/tcp6 | say sockets
head -c 24 /dev/urandom | od -An -tx1 | say random
date +%s | say time
echo '"end": ""}'
"""


def say(link_of: Lab, application: int, layer: Path) -> Spec:
    """A server that tells of its guest, as copy number ``application`` is to have it."""
    link = link_of.link(application, 0)
    serve = Process(args=("busybox", "httpd", "-f", "-p", "80", "-h", "/srv"), env=("PATH=/bin",))
    hosts = (("redis", f"10.0.0.{application}"),)
    return Spec(serve, (str(layer),), f"copy{application}", Resources(128 << 20, 1.0, 24), link, hosts)


class Saved:
    """A platform with a saved guest, in a lab."""

    def __init__(self, platform: RestoredPlatform, lab: Lab, layer: Path, folder: Path, run: str) -> None:
        self.platform, self.lab, self.layer, self.folder, self.run = platform, lab, layer, folder, run

    def instance(self, application: int, name: str = "") -> Instance:
        name = name or f"a{application}"
        return Instance(name, application, {"web": say(self.lab, application, self.layer)}, self.folder / f"{name}.log")

    def copies(self, *applications: int) -> list[dict[str, str]]:
        """What copies that run at the same time tell of themselves."""
        instances = [self.instance(application) for application in applications]
        with ExitStack() as undo:
            for one in instances:
                undo.callback(self.platform.stop, one)
                self.platform.start(one)
            for one in instances:
                self.platform.started(one, TIMEOUT_S)
            return [tell(str(one.spec.link.address.ip)) for one in instances if one.spec.link]


def reseeded_sleep_plan(link: Link | None) -> Plan:
    """The worst case for random numbers: the kernel, which reseeds by itself now and then (in its first minutes: after
    half of its age), has just done so when it is saved."""
    return Plan((AddEntropy(os.urandom(32)), *sleep_plan(link).child))


def tell(address: str) -> dict[str, str]:
    told: dict[str, str] = json.loads(fetch(f"http://{address}/cgi-bin/tell", 20))
    return {what: text.strip() for what, text in told.items()}


@pytest.fixture(scope="module")
def saved(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    """One guest, booted once for all tests here, on a layer of busybox."""
    folder = tmp_path_factory.mktemp("restored")
    layer = home / "layers" / "restored"
    (layer / "bin").mkdir(parents=True)
    (layer / "srv" / "cgi-bin").mkdir(parents=True)
    shutil.copy2("/bin/busybox", layer / "bin" / "busybox")
    for command in "sh hostname cat grep ip sed tr cut head od date".split():
        (layer / "bin" / command).symlink_to("busybox")
    (layer / "srv" / "cgi-bin" / "tell").write_text(TELL)
    (layer / "srv" / "cgi-bin" / "tell").chmod(0o755)
    run = f"test-restored-{folder.name}"
    image = Image("test/busybox", "sha256:restored", ImageConfig(), (Layer("sha256:busybox", layer),))
    with pytest.MonkeyPatch.context() as patch, lease(run) as scratch, ExitStack() as undo:
        patch.setattr(restored, "sleep_plan", reseeded_sleep_plan)
        platform = RestoredPlatform(scratch, BRIDGE, run, VARIANTS["vm-restored"])
        undo.callback(platform.close)
        platform.prepare_images([image])
        lab = undo.enter_context(Lab())
        platform.save({"web": Warmed(say(lab, 9, layer), (80,))}, {"web": image})
        yield Saved(platform, lab, layer, folder, run)
        platform.close()
        assert sorted(path.name for path in scratch.iterdir()) == ["lock"], "something was left"


def test_copies_at_the_same_time_are_guests_of_their_own(saved: Saved) -> None:
    before = traces(saved.run)
    (original,) = saved.platform._saved.values()
    digest = hashlib.sha256(os.pread(original.ram, 1 << 30, 0)).digest()
    age_s = time.time() - original.state.stat().st_mtime
    time.sleep(max(0.0, 3.0 - age_s))  # so that a clock that stood still would show
    asked_s = int(time.time())
    told = saved.copies(0, 1)
    for application, one in enumerate(told):
        link = saved.lab.link(application, 0)
        assert one["hostname"] == one["file"] == f"copy{application}"
        assert one["hosts"] == f"10.0.0.{application} redis"
        assert one["mac"] == link.mac
        assert one["addresses"].split() == [str(link.address)]
        assert len(bytes.fromhex(one["machine"])) == 16
        own = link.address.ip.packed[::-1].hex().upper()  # as /proc/net/tcp has it
        assert own in one["sockets"].split() and not set(one["sockets"].split()) - {own, "00000000"}
        assert asked_s <= int(one["time"]) <= time.time()
    for what in ("machine", "local", "random"):
        assert told[0][what] != told[1][what], what
    assert hashlib.sha256(os.pread(original.ram, 1 << 30, 0)).digest() == digest, "a copy changed the saved guest"
    assert traces(saved.run) == before


def test_nobody_can_change_the_ram_that_all_copies_map(saved: Saved) -> None:
    one = saved.instance(14)
    saved.platform.start(one)
    try:
        saved.platform.started(one, TIMEOUT_S)
        (qemu,) = saved.platform.cgroup(one).pids()
        account = Path(f"/proc/{qemu}").stat()
        change = "import os; os.pwrite(os.open('/proc/self/fd/0', os.O_RDWR), b'x', 0)"
        with Path(f"/proc/{qemu}/fd/0").open("rb") as ram:
            assert os.fstat(ram.fileno()).st_size == 128 << 20
            done = subprocess.run(
                [sys.executable, "-c", change],
                stdin=ram,
                stderr=subprocess.PIPE,
                text=True,
                user=account.st_uid,
                group=account.st_gid,
            )
        assert "PermissionError" in done.stderr and done.returncode
    finally:
        saved.platform.stop(one)


def test_without_fresh_entropy_copies_draw_the_same_random_numbers(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above can fail. A copy that is slow to be asked may have reseeded by then: the next is tried."""

    def stale(*arguments: object) -> Plan:
        plan = restored_plan(*arguments)  # type: ignore[arg-type]
        return Plan(tuple(step for step in plan.child if not isinstance(step, AddEntropy)))

    monkeypatch.setattr(restored, "restored_plan", stale)
    drawn: list[str] = []
    while len(set(drawn)) == len(drawn):
        assert len(drawn) < 8, f"no two were equal: {drawn}"
        drawn.append(saved.copies(2)[0]["random"])


def test_the_phases_of_a_start(saved: Saved) -> None:
    one = saved.instance(10)
    saved.platform.start(one)
    phases = saved.platform.started(one, TIMEOUT_S).phases
    in_order = ["request", "defined", "spawned", "created", "restored", "first_process", "identity"]
    assert sorted(phases, key=lambda name: phases[name]) == in_order
    cgroup = saved.platform.cgroup(one)
    assert len(cgroup.pids()) == 1 and 0 < cgroup.memory_bytes() < 100 << 20, "it does not share what it did not change"
    with pytest.raises(UsageError, match="in use"):
        saved.platform.start(one)
    saved.platform.stop(one)
    assert not saved.platform.alive(one)
    assert not any(path.exists() for path in Cgroup(cgroup_name(saved.run, one.name)).directories())


def test_a_copy_that_cannot_become_what_it_should_says_why(saved: Saved) -> None:
    one = saved.instance(11)
    one = replace(one, specs={"web": replace(one.spec, hostname="h" * 65)})
    saved.platform.start(one)
    with pytest.raises(WorkloadError, match=r"sethostname h+: EINVAL"):
        saved.platform.started(one, TIMEOUT_S)
    saved.platform.stop(one)


def test_what_was_not_saved_is_refused(saved: Saved) -> None:
    one = saved.instance(12)
    one = replace(one, specs={"web": replace(one.spec, resources=Resources(160 << 20, 1.0, 24))})
    with pytest.raises(UsageError, match="no guest that it could be a copy of"):
        saved.platform.start(one)


def test_a_state_that_is_cut_short_is_refused_and_leaves_nothing(saved: Saved) -> None:
    state = next((saved.platform._scratch / "saved").glob("*.state"))
    whole = state.read_bytes()
    before = traces(saved.run)
    one = saved.instance(13)
    try:
        state.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(TestbedError, match=r"state of a13|QEMU of a13"):
            saved.platform.start(one)
    finally:
        state.write_bytes(whole)
    assert not saved.platform.alive(one)
    assert traces(saved.run) == before
    assert not any(path.exists() for path in Cgroup(cgroup_name(saved.run, one.name)).directories())
