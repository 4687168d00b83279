"""Everything that determines what the reference machine does, laid out as files, with their digest.

The machine's one disk has every layer as a directory, that of its own system, of the scenario's images and of what
guests need; beside them, as one more layer, a sealed store, the scenario and the job. Nothing is fetched inside.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime import atomic
from runtime.errors import PrerequisiteError
from runtime.files import read_bounded
from runtime.home import SEAL, store_root
from runtime.images.merging import link_merged
from runtime.images.model import Image, ImageConfig, Layer
from runtime.images.oci import EPOCH_S
from runtime.images.space import MIB, require_space
from runtime.images.store import Store, open_store
from testbed.images import image_name
from testbed.load.build import GENERATOR
from testbed.machine import emulator
from testbed.machine.job import GUEST_KERNEL, JOB, SCENARIOS, Job
from testbed.machine.systems import choose_system
from testbed.platforms.registry import MACHINES
from testbed.probes.build import PROGRAM as PROBES
from testbed.qemu.variants import Variant
from testbed.sampler.build import SAMPLER
from vm_images.cloud import ensure_cloud
from vm_images.container_host import ensure_host_image
from vm_images.disk import ensure_disk, ensure_layer_disk, layer_name
from vm_images.guest import ensure_guest
from vm_images.plans.container_host import LAYERS
from vm_images.reference import (
    INTERPRETER,
    System,
    ensure_reference_image,
    kernel_of,
    machine_initrd,
    read_modules,
)
from vm_images.virtualbox import read_virtualbox_modules, virtualbox_kernel_of
from vm_images.xen import domain_0_kernel_of, read_domain_0_modules, read_hypervisor

PROGRAM = (INTERPRETER, "-B", "-m", "testbed.machine.inside")
# What the machine's store is called there (runtime.home).
_STORE = Path("/var/lib/testbed")
# The layer with the store, the scenario and the job: above all others of the machine's own root.
_INPUTS = "sha256:inputs"
# Measured with clickme: the image, then the disk; a scenario's own images come to it.
_LONGEST_VERSION = 4096
NEEDED_BYTES = 3000 * MIB
# A device's memory begins and ends at these (docs/nvdimm.txt of QEMU: align).
_ALIGNMENT = 2 << 20


class Inputs(Struct, frozen=True):
    """A machine ready to be emulated: the layers of the ``emulator``'s root, bottom first, the ``folder`` with
    ``machine/``, the disk's length, the sha256 of each part by name, and what it is booted as."""

    emulator: tuple[Path, ...]
    folder: Path
    disk_bytes: int
    digests: Mapping[str, str]
    system: System = "kvm"

    @property
    def files(self) -> Path:
        """The directory of the machine's files."""
        return self.folder / emulator.FOLDER.name

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the emulator's container, bottom first: its root's, and the machine's files."""
        return (*map(str, self.emulator), str(self.folder))

    @property
    def layer_names(self) -> tuple[str, ...]:
        """What the emulator's layers are called, also on the machine's disk."""
        return tuple(path.name for path in self.emulator)

    @property
    def digest(self) -> str:
        """The one digest over all parts."""
        return combined_digest(self.digests)


