"""The kernel that the reference machine boots with VirtualBox."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.images.model import Image, ImageConfig, Layer
from vm_images import reference
from vm_images.reference import DOCKERFILE
from vm_images.virtualbox import MODULES, read_virtualbox_modules, virtualbox_kernel_of

RELEASE = "6.12.1-cloud"


def image(folder: Path, modules: tuple[str, ...] = MODULES) -> Image:
    """An image with the machine's own kernel in one layer, and VirtualBox's, which is newer, in another."""
    own, virtualbox = folder / "own", folder / "virtualbox"
    kernels = ((own, "boot", "6.12.0-cloud"), (virtualbox, "usr/lib/virtualbox-kernel", RELEASE))
    for layer, where, release in kernels:
        (layer / where).mkdir(parents=True)
        (layer / where / f"vmlinuz-{release}").touch()
        (layer / "usr/lib/modules" / release / "updates").mkdir(parents=True)
    for name in modules:
        module = f"\x7fELF\0depends={'vboxdrv' if name == 'vboxnetflt' else ''}\0name={name}\0"
        (virtualbox / "usr/lib/modules" / RELEASE / "updates" / f"{name}.ko").write_text(module)
    layers = tuple(Layer(f"sha256:{layer.name}", layer) for layer in (own, virtualbox))
    return Image("test", "sha256:x", ImageConfig(), layers)


def test_it_is_the_one_beside_the_machine_s_own_and_its_modules_are_of_its_release(tmp_path: Path) -> None:
    own = image(tmp_path)
    assert virtualbox_kernel_of(own).name == f"vmlinuz-{RELEASE}"
    assert reference.kernel_of(own)[0].name == "vmlinuz-6.12.0-cloud"
    loaded = read_virtualbox_modules(own)
    assert list(loaded) == [f"{name}.ko" for name in MODULES] and b"name=vboxnetflt" in loaded["vboxnetflt.ko"]
    assert not [name for name in loaded if "kvm" in name]  # what has the processor's virtualisation first, keeps it


def test_an_image_without_it_or_its_modules_is_an_error(tmp_path: Path) -> None:
    own = image(tmp_path, MODULES[:-1])
    with pytest.raises(PrerequisiteError, match="no module vboxnetflt"):
        read_virtualbox_modules(own)
    virtualbox_kernel_of(own).unlink()
    with pytest.raises(PrerequisiteError, match="has 0 kernels in /usr/lib/virtualbox-kernel"):
        virtualbox_kernel_of(own)


def test_the_image_s_programs_and_modules_are_of_one_version() -> None:
    """They refuse each other otherwise, and unstable moves: one command fetches both."""
    assert "download virtualbox/unstable virtualbox-dkms/unstable" in DOCKERFILE.read_text()
