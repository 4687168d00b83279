"""Which modules are loaded, and in which order."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from vm_images.modules import ModuleTree, module_name, order_modules, parse_needed_modules, read_plain_module

NEEDS = {
    "net": ("ring", "bus", "failover"),
    "bus": ("ring",),
    "disk": ("bus", "ring"),
    "ring": (),
    "failover": (),
}


def module(depends: str) -> bytes:
    return b"\x7fELF\0code\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


def test_each_module_comes_after_what_it_needs_and_once() -> None:
    order = order_modules(("disk", "net"), NEEDS.__getitem__, frozenset())
    assert sorted(order) == sorted(NEEDS)
    assert all(order.index(needed) < order.index(name) for name, needs in NEEDS.items() for needed in needs)


def test_what_is_built_in_is_not_loaded() -> None:
    assert order_modules(("disk",), NEEDS.__getitem__, {"bus"}) == ("ring", "disk")


def test_names_are_spelled_as_the_kernel_does() -> None:
    assert module_name("kernel/drivers/char/hw_random/virtio-rng.ko.xz") == "virtio_rng"
    assert parse_needed_modules(module("virtio-ring,virtio")) == ("virtio_ring", "virtio")
    assert parse_needed_modules(module("")) == ()


def test_a_tree_gives_plain_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "virtio.ko.xz").write_bytes(lzma.compress(module("")))
    (tmp_path / "kernel" / "virtio_blk.ko").write_bytes(module("virtio,builtin-one"))
    (tmp_path / "modules.builtin").write_text("kernel/lib/builtin-one.ko\n")
    loaded = ModuleTree.read(tmp_path).load(["virtio_blk"])
    assert list(loaded) == ["virtio.ko", "virtio_blk.ko"]
    assert loaded["virtio.ko"] == module("")


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="no module erofs"):
        ModuleTree.read(tmp_path).load(["erofs"])


def test_a_file_that_is_no_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(b"#!/bin/sh")
    with pytest.raises(PrerequisiteError, match="not a kernel module"):
        read_plain_module(tmp_path / "a.ko")
