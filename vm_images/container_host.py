"""The guest that is a host of containers: its image, made of this checkout's runtime, and its initial RAM disk."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from runtime.builder.build import build
from runtime.home import is_sealed
from runtime.images.model import Image
from runtime.images.releases import find_release_with
from runtime.images.store import Store
from runtime.launcher.build import IMAGE_BINARY, NEEDED, build_for
from vm_images.guest import Guest
from vm_images.plans.container_host import ContainerHost, container_host_plan

REFERENCE = "testbed/container-host"
DOCKERFILE = Path(__file__).with_suffix(".dockerfile")
# Where the image has the runtime and what it needs; the interpreter searches it, with -S only as the working directory.
PACKAGES = "/usr/lib/python3/dist-packages"
INTERPRETER = "/usr/bin/python3"

_RUNTIME = Path(__file__).resolve().parent.parent / "runtime"
_LAUNCHER = Path("launcher", "testbed-launcher")


def _stage(folder: Path) -> None:
    """Lay out the build context: the runtime's modules, what they need, and a launcher that knows the image's
    interpreter."""
    for source in sorted(_RUNTIME.rglob("*.py")):
        target = folder / "runtime" / source.relative_to(_RUNTIME)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    shutil.copytree(NEEDED, folder / NEEDED.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))
    build_for(INTERPRETER, Path(PACKAGES), IMAGE_BINARY)
    shutil.copy2(IMAGE_BINARY, folder / "runtime" / _LAUNCHER)


def ensure_host_image(
    store: Store, progress: Callable[[str], None], dockerfile: Path = DOCKERFILE, reference: str = REFERENCE
) -> Image:
    """Build the host system's image, or another with the runtime in it, unless the store has its layers.

    Raises PrerequisiteError and WorkloadError as ``runtime.builder.build.build`` does.
    """
    if is_sealed():
        return store.get(reference)
    with tempfile.TemporaryDirectory(prefix="testbed-") as context:
        _stage(Path(context))
        # msgspec has a part compiled for one version of Python, which the image must have, too.
        release = find_release_with(sys.version_info[:2])
        return build(
            store, context=Path(context), dockerfile=dockerfile, reference=reference, progress=progress, base=release
        )


def host_initrd(guest: Guest, host: ContainerHost) -> bytes:
    """Return the initial RAM disk of one such guest: what all guests share, the modules of a host of containers, its
    plan."""
    host_guest = guest.with_modules(guest.kernel.host_modules)
    return host_guest.initrd(container_host_plan(host, host_guest.modules("pci")))