def combined_digest(digests: Mapping[str, str]) -> str:
    """Return the sha256 over names and digests, in the order of names: ``sha256sum``'s lines."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _stored(
    variant: Variant, images: Iterable[Image], progress: Callable[[str], None]
) -> tuple[list[Image], set[Path]]:
    """Return the further images and the paths in the guests' store that machines of a variant need; they are made first
    if they are missing."""
    root = store_root() / "guest"
    paths = {ensure_guest(root, variant.kernel).kernel.folder}
    further: list[Image] = []
    if variant.inside == "containers":
        further = [ensure_host_image(open_store(), progress)]
        paths.add(ensure_layer_disk(root / "disks", (*further, *images)))
    else:
        paths |= {ensure_disk(root / "disks", image, variant.disk.file_system) for image in images}
    if variant.boot == "cloud":
        paths.add(ensure_cloud(root, progress).folder)
    return further, paths


def require_room() -> None:
    """Raise PrerequisiteError, which says how much is needed, without the disk or the memory for the machine."""
    require_space(store_root(), NEEDED_BYTES, "making the reference machine")
    available_kib = int(Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0])
    if available_kib >> 10 < emulator.MEMORY_MIB:
        raise PrerequisiteError(
            f"the reference machine has {emulator.MEMORY_MIB} MiB of memory; {available_kib >> 10} MiB are available",
            "end what uses memory on this host, or take a host with 8 GiB",
        )


def ensure_machine_image(store: Store, progress: Callable[[str], None], system: System = "kvm") -> Image:
    """Build the machine's image, with the programs of this checkout that measure, unless the store has it; errors as
    ``vm_images.reference.ensure_reference_image``."""
    programs = (GENERATOR.build(), SAMPLER.build(), PROBES.build())
    return ensure_reference_image(store, programs, progress, system)


@contextmanager
def inputs(
    job: Job,
    scenario: Path,
    images: Mapping[str, Image],
    name: str,
    progress: Callable[[str], None],
    guest_kernel: Path | None = None,
) -> Iterator[Inputs]:
    """Make the machine's files below the store, and remove them at the end.

    ``images`` are the scenario's, by service; ``scenario`` is its folder, ``guest_kernel`` a file for guests. Raises
    PrerequisiteError for whatever the host lacks.
    """
    store = open_store()
    system = choose_system(job.platforms)
    own = ensure_machine_image(store, progress, system)
    needed = [replace(image, reference=image_name(job.scenario, service)) for service, image in images.items()]
    paths = set[Path]()
    for variant in (MACHINES[platform] for platform in job.platforms if platform in MACHINES):
        further, stored = _stored(variant, tuple(images.values()), progress)
        needed += [image for image in further if image not in needed]
        paths |= stored
    with atomic.scratch(store_root() / "guest" / f"machine-{name}") as folder:
        tree = folder / "inputs"
        _lay_out(tree, store, job, scenario, needed, paths)
        if guest_kernel is not None:
            copy = tree / GUEST_KERNEL.relative_to("/")
            shutil.copyfile(guest_kernel, copy)
        _set_times(tree)
        progress("reference machine: writing its disk")
        layer = Layer(_INPUTS, tree)
        made = assemble(folder, own, (layer,), PROGRAM, needed, system)
        shutil.rmtree(tree)
        yield made


def assemble(
    folder: Path,
    own: Image,
    added: Sequence[Layer],
    program: Sequence[str],
    further: Collection[Image] = (),
    system: System = "kvm",
) -> Inputs:
    """Write the files of a machine into ``folder``, which is on the store's file system, and return it.

    Its root is made of the layers of ``own``, bottom first, and above them those ``added``; it becomes ``program``. The
    layers of ``further`` images are on its disk, too. ``own`` is the image of the ``system``.
    """
    files = folder / emulator.FOLDER.name
    files.mkdir(parents=True)
    on_disk = [own, *further, Image("inputs", _INPUTS, ImageConfig(), tuple(added))]
    ensure_layer_disk(folder / "disks", on_disk).rename(files / emulator.DISK)
    shutil.rmtree(folder / "disks")
    disk_bytes = -(-(files / emulator.DISK).stat().st_size // _ALIGNMENT) * _ALIGNMENT
    os.truncate(files / emulator.DISK, disk_bytes)
    layers = tuple(layer_name(layer) for layer in (*own.layers, *added))
    if system == "xen":
        kernel, modules = domain_0_kernel_of(own), read_domain_0_modules(own)
        (files / emulator.XEN).write_bytes(read_hypervisor(own))
    elif system == "virtualbox":
        kernel, modules = virtualbox_kernel_of(own), read_virtualbox_modules(own)
    else:
        kernel, modules = kernel_of(own)[0], read_modules(own)
    shutil.copyfile(kernel, files / emulator.KERNEL)
    (files / emulator.INITRD).write_bytes(machine_initrd(modules, layers, tuple(program)))
    for path in files.iterdir():
        path.chmod(0o444)
    digests = _digests(own, files, disk_bytes, system)
    return Inputs(tuple(layer.path for layer in own.layers), folder, disk_bytes, digests, system)


def _lay_out(tree: Path, store: Store, job: Job, scenario: Path, images: list[Image], paths: Iterable[Path]) -> None:
    """Write the layer with the sealed store, the scenario and the job."""
    inside = tree / _STORE.relative_to("/")
    inside.mkdir(parents=True)
    (inside / SEAL).touch()
    store.copy_index(images, inside / "images", LAYERS)
    link_merged(images, inside / "images", LAYERS)
    guest = store_root() / "guest"
    for path in sorted(paths):
        target = inside / "guest" / path.relative_to(guest)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, copy_function=os.link)
        else:
            os.link(path, target)
    shutil.copytree(scenario, tree / SCENARIOS.relative_to("/") / job.scenario)
    (tree / JOB.relative_to("/")).write_bytes(msgspec.json.encode(job))


def _set_times(tree: Path) -> None:
    """Give all that is not a link to a file of the store's the same time."""
    linked = tree / _STORE.relative_to("/") / "guest"
    for directory, folders, names in os.walk(tree, topdown=False):
        own = [] if Path(directory).is_relative_to(linked) else names  # links are the store's own files
        for name in (*own, *folders):
            os.utime(Path(directory, name), (EPOCH_S, EPOCH_S), follow_symlinks=False)
    os.utime(tree, (EPOCH_S, EPOCH_S))


def _digests(image: Image, files: Path, disk_bytes: int, system: System) -> dict[str, str]:
    command = "\0".join(emulator.emulator_command(disk_bytes, system=system))
    return {
        "command": hashlib.sha256(command.encode()).hexdigest(),
        "emulator": image.id.removeprefix("sha256:"),
        **{path.name: file_digest(path) for path in sorted(files.iterdir())},
    }


def read_qemu_version(layers: Iterable[Path]) -> str:
    """Return the version of the emulator in these layers, which it wrote down when it was built."""
    paths = [layer / f"{emulator.QEMU}.version".lstrip("/") for layer in layers]
    written = next((path for path in paths if path.is_file()), None)
    if written is None:
        raise PrerequisiteError(f"the reference machine's image has no {emulator.QEMU}", "report it")
    return read_bounded(written, _LONGEST_VERSION).decode(errors="replace").strip()
