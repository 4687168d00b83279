"""The guest's kernel: the distribution's own cloud kernel, taken from its package without installing it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from runtime.atomic import partial, read_document
from runtime.errors import PrerequisiteError
from vm_images.bzimage import extract_vmlinux, has_pvh_entry
from vm_images.modules import (
    BALLOON_MODULES,
    GUEST_MODULES,
    HOST_MODULES,
    PORT_MODULES,
    SCSI_MODULES,
    SHARE_MODULES,
    XEN_MODULES,
    ModuleTree,
)

# Debian's and Ubuntu's kernels for virtual machines; the first that the package sources have is taken.
META_PACKAGES = ("linux-image-cloud-amd64", "linux-image-virtual")
# Part of the directory's name: to be raised when what is stored of a package changes.
_FORMAT = 15
_DESCRIPTION = "kernel.json"


class Package(Struct, frozen=True):
    """A package as the package lists have it; ``sha256`` is that of its .deb file."""

    name: str
    version: str
    depends: tuple[str, ...]
    sha256: str


class GuestKernel(Struct, frozen=True):
    """A kernel ready to boot.

    ``image`` is an ELF file with a PVH entry when ``pvh``, else a bzImage; ``modules`` are plain .ko files in
    the order of loading; after them a guest with a balloon loads ``balloon_modules``, a host of containers
    ``host_modules``, one with a port for commands ``port_modules``, one that mounts directories of the host
    ``share_modules``, if the kernel ``can_share``. A guest of Xen's loads ``xen_modules`` in place of
    all these, and one with its disk on a SCSI bus ``scsi_modules``. One of somebody's ``own`` comes from no package,
    but from a file: ``package`` is its name, ``version`` its digest. A distribution's has its ``bzimage``, too, which
    is what boot loaders take.
    """

    folder: Path
    release: str
    package: str
    version: str
    pvh: bool
    module_names: tuple[str, ...]
    balloon_module_names: tuple[str, ...] = ()
    host_module_names: tuple[str, ...] = ()
    xen_module_names: tuple[str, ...] = ()
    port_module_names: tuple[str, ...] = ()
    share_module_names: tuple[str, ...] | None = None
    own: bool = False
    scsi_module_names: tuple[str, ...] = ()

    @property
    def image(self) -> Path:
        return self.folder / "vmlinux" if self.pvh else self.bzimage

    @property
    def bzimage(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def sha256(self) -> str:
        """The digest of what is booted, in hexadecimal digits."""
        with self.image.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _modules(self, names: Iterable[str]) -> tuple[Path, ...]:
        return tuple(self.folder / "modules" / name for name in names)

    @property
    def modules(self) -> tuple[Path, ...]:
        return self._modules(self.module_names)

    @property
    def balloon_modules(self) -> tuple[Path, ...]:
        return self._modules(self.balloon_module_names)

    @property
    def host_modules(self) -> tuple[Path, ...]:
        return self._modules(self.host_module_names)

    @property
    def xen_modules(self) -> tuple[Path, ...]:
        return self._modules(self.xen_module_names)

    @property
    def port_modules(self) -> tuple[Path, ...]:
        return self._modules(self.port_module_names)

    @property
    def scsi_modules(self) -> tuple[Path, ...]:
        return self._modules(self.scsi_module_names)

    @property
    def can_share(self) -> bool:
        """Whether its guests can mount directories of the host, as far as is known."""
        return self.share_module_names is not None

    @property
    def share_modules(self) -> tuple[Path, ...]:
        return self._modules(self.share_module_names or ())


def parse_package(stanza: str) -> Package:
    """Return the first stanza of ``apt-cache show``'s output; alternatives and versions of dependencies are dropped."""
    fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza.split("\n\n", 1)[0], re.MULTILINE))
    depends = (entry.split("|")[0].split("(")[0].strip() for entry in fields.get("Depends", "").split(","))
    return Package(
        fields["Package"], fields["Version"], tuple(name for name in depends if name), fields.get("SHA256", "")
    )


