"""The reference machine's image: the system inside it, made of this checkout, and the QEMU that emulates it.

One image does both, so that every host emulates with the same bytes, and what is compared in the machine runs on the
release that emulates it. Python packages are those of ``requirements.lock``, checked by their hashes, for the image's
own Python; libvirt's binding is the distribution's, which has no wheel.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from runtime.builder.build import build
from runtime.errors import PrerequisiteError
from runtime.images.model import Image
from runtime.images.store import Store
from runtime.launcher import STATIC_BINARY
from runtime.launcher.build import IMAGE_BINARY, build_for
from runtime.plan.encode import encode
from vm_images.initramfs import MODULES_PATH, make_base_archive, make_plan_archive
from vm_images.modules import ModuleTree
from vm_images.plans.reference import ReferenceMachine, reference_plan

REFERENCE = "testbed/reference"
# What has the virtualisation of the machine's processor: its kernel's KVM, VirtualBox's module in that one's place, or
# nobody, where Xen has booted it as its domain 0.
System = Literal["kvm", "xen", "virtualbox"]
DOCKERFILE = Path(__file__).with_suffix(".dockerfile")
# Where the image has the packages and the source, and who runs them.
PACKAGES = "/usr/lib/testbed"
INTERPRETER = "/usr/bin/python3"
# Its disk and where it puts the results, both memory of the emulator's: what is read from them comes at once, in the
# instruction that asks, not when the host gets round to it.
DISK, RESULTS = "/dev/pmem1", "/dev/pmem0"
# The disk's driver and file systems, KVM, its network backend, and what connects containers and machines.
MODULES = ("nfit", "nd_pmem", "erofs", "overlay", "kvm_amd", "vhost_net", "tun", "bridge", "veth")
# Of what the lock file has, what runs an experiment; reports are rendered outside.
WHEELS = ("hdrhistogram", "httptools", "msgspec", "pbr", "pycdlib", "pyyaml", "setuptools")
# Debian 13's.
_PYTHON = "3.13"

# What the emulator is built with besides what every PC has.
DEVICES = ("Q35", "SERIAL_ISA", "NVDIMM")
_PATCH = Path(__file__).with_suffix(".patch")

_ROOT = Path(__file__).resolve().parent.parent
_SOURCES = ("runtime", "testbed", "vm_images")
_STAGED = (".py", ".dockerfile", ".config", ".yaml")
_LAUNCHER = Path("launcher", "testbed-launcher")
_LOCK = _ROOT / "requirements.lock"


def locked(text: str, names: Collection[str]) -> str:
    """Return the entries of a lock file, requirement and hashes, for these packages. Raises ValueError without one."""
    found: dict[str, str] = {}
    for match in re.finditer(r"^([a-z0-9-]+)==[^\n]*\\\n(?: +--hash=[^\n]*\n?)+", text, re.MULTILINE):
        if match.group(1) in names:
            found[match.group(1)] = match.group(0).rstrip("\n")
    if missing := sorted(set(names) - set(found)):
        raise ValueError(f"the lock file has no {', '.join(missing)}")
    return "".join(f"{found[name]}\n" for name in sorted(found))


def _install_packages(target: Path, scratch: Path) -> None:
    """Install the locked wheels for the image's Python into ``target``. Raises PrerequisiteError with pip's words."""
    requirements = scratch / "requirements"
    requirements.write_text(locked(_LOCK.read_text(), WHEELS))
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--no-compile", "--only-binary=:all:", "--require-hashes"),
        *("--python-version", _PYTHON, "--implementation", "cp", "--target", str(target)),
        *("--requirement", str(requirements)),
    ]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-8:])
        raise PrerequisiteError(
            f"install the reference machine's Python packages: {said}",
            "check the network, the proxy and `pip config list`: no package index was reached, or it has no wheel",
        )
    shutil.rmtree(target / "bin", ignore_errors=True)  # scripts of this host's interpreter
    for record in target.glob("*.dist-info/RECORD"):  # they have the scripts' digests
        record.unlink()


def _stage_source(target: Path, programs: Sequence[Path]) -> None:
    """Lay out this checkout's modules and ``programs``, and a launcher that knows the image's interpreter."""
    for folder in _SOURCES:
        for source in sorted((_ROOT / folder).rglob("*")):
            if source.suffix in _STAGED and source.is_file():
                copy = target / source.relative_to(_ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
    build_for(INTERPRETER, Path(PACKAGES), IMAGE_BINARY)
    shutil.copy2(IMAGE_BINARY, target / "runtime" / _LAUNCHER)
    for program in programs:
        copy = target / program.relative_to(_ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(program, copy)


def ensure_reference_image(
    store: Store, programs: Sequence[Path], progress: Callable[[str], None], system: System = "kvm"
) -> Image:
    """Build the image unless the store has its layers (about a minute, 150 MB of packages, 600 MB of disk; with Xen
    250 MB and 800 MB, with VirtualBox 370 MB and 830 MB).

    ``programs`` are static ones of this checkout that measure: the machine compiles none.
    Raises PrerequisiteError and WorkloadError as ``runtime.builder.build.build`` does, and PrerequisiteError without a
    package index.
    """
    with tempfile.TemporaryDirectory(prefix="testbed-") as scratch:
        context = Path(scratch, "context")
        (context / "packages").mkdir(parents=True)
        (context / "qemu").mkdir()
        shutil.copyfile(_PATCH, context / "qemu" / _PATCH.name)
        (context / "qemu" / "reference.mak").write_text("".join(f"CONFIG_{name}=y\n" for name in DEVICES))
        _install_packages(context / "packages", Path(scratch))
        _stage_source(context / "source", programs)
        return build(
            store,
            context=context,
            dockerfile=DOCKERFILE,
            reference=REFERENCE if system == "kvm" else f"{REFERENCE}-{system}",
            progress=progress,
            arguments={"SYSTEM": system},
        )


def kernel_of(image: Image, folder: str = "boot") -> tuple[Path, Path]:
    """Return the kernel in a folder of the image and the directory of its modules, on this host.

    Raises PrerequisiteError when there is not one kernel in it.
    """
    found = [(layer, path) for layer in image.layers for path in sorted((layer.path / folder).glob("vmlinuz-*"))]
    if len(found) != 1:
        raise PrerequisiteError(
            f"the image {image.reference} has {len(found)} kernels in /{folder}", "report this release"
        )
    ((layer, kernel),) = found
    return kernel, layer.path / "usr/lib/modules" / kernel.name.removeprefix("vmlinuz-")


def read_modules(image: Image) -> dict[str, bytes]:
    """Return the modules that the machine loads at boot, by file name, in order."""
    _, folder = kernel_of(image)
    return ModuleTree.read(folder).load(MODULES)


def machine_initrd(modules: Mapping[str, bytes], layers: tuple[str, ...], program: tuple[str, ...]) -> bytes:
    """Return the initial RAM disk of the machine: the launcher as PID 1, the ``modules`` by file name, and the plan
    that makes a root of ``layers`` of DISK, bottom first, and becomes ``program``."""
    machine = ReferenceMachine(
        DISK, layers, program, PACKAGES, (f"PYTHONPATH={PACKAGES}", "PYTHONHASHSEED=0", "HOME=/root")
    )
    plan = reference_plan(machine, tuple(f"/{MODULES_PATH}/{name}" for name in modules))
    return make_base_archive(STATIC_BINARY.read_bytes(), modules) + make_plan_archive(encode(plan))
