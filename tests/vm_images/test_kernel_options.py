"""The options that a guest's kernel needs: those of ``kernel.config`` are enough, and each is looked for."""

from __future__ import annotations

import pytest

from testbed.qemu.variants import VARIANTS
from vm_images.kernel_options import Machine, extract_config, find_lacking, needed_options
from vm_images.minimal_kernel import FRAGMENT


@pytest.mark.parametrize("name", [name for name, variant in VARIANTS.items() if variant.boots_kernel])
def test_the_minimal_kernel_has_all_that_is_asked_for(name: str) -> None:
    assert find_lacking(needed_options(VARIANTS[name].kernel_needs), FRAGMENT.read_text()) == {}


def test_what_is_off_is_told_from_what_is_a_module() -> None:
    config = "CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_E=n\n"
    options = ("CONFIG_A", "CONFIG_B", "CONFIG_C", "CONFIG_D", "CONFIG_E")
    off = dict.fromkeys(("CONFIG_C", "CONFIG_D", "CONFIG_E"), "off")
    assert find_lacking(options, config) == {"CONFIG_B": "only as a module", **off}


def test_each_kind_of_machine_asks_for_its_own() -> None:
    usual = set(needed_options(Machine()))
    assert {"CONFIG_VIRTIO_PCI", "CONFIG_EROFS_FS", "CONFIG_OVERLAY_FS"} <= usual
    assert set(needed_options(VARIANTS["vm-micro"].kernel_needs)) - usual == {
        "CONFIG_VIRTIO_MMIO",
        "CONFIG_PNP",
        "CONFIG_SERIAL_8250_PNP",
    }
    disk = set(needed_options(VARIANTS["vm-disk"].kernel_needs))
    assert "CONFIG_EXT4_FS" in disk and "CONFIG_OVERLAY_FS" not in disk and "CONFIG_EROFS_FS" not in disk
    assert set(needed_options(VARIANTS["vm-balloon"].kernel_needs)) - usual == {"CONFIG_VIRTIO_BALLOON"}
    assert "CONFIG_PAGE_REPORTING" in needed_options(VARIANTS["vm-reporting"].kernel_needs)
    assert "CONFIG_BRIDGE" in needed_options(VARIANTS["vm-containers"].kernel_needs)


@pytest.mark.parametrize("elf", [b"", b"IKCFG_ST", b"IKCFG_ED IKCFG_ST", b"IKCFG_ST" + bytes(5 << 20) + b"IKCFG_ED"])
def test_a_kernel_without_its_configuration_says_nothing(elf: bytes) -> None:
    assert extract_config(elf) == ""
