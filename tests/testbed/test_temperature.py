"""Temperatures: every warm platform has a cold one of the same kind, which must stand beside it."""

from __future__ import annotations

import pytest

from testbed.platforms import registry
from testbed.qemu.variants import VARIANTS
from testbed.temperature import TEMPERATURES, WARM, find_temperature, list_missing_cold


def test_every_warm_platform_and_its_cold_one_exist() -> None:
    for name, warm in WARM.items():
        assert name in registry.NAMES and warm.cold in registry.NAMES
        assert find_temperature(name) == warm.temperature in TEMPERATURES
        assert find_temperature(warm.cold) == "cold"


def test_what_the_registry_restores_is_restored_here() -> None:
    for name, variant in VARIANTS.items():
        assert find_temperature(name) == variant.start


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        (("container", "vm"), ()),
        (("container", "vm-restored"), ("vm",)),
        (("container-pooled", "vm-restored"), ("container", "vm")),
        (("container-pooled", "container-restored"), ("container",)),
        (("vm-restored", "vm", "libvirt-lxc"), ()),
    ],
)
def test_the_cold_ones_that_are_missing(asked: tuple[str, ...], missing: tuple[str, ...]) -> None:
    assert list_missing_cold(asked) == missing
