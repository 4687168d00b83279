"""Kinds of virtual machine are platforms of their own, and every platform keeps the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed import platforms
from testbed.lab import Lab
from testbed.platforms.connection import embedded
from testbed.platforms.variants import VARIANTS, Variant, by_name


def test_every_variant_is_a_platform() -> None:
    assert platforms.NAMES == ("container", *VARIANTS, "libvirt-lxc")
    assert platforms.known(("vm", "container")) == ("vm", "container")
    with pytest.raises(UsageError, match="platform vm is named twice"):
        platforms.known(("vm", "container", "vm"))
    with pytest.raises(UsageError, match="unknown platform vmm"):
        platforms.known(("vm", "vmm"))


@pytest.mark.parametrize("name", platforms.NAMES)
def test_a_platform_says_what_it_is_before_it_is_prepared(name: str, tmp_path: Path) -> None:
    made = platforms.create(name, "run", tmp_path, Lab())
    assert made.name == name
    assert made.virtual == (name in VARIANTS)
    assert made.shared == (made.virtual and VARIANTS[name].guest_per == "application")
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_two_variants_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match="called vm"):
        by_name((Variant("vm"), Variant("vm", machine="pc")))


@pytest.mark.root
@pytest.mark.vm
def test_kinds_of_machine_in_one_run_share_the_driver(run_name: str, tmp_path: Path) -> None:
    folder = Path("/run") / f"testbed-{run_name}" / "libvirt"  # short: the driver keeps it, and its sockets' names
    with embedded(folder, tmp_path / "cache") as first:
        with embedded(folder, tmp_path / "cache") as second:
            assert second is first
        assert first.isAlive(), "the first to leave does not end it"
    assert not folder.parent.exists()


@pytest.mark.root
@pytest.mark.vm
def test_the_driver_is_opened_once_however_often_it_is_asked_for(tmp_path: Path, run_name: str) -> None:
    """libvirt registers it anew each time that it is opened, and has room for some twenty."""
    folder = Path("/run") / f"testbed-{run_name}" / "libvirt"
    found = []
    for _ in range(30):
        with embedded(folder, tmp_path / "cache") as connection:
            assert connection.isAlive()
            found.append(connection)
    assert all(one is found[0] for one in found)
