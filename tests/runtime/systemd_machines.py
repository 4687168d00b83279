"""What is checked of the helpers of virtual machines on a host with systemd; see ``systemd_checks``. Machines
themselves are not started there: this host is one, and emulated."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.lease import cgroup_name, lease
from runtime.spec import Resources
from testbed.qemu.emulator import make_cgroup
from testbed.qemu.shares import Export, Lending, start_lending
from tests.runtime.systemd_applications import PLACE, on_a_host_unchanged
from tests.runtime.systemd_programs import UNIFIED
from tests.waiting import until

RUN = "lending-check"


def find_server(lending: Lending, cgroup: Cgroup) -> int:
    """The process that serves, once it sees nothing but what is lent."""

    def find() -> int:
        return next((pid for pid in cgroup.pids() if sorted(os.listdir(f"/proc/{pid}/root")) == ["0"]), 0)

    return until(find, told=lending.read_words)


@on_a_host_unchanged
def directories_are_lent_to_machines() -> None:
    """virtiofsd, on a tree of mounts that is shared: in its machine's cgroup, with the limits of that, confined to what
    is lent; and nothing is left of it with the lease."""
    lent = PLACE / "lent"
    lent.mkdir()
    (lent / "page").write_text("here")
    with lease(RUN) as directory:
        cgroup = Cgroup(cgroup_name(RUN, "machine"))
        cgroup.make_parent()
        make_cgroup(cgroup, Resources(cpus=0.5))
        lending = start_lending((Export(str(lent), True),), directory / "shares", cgroup, coherent=True)
        try:
            with socket.socket(socket.AF_UNIX) as channel:
                channel.connect(str(directory / "shares"))
                server = find_server(lending, cgroup)
                own = cgroup.pids()
                assert lending.choose((*own, os.getpid())) == {*own} and len(own) > 1, own
                assert (Path(f"/proc/{server}/root/0/page")).read_text() == "here"
                assert "ro" in next(
                    line.split()[5].split(",")
                    for line in Path(f"/proc/{server}/mountinfo").read_text().splitlines()
                    if line.split()[4] == "/0"
                )
                assert (UNIFIED / cgroup.name / "cpu.max").read_text().split() == ["50000", "100000"]
                assert cgroup.memory_bytes() > 0 and cgroup.cpu_usage_ns() > 0
        finally:
            lending.end()
            cgroup.kill()
            cgroup.remove()
        assert not cgroup.exists()
    assert not (UNIFIED / cgroup_name(RUN, "machine")).parent.exists()


CHECKS = (directories_are_lent_to_machines,)
