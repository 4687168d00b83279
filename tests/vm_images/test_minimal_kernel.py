"""The minimal guest kernel: its options, what is said when a kernel does not take one, and that it boots."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.plan.steps import LogLine, Plan
from testbed.qemu.accelerator import probe_command
from testbed.qemu.emulator import find_qemu
from vm_images.bzimage import has_pvh_entry
from vm_images.guest import ensure_guest
from vm_images.minimal_kernel import (
    FRAGMENT,
    check,
    find_refused,
    find_stored_minimal_kernel,
    install_packages,
    missing_packages,
    parse_options,
    source_package,
)
from vm_images.plans.guest import FIRST_USERSPACE

CONFIG = """\
CONFIG_64BIT=y
CONFIG_NR_CPUS=64
CONFIG_HZ_250=y
# CONFIG_MODULES is not set
"""


@pytest.mark.parametrize(
    ("fragment", "lacking"),
    [
        ("CONFIG_64BIT=y\n# a comment\nCONFIG_NR_CPUS=64\n", ()),
        ("CONFIG_MODULES=n\nCONFIG_UNKNOWN=n\n", ()),
        ("CONFIG_MODULES=y\n", ("CONFIG_MODULES=y",)),
        ("CONFIG_64BIT=n\n", ("CONFIG_64BIT=n",)),
        ("CONFIG_NR_CPUS=128\nCONFIG_HZ=y\n", ("CONFIG_NR_CPUS=128", "CONFIG_HZ=y")),
    ],
)
def test_options_that_a_kernel_refused_are_found(fragment: str, lacking: tuple[str, ...]) -> None:
    assert find_refused(fragment, CONFIG) == lacking


def test_the_error_names_the_options(tmp_path: Path) -> None:
    source = tmp_path / "linux-source-9.9"
    source.mkdir()
    (source / ".config").write_text(CONFIG)
    fragment = tmp_path / "kernel.config"
    fragment.write_text("CONFIG_64BIT=y\nCONFIG_PVH=y\nCONFIG_EROFS_FS=y\n")
    with pytest.raises(
        PrerequisiteError, match=r"linux-source-9.9 does not take 2 of .*: CONFIG_PVH=y, CONFIG_EROFS_FS=y"
    ):
        check(fragment, source)


def test_the_fragment_says_each_thing_once() -> None:
    names = [line.partition("=")[0] for line in parse_options(FRAGMENT.read_text())]
    assert len(names) == len(set(names)) > 100
    needed = {
        "PVH",
        "VIRTIO_BLK",
        "VIRTIO_NET",
        "EROFS_FS",
        "EXT4_FS",
        "OVERLAY_FS",
        "DEVTMPFS",
        "CGROUP_PIDS",
        "SECCOMP",
    }
    assert {f"CONFIG_{name}" for name in needed} <= set(names)


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_packages(("dpkg", "no-such-package-here")) == ("no-such-package-here",)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(PrerequisiteError, match=r"needs packages: flex bc\n.*apt-get install .* flex bc"):
        install_packages(("flex", "bc"), print)
    install_packages((), print)


@pytest.mark.network
def test_the_source_is_found() -> None:
    package = source_package()
    assert package.name.startswith("linux-source-")
    assert package.sha256


def test_without_one_it_is_said_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"no minimal guest kernel.*\n.*images.kernel"):
        find_stored_minimal_kernel(tmp_path)


@pytest.mark.vm
def test_it_boots(tmp_path: Path) -> None:
    """As far as our own PID 1, under TCG; and it took every option of ours."""
    guest_root = store_root() / "guest"
    try:
        guest = ensure_guest(guest_root, "minimal")
    except PrerequisiteError as error:
        pytest.skip(str(error))
    kernel = guest.kernel
    assert has_pvh_entry(kernel.image.read_bytes())
    assert kernel.module_names == ()
    assert find_refused(FRAGMENT.read_text(), (kernel.folder / "config").read_text()) == (), (
        "run `./invoke images.kernel`"
    )
    initrd = tmp_path / "initrd"
    initrd.write_bytes(guest.initrd(Plan((LogLine(FIRST_USERSPACE),))))
    command = probe_command(find_qemu(), kernel.image, initrd)
    command[command.index("-accel") + 1] = "tcg"
    console = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60).stdout
    assert f"Linux version {kernel.release} (testbed@testbed)" in console
    assert FIRST_USERSPACE in console
