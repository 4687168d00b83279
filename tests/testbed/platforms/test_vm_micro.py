"""The smallest machine: no PCI bus, and all that a workload needs nevertheless."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.spec import Process, Resources, Spec
from testbed.lab import Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform

pytestmark = [pytest.mark.root, pytest.mark.vm]
TIMEOUT_S = 60.0
SEEN = "ls /sys/bus/pci/devices 2>/dev/null | wc -l; ls /sys/bus/virtio/devices | wc -l; ip -o addr show eth0; sleep 1"


def test_it_has_its_disk_and_network_card_without_a_pci_bus(
    make_vm: Callable[[str], VmPlatform], layer: Path, tmp_path: Path
) -> None:
    platform = make_vm("vm-micro")
    with Lab() as lab:
        link = lab.link(0, 0)
        spec = Spec(
            Process(("sh", "-c", f"{SEEN.replace('wc', 'busybox wc')}; exit 3")),
            (str(layer),),
            "micro",
            Resources(128 << 20, 1.0, 24),
            link,
        )
        one = Instance("a0-micro", 0, {"web": spec}, tmp_path / "micro.log")
        platform.start(one)
        phases = platform.started(one, TIMEOUT_S).phases
        assert phases["kernel_entry"] < phases["first_userspace"] < phases["first_process"]
        assert platform.exit_status(one, TIMEOUT_S) == 3
        platform.stop(one)
    said = [line.split("] ", 1)[-1] for line in one.log.read_text().splitlines()]
    begin = said.index("testbed: exec") + 1
    assert said[begin : begin + 2] == ["0", "2"], said
    assert str(link.address) in said[begin + 2]
