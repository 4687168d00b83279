"""What is lent to guests, by which plan, and that virtiofsd sees nothing else. How guests see it:
tests/testbed/projects/test_volumes.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.cgroups import Cgroup, Hierarchies
from runtime.config.types import Mount
from runtime.errors import PrerequisiteError, TestbedError
from runtime.processes import parent
from runtime.spec import Process, Resources, Spec
from testbed.platforms.nested import ContainersInVmPlatform
from testbed.platforms.pooled_vm import PooledVmPlatform
from testbed.platforms.vm import VmPlatform
from testbed.qemu import shares
from testbed.qemu.emulator import make_cgroup
from testbed.qemu.shares import (
    Export,
    Lending,
    find_refusal,
    lending_plan,
    list_exports,
    place_in_guest,
    start_lending,
)
from testbed.qemu.variants import VARIANTS
from tests.waiting import until
from vm_images.kernel import GuestKernel

KERNEL = GuestKernel(Path("/nowhere"), "6.1", "linux-image", "6.1-1", True, (), share_module_names=("virtiofs.ko",))
SPEC = Spec(
    Process(("serve",)),
    (),
    "web",
    mounts=(
        Mount("/data", "bind", "/v/data", ("rbind", "rw")),
        Mount("/memory", "tmpfs", "tmpfs"),
        Mount("/again", "bind", "/v/data", ("rbind", "ro")),
    ),
)
OTHER = replace(SPEC, mounts=SPEC.mounts[:1])


def test_each_source_is_lent_once_and_found_by_its_number() -> None:
    exports = list_exports({"web": SPEC, "php": OTHER})
    assert exports == (Export("/v/data", False), Export("/v/data", True))
    sources = [mount.source for mount in place_in_guest(SPEC, exports).mounts]
    assert sources == ["/shares/0", "tmpfs", "/shares/1"]
    assert not list_exports({"web": replace(SPEC, mounts=SPEC.mounts[1:2])})


def test_machines_that_can_be_lent_nothing_say_why() -> None:
    refused = {name for name, one in VARIANTS.items() if find_refusal(one, KERNEL)}
    assert refused == {"vm-cloud", "vm-restored", "vm-ksm"}
    without = replace(KERNEL, share_module_names=None)
    assert find_refusal(VARIANTS["vm"], without) == "its kernel, 6.1, has no virtiofs that we know of"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_server_joins_its_cgroup_or_is_cloned_into_it(version: str) -> None:
    v1, unified = ({"pids": Path("/cg/pids")}, None) if version == "v1" else ({}, Path("/cg"))
    cgroup = Cgroup("testbed/r/i", Hierarchies(v1, unified, frozenset({"pids"} if unified else ())))
    plan = lending_plan(Path("/virtiofsd"), (Export("/v", False),), cgroup, coherent=True, most_files=9)
    said = [step.describe() for step in plan.child]
    assert plan.into_cgroup == ("" if version == "v1" else "/cg/testbed/r/i")
    assert [one for one in said if "/cg/" in one] == ["write '0' to /cg/pids/testbed/r/i/tasks"] * (version == "v1")


def test_the_program_is_the_one_that_qemu_would_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "_DESCRIPTIONS", (tmp_path,))
    (tmp_path / "10.json").write_text("{")
    (tmp_path / "20.json").write_text('{"type": "gpu", "binary": "/bin/true"}')
    with pytest.raises(PrerequisiteError, match="no virtiofsd"):
        shares.find_virtiofsd()
    assert "no virtiofsd" in find_refusal(VARIANTS["vm"], KERNEL)
    (tmp_path / "30.json").write_text('{"type": "fs", "binary": "/bin/true", "tags": []}')
    assert shares.find_virtiofsd() == Path("/bin/true")


@pytest.fixture
def cgroup(run_name: str) -> Iterator[Cgroup]:
    cgroup = Cgroup(f"testbed/{run_name}/guest")
    cgroup.make_parent()
    make_cgroup(cgroup, Resources())
    yield cgroup
    cgroup.kill()
    cgroup.remove()


def connect(lending: Lending, path: Path, cgroup: Cgroup) -> int:
    """Return the process that serves, once it has confined itself."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(path))
        until(lambda: len(cgroup.pids()) > 1, told=lending.read_words)
        (server,) = (pid for pid in cgroup.pids() if parent(pid) in cgroup.pids())
        until(lambda: sorted(os.listdir(f"/proc/{server}/root")) == ["0", "1"], told=lending.read_words)
        check_confined(server)
        own = cgroup.pids()
        assert lending.choose((*own, os.getpid())) == {*own} and len(own) > 1, "all of its processes, and no others"
    return server


def check_confined(server: int) -> None:
    root = Path(f"/proc/{server}/root")
    assert (root / "0" / "page").read_text() == "here" and (root / "1").is_file()
    options = {
        line.split()[4]: line.split()[5].split(",")
        for line in Path(f"/proc/{server}/mountinfo").read_text().splitlines()
    }
    assert "ro" in options["/"] and "rw" in options["/0"] and "ro" in options["/1"]
    assert all({"nosuid", "nodev", "noexec"} <= {*options[path]} for path in ("/", "/0", "/1"))
    until(
        lambda: not find_bounding(server) & (1 << 27 | 1 << 21), told=lambda: "CAP_MKNOD, CAP_SYS_ADMIN"
    )  # its last step


def find_bounding(server: int) -> int:
    status = Path(f"/proc/{server}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd")), 16)


@pytest.mark.root
def test_the_server_sees_what_is_lent_and_nothing_else(tmp_path: Path, cgroup: Cgroup) -> None:
    (tmp_path / "lent").mkdir()
    (tmp_path / "lent" / "page").write_text("here")
    exports = (Export(str(tmp_path / "lent"), False), Export(str(tmp_path / "lent" / "page"), True))
    lending = start_lending(exports, tmp_path / "socket", cgroup, coherent=True)
    try:
        server = connect(lending, tmp_path / "socket", cgroup)
        assert server in cgroup.pids(), "it serves on, confined"
    finally:
        lending.end()
        lending.end()


@pytest.mark.root
def test_what_cannot_be_lent_is_named_and_leaves_no_process(tmp_path: Path, cgroup: Cgroup) -> None:
    with pytest.raises(TestbedError, match=f"open_tree {tmp_path}/gone .*: No such file or directory"):
        start_lending((Export(str(tmp_path / "gone"), False),), tmp_path / "socket", cgroup, coherent=False)
    assert not cgroup.pids()


@pytest.mark.parametrize("kind", [ContainersInVmPlatform, PooledVmPlatform, VmPlatform])
def test_each_kind_of_machine_records_what_services_share(kind: type[VmPlatform]) -> None:
    """None prepares what it runs in a way of its own, and so forgets it."""
    assert kind.prepare is VmPlatform.prepare
