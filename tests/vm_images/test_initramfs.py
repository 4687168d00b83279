"""The archives, as cpio reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vm_images.initramfs import Entry, make_base_archive, make_modules_archive, make_plan_archive, write_archive


def listing(data: bytes) -> dict[str, str]:
    """Permissions by name, as cpio reads the first archive in ``data``."""
    done = subprocess.run(["busybox", "cpio", "-tv"], input=data, capture_output=True, check=True)
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    return {fields[-1]: fields[0] for fields in lines}


def test_cpio_finds_everything_with_its_permissions() -> None:
    listed = listing(make_base_archive(b"the launcher", {"virtio.ko": b"a module"}))
    assert listed["init"] == "-rwxr-xr-x"
    assert listed["dev/console"] == "crw-------"
    assert listed["modules/virtio.ko"] == "-rw-r--r--"
    assert listed["proc"].startswith("d")


@pytest.mark.parametrize("length", range(1, 9))
def test_contents_survive_whatever_their_length(length: int, tmp_path: Path) -> None:
    data = bytes(range(length))
    packed = write_archive([Entry("a" * length, 0o100644, data), Entry("last", 0o100600, b"end")])
    subprocess.run(["busybox", "cpio", "-i"], input=packed, cwd=tmp_path, check=True)
    assert (tmp_path / ("a" * length)).read_bytes() == data
    assert (tmp_path / "last").read_bytes() == b"end"


def test_a_second_archive_can_follow() -> None:
    base, plan = make_base_archive(b"init", {}), make_plan_archive(b"plan bytes")
    assert len(base) % 512 == 0
    assert listing(plan) == {"plan": "-rw-------"}
    assert (base + plan).index(b"070701", base.rindex(b"TRAILER!!!")) == len(base)


def test_further_modules_lie_beside_the_others() -> None:
    assert listing(make_modules_archive({"bridge.ko": b"a module"})) == {"modules/bridge.ko": "-rw-r--r--"}


def test_equal_inputs_give_equal_bytes() -> None:
    modules = {"b.ko": b"2", "a.ko": b"1"}
    assert make_base_archive(b"init", modules) == make_base_archive(b"init", dict(modules))
    assert make_base_archive(b"init", modules) != make_base_archive(b"init", {"b.ko": b"2", "a.ko": b"changed"})
