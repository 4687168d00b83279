"""The guest kernel: how packages are read, and what is kept of one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from vm_images.bzimage import extract_vmlinux, has_pvh_entry
from vm_images.kernel import ensure_kernel, parse_package, resolve
from vm_images.modules import GUEST_MODULES, HOST_MODULES, parse_needed_modules

STANZA = """\
Package: linux-image-6.1.0-1-cloud-amd64
Version: 6.1.2-1
Depends: kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120) | linux-initramfs-tool
Description: Linux 6.1
 Depends: nothing, this is prose
SHA256: e7d02b

Package: linux-image-6.1.0-1-cloud-amd64
Version: 6.1.1-1
"""


def test_a_package_is_read_from_its_first_stanza() -> None:
    package = parse_package(STANZA)
    assert (package.name, package.version, package.sha256) == ("linux-image-6.1.0-1-cloud-amd64", "6.1.2-1", "e7d02b")
    assert package.depends == ("kmod", "linux-base", "initramfs-tools")


def test_without_package_lists_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "apt.conf"
    configuration.write_text(
        f'Dir::State "{tmp_path}/none";\nDir::State::status "/dev/null";\nDir::Cache "{tmp_path}";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    with pytest.raises(PrerequisiteError) as raised:
        resolve()
    assert "linux-image-cloud-amd64" in raised.value.message
    assert "apt-get update" in raised.value.hint


@pytest.mark.root
@pytest.mark.network
def test_the_distributions_kernel_is_kept_ready_to_boot(tmp_path: Path) -> None:
    kernel = ensure_kernel(tmp_path)
    names = [name.removesuffix(".ko") for name in kernel.module_names]
    assert has_pvh_entry(kernel.image.read_bytes()) == kernel.pvh
    for path in kernel.modules:
        needed = parse_needed_modules(path.read_bytes())
        assert all(names.index(name) < names.index(path.stem) for name in needed if name in names)
    assert set(names) & set(GUEST_MODULES)
    assert not set(kernel.host_module_names) & set(kernel.module_names)
    assert {f"{name}.ko" for name in HOST_MODULES} <= set(kernel.host_module_names)
    assert all(path.exists() for path in kernel.host_modules)
    assert {f"{name}.ko" for name in ("erofs", "overlay", "xen_blkfront", "xen_netfront")} <= {*kernel.xen_module_names}
    assert {f"{name}.ko" for name in ("erofs", "overlay", "sd_mod", "virtio_scsi")} <= {*kernel.scsi_module_names}
    assert all(path.exists() for path in (*kernel.xen_modules, *kernel.scsi_modules))
    assert extract_vmlinux(kernel.bzimage.read_bytes())
    assert os.listdir(tmp_path) == [kernel.folder.name]
    assert sorted(os.listdir(kernel.folder)) == sorted({"kernel.json", "modules", kernel.image.name, "vmlinuz"})
    assert ensure_kernel(tmp_path) == kernel