def query_package(name: str) -> Package | None:
    """Return what the package lists say of a package, None if nothing. Raises PrerequisiteError without apt."""
    try:
        done = subprocess.run(
            ["apt-cache", "show", "--no-all-versions", name], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise PrerequisiteError(f"look up package {name}: {error}", "the guest kernel comes from apt") from error
    return parse_package(done.stdout) if done.returncode == 0 and done.stdout else None


def resolve() -> tuple[Package, ...]:
    """Return the packages that hold the guest kernel and its modules, the kernel's own first.

    Raises PrerequisiteError when the package lists have none.
    """
    for meta in META_PACKAGES:
        pending = list(newest.depends) if (newest := query_package(meta)) else []
        packages: dict[str, Package] = {}
        while pending:
            name = pending.pop(0)
            if name in packages or not name.startswith(("linux-image-", "linux-modules-")):
                continue
            if package := query_package(name):
                packages[name] = package
                pending += package.depends
        if packages:
            return tuple(packages.values())
    raise PrerequisiteError(
        f"no guest kernel: apt knows none of {', '.join(META_PACKAGES)}",
        "run `apt-get update`, and check that the host's package sources offer one of them",
    )


def _run(command: list[str], folder: Path, what: str, hint: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{what}: {error}", hint) from error
    except subprocess.CalledProcessError as error:
        raise PrerequisiteError(f"{what}: {error.stderr.strip() or error.stdout.strip()}", hint) from error


def download(packages: tuple[Package, ...], folder: Path) -> Path:
    """Download packages and unpack them into ``folder``/root, which is returned. Nothing is installed on the host.

    Raises PrerequisiteError with apt's or dpkg's own words.
    """
    names = [f"{package.name}={package.version}" for package in packages]
    # The sandbox user of apt cannot write to a directory of root's, and says so on every call.
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", *names]
    hint = "run `apt-get update` and check that the host's package sources can be reached"
    _run(command, folder, f"download the guest kernel ({' '.join(names)})", hint)
    root = folder / "root"
    for archive in sorted(folder.glob("*.deb")):
        hint = f"check the free space of {folder}"
        _run(["dpkg-deb", "-x", str(archive), str(root)], folder, f"unpack {archive.name}", hint)
    return root


def _release(root: Path) -> str:
    images = sorted((root / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise PrerequisiteError(f"expected one kernel in the package, found {len(images)}", "report this kernel")
    return images[0].name.removeprefix("vmlinuz-")


def _modules_folder(root: Path, release: str) -> Path:
    merged = root / "usr" / "lib" / "modules" / release
    return merged if merged.is_dir() else root / "lib" / "modules" / release


def _keep(root: Path, package: Package, target: Path) -> None:
    """Write what a guest needs of the unpacked packages to the new directory ``target``."""
    release = _release(root)
    bzimage = (root / "boot" / f"vmlinuz-{release}").read_bytes()
    elf = extract_vmlinux(bzimage)
    pvh = has_pvh_entry(elf)
    tree = ModuleTree.read(_modules_folder(root, release))
    modules, further = tree.load(GUEST_MODULES), []
    guest = tuple(modules)
    can_share = tree.has(SHARE_MODULES)
    for wanted in (BALLOON_MODULES, HOST_MODULES, PORT_MODULES, SHARE_MODULES if can_share else ()):
        loaded = tree.load((*GUEST_MODULES, *wanted))
        further.append(tuple(name for name in loaded if name not in guest))
        modules |= loaded
    xen, scsi = tree.load(XEN_MODULES), tree.load(SCSI_MODULES)
    modules |= xen | scsi
    (target / "modules").mkdir()
    (target / "vmlinuz").write_bytes(bzimage)
    if pvh:
        (target / "vmlinux").write_bytes(elf)
    for name, data in modules.items():
        (target / "modules" / name).write_bytes(data)
    balloon, host, port, share = further
    shares = (share if can_share else None,)
    made = (target, release, package.name, package.version, pvh, guest, balloon, host, tuple(xen), port, *shares)
    describe(GuestKernel(*made, scsi_module_names=tuple(scsi)))


def describe(kernel: GuestKernel) -> None:
    """Write down in the kernel's folder what it is, for ``read_kernel``."""
    described = {key: value for key, value in asdict(kernel).items() if key != "folder"}
    (kernel.folder / _DESCRIPTION).write_text(json.dumps(described, indent=1) + "\n")


def read_kernel(folder: Path) -> GuestKernel:
    """Return the kernel stored in ``folder``."""
    kernel = read_document(folder / _DESCRIPTION, GuestKernel, folder=folder)
    if kernel is None:
        raise PrerequisiteError(f"{folder}: it has no {_DESCRIPTION}", "remove it: it is made again")
    return kernel


def find_stored_kernel(guest_root: Path, folders: str) -> GuestKernel | None:
    """Return the kernel that was stored last in a folder whose name matches the pattern, if any."""
    descriptions = sorted(guest_root.glob(f"{folders}/{_DESCRIPTION}"), key=lambda path: path.stat().st_mtime)
    return read_kernel(descriptions[-1].parent) if descriptions else None


def find_stored_guest_kernel(guest_root: Path) -> GuestKernel | None:
    """Return the distribution's kernel below ``guest_root``, if it has been fetched."""
    return find_stored_kernel(guest_root, f"kernel-*-{_FORMAT}")


def ensure_kernel(guest_root: Path) -> GuestKernel:
    """Return the guest kernel below ``guest_root``: the one that is there, else the newest, downloaded.

    A stored kernel stays until it is removed, so that figures of different days can be compared, and
    the network is needed only once. Raises PrerequisiteError when there is none and it cannot be had.
    """
    if (kernel := find_stored_guest_kernel(guest_root)) is not None:
        return kernel
    packages = resolve()
    machines = (*GUEST_MODULES, *XEN_MODULES, *SCSI_MODULES)
    modules = (*machines, *BALLOON_MODULES, *HOST_MODULES, *PORT_MODULES, *SHARE_MODULES)
    inputs = [*(package.sha256 for package in packages), *modules]
    digest = hashlib.sha256("\n".join(inputs).encode())
    folder = guest_root / f"kernel-{packages[0].version}-{digest.hexdigest()[:12]}-{_FORMAT}"
    with partial(folder) as target:
        scratch = target / "download"
        scratch.mkdir(parents=True)
        _keep(download(packages, scratch), packages[0], target)
        shutil.rmtree(scratch)
    return read_kernel(folder)
