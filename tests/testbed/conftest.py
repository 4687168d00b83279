"""What tests of virtual machines share: a store of guests' own, and a libvirtd of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import libc
from runtime.cgroups import Cgroup
from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.plan.constants import CLONE_NEWNET
from testbed.platforms.daemon import Daemon, find_libvirtd
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


@pytest.fixture
def libvirt_daemon(run_name: str, cgroup_parent: str) -> Iterator[Daemon]:
    """A libvirtd in a network namespace that is neither the host's nor a lab's."""
    try:
        find_libvirtd()
        emulator = ensure_emulator(store_root() / "guest", find_qemu())
    except PrerequisiteError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    scratch = Path("/run/testbed") / run_name
    shown = (scratch, store_root(), emulator.parent)
    made = Daemon(scratch / "libvirtd", Cgroup(f"{cgroup_parent}/libvirtd"), shown, reroot=False)
    try:
        with open("/proc/thread-self/ns/net") as home:
            libc.call("unshare", CLONE_NEWNET)
            try:
                made.start()
            finally:
                libc.call("setns", home.fileno(), CLONE_NEWNET)
        yield made
    finally:
        made.close()
