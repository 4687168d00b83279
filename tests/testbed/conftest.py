"""A store of guests' own, for tests of virtual machines that are not only the platform's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.home import store_root
from testbed.platforms.emulator import ensure_emulator, find_qemu
from vm_images.kernel import ensure_kernel


@pytest.fixture
def guest_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A store of the test's own, on the file system of its layers, that shares the real one's kernel and emulator."""
    guest = store_root() / "guest"
    try:
        ensure_kernel(guest)
        ensure_emulator(guest, find_qemu())
    except PrerequisiteError as error:
        pytest.skip(f"no guest kernel: {error}")
    home = tmp_path / "home"
    (home / "guest").mkdir(parents=True)
    for kept in [*guest.glob("kernel-*"), *guest.glob("emulator-*")]:
        (home / "guest" / kept.name).symlink_to(kept)
    monkeypatch.setenv("TESTBED_HOME", str(home))
    yield home
