"""Fixtures for the image tests: a store of their own, a tiny image in it, and a build with a few words."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.builder.build import build
from runtime.images.layers import settle
from runtime.images.model import Image, ImageConfig
from runtime.images.store import Store

Build = Callable[..., Image]

COMMANDS = (
    "sh",
    "cat",
    "chmod",
    "chown",
    "cp",
    "date",
    "dd",
    "echo",
    "id",
    "ls",
    "mkdir",
    "mv",
    "pwd",
    "rm",
    "sleep",
    "grep",
    "ln",
    "mkfifo",
    "mknod",
    "nslookup",
    "ping",
    "touch",
    "true",
    "wget",
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store, on the same file system as the rest of the test."""
    return Store(tmp_path / "store")


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory, where flushing files to the disk takes no time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def tiny(store: Store) -> Image:
    """The image ``tiny``: busybox, two users, and the links that Debian's root has."""
    with store.building(print), store.scratch() as scratch:
        root = scratch / "root"
        for name in ("usr/bin", "etc", "dev", "proc", "sys", "tmp", "srv"):
            (root / name).mkdir(parents=True)
        (root / "bin").symlink_to("usr/bin")
        shutil.copy("/bin/busybox", root / "usr/bin/busybox")
        for command in COMMANDS:
            (root / "usr/bin" / command).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:100:Alice:/home/alice:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\nusers:x:100:\naudio:x:29:alice,bob\n")
        layer = store.add_layer(root, "busybox", settle(root, 0))
        return store.tag("tiny", ImageConfig(env=("PATH=/bin",), cmd=("sh",)), (layer,))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """An empty build context."""
    folder = tmp_path / "context"
    folder.mkdir()
    return folder


@pytest.fixture
def progress() -> list[str]:
    """The lines that the builds of a test have reported."""
    return []


@pytest.fixture
def build_text(store: Store, tiny: Image, context: Path, progress: list[str]) -> Build:
    """Build a Dockerfile given as text on top of ``tiny``, as the image ``test/app``, with options of ``build``."""

    def build_it(text: str, **options: Any) -> Image:
        dockerfile = context.parent / "Dockerfile"
        dockerfile.write_text(text)
        given: dict[str, Any] = {
            "context": context,
            "dockerfile": dockerfile,
            "reference": "test/app",
            "progress": progress.append,
        }
        return build(store, **(given | options))

    return build_it
