"""Platforms by their names: every one keeps the protocol, and what none makes is refused before anything is."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError
from testbed.lab import Lab
from testbed.platforms import registry
from testbed.platforms.needs import Host
from testbed.platforms.paravirtual import PARAVIRTUAL
from testbed.platforms.peers.names import PEERS
from testbed.platforms.rungs.names import RUNGS
from testbed.platforms.virtualbox import VIRTUALBOX
from testbed.qemu.variants import VARIANTS, Disk, Memory, Variant


def test_every_variant_is_a_platform() -> None:
    containers = ("container", "container-pooled", "container-restored")
    assert registry.NAMES == (*containers, *VARIANTS, PARAVIRTUAL, VIRTUALBOX, "libvirt-lxc", *PEERS, "docker", *RUNGS)
    assert registry.check_names(("vm", "container")) == ("vm", "container")
    with pytest.raises(UsageError, match="platform vm is named twice"):
        registry.check_names(("vm", "container", "vm"))
    with pytest.raises(UsageError, match="unknown platform vmm"):
        registry.check_names(("vm", "vmm"))


def test_a_group_is_what_is_here_of_it_and_says_what_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, answer in (("crun", "crun version 1.8.1"), ("runc", "garbage"), ("bwrap", "bubblewrap 0.8.0")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {answer}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    told: list[str] = []
    assert registry.expand(("vm", "crun", "peers"), told.append) == ("vm", "crun", "process", "runc")
    assert "without youki: youki is not on the PATH (no Debian package has youki" in "\n".join(told)
    assert "without bwrap: bwrap --version: exit status 1" in "\n".join(told)
    assert len(told) == len(PEERS) - 3 + 1, "each that is missing has its line"
    every = registry.expand(("all",), told.append)
    assert {"container", "process", "crun"} <= set(every) and "podman" not in every and "vm-cloud" not in every
    assert registry.expand(("vm",), told.append) == ("vm",)


def test_the_ladder_is_its_rungs_and_a_rung_of_another_name_is_that_platform(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setenv("PATH", "/nowhere")
    ladder = registry.expand(("ladder",), told.append)
    assert ladder[:3] == ("process", "chroot-1982", "jail-2000") and {"container", "lmctfy-2013"} <= set(ladder)
    assert len(set(ladder)) == len(ladder) and not set(ladder) & {one.partition(" ")[0] for one in told}
    assert "without paravirtual-2003: Xen has not booted this system" in "\n".join(told)
    assert any(line.startswith("without vm-micro: ") for line in told), told
    assert registry.expand(("restored", "micro-2018"), told.append) == ("vm-restored", "vm-micro")
    assert not set(RUNGS) & set(registry.expand(("all",), told.append))


def test_of_a_machine_that_has_hardware_for_it_the_host_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine lacks is left out by its own list, and whatever it is made of must be here all the same."""
    told: list[str] = []
    monkeypatch.setattr(registry, "look_at_host", lambda store: Host(kvm_problem="no /dev/kvm"))
    look = partial(registry.find_missing_in, dict.fromkeys(("emulated-1988", "crun"), "not in the machine"))
    ladder = registry.expand(("ladder",), told.append, look)
    assert {"hardware-2006", "chroot-1982", "process"} <= set(ladder)
    assert not {"emulated-1988", "vm-micro"} & set(ladder)
    assert "without emulated-1988: not in the machine" in told
    assert "without vm-micro: qemu-system-x86_64 is not on the PATH" in "\n".join(told)


def test_a_peer_that_is_not_here_is_refused_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    for name, package in (("crun", "crun"), ("nspawn", "systemd-container"), ("docker", "docker.io")):
        with pytest.raises(PrerequisiteError, match="is not on the PATH") as caught:
            registry.require_programs([name])
        assert caught.value.hint == f"install the package {package}"


@pytest.mark.parametrize("name", registry.NAMES)
def test_a_platform_says_what_it_is_before_it_is_prepared(name: str, tmp_path: Path) -> None:
    made = registry.create(name, "run", tmp_path, Lab())
    assert made.name == name
    assert made.virtual == (name in registry.MACHINES)
    assert made.shared == (made.virtual and registry.MACHINES[name].guest_per == "application")
    made.close()
    assert list(tmp_path.iterdir()) == []


CLOUD, NESTED = VARIANTS["vm-cloud"], VARIANTS["vm-containers"]
RESTORED, POD = VARIANTS["vm-restored"], VARIANTS["vm-pod"]
OWN = Disk("qcow2", file_system="ext4")


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        (Variant("x", bus="mmio"), "the machine q35 has no mmio bus"),
        (Variant("x", machine="microvm"), "the machine microvm has no pci bus"),
        (replace(CLOUD, start="restored"), "a stock system and a restored guest exclude each other"),
        (replace(CLOUD, inside="containers"), "a stock system and containers in a guest exclude each other"),
        (replace(CLOUD, guest_per="application"), "a stock system and one guest for all services exclude"),
        (replace(RESTORED, guest_per="application"), "a restored guest and one guest for all services exclude"),
        (replace(NESTED, guest_per="service"), "containers in a guest is not made with another guest_per"),
        (replace(CLOUD, machine="microvm", bus="mmio"), "a stock system is not made with another bus"),
        (replace(CLOUD, disk=OWN), "a stock system is not made with another disk"),
        (replace(CLOUD, kernel="minimal"), "a stock system is not made with another kernel"),
        (replace(NESTED, disk=OWN, kernel="minimal"), "containers in a guest is not made with another disk, kernel"),
        (replace(NESTED, memory=Memory(hugepages=True)), "containers in a guest is not made with .* memory.hugepages"),
        (replace(RESTORED, disk=OWN), "a restored guest is not made with another disk"),
        (replace(RESTORED, memory=Memory(balloon=True)), "a restored guest is not made with another memory.balloon"),
        (replace(POD, start="pooled"), "a pooled guest and one guest for all services exclude each other"),
        (replace(RESTORED, start="pooled", memory=Memory(balloon=True)), "a pooled guest is not made with another mem"),
        (replace(POD, disk=Disk(file_system="ext4")), "one guest for all services is not made with another disk"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_what_no_class_makes_is_refused_and_not_half_ignored(variant: Variant, reason: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "VARIANTS", {variant.name: variant})
        with pytest.raises(UsageError, match=f"no platform makes {variant.name}: {reason}"):
            registry.create(variant.name, "run", tmp_path, Lab())
