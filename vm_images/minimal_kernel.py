"""The minimal guest kernel: built from the distribution's kernel source, with ``kernel.config`` and nothing else.

The source is taken from its package without installing it. No modules, no boot loader's wrapping: the result is
the ELF file that QEMU enters directly. Equal source, options and compiler give equal bits.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from runtime.atomic import partial
from runtime.errors import PrerequisiteError
from runtime.images.space import require_space
from vm_images.bzimage import has_pvh_entry
from vm_images.kernel import GuestKernel, Package, describe, download, find_stored_kernel, query_package, read_kernel

FRAGMENT = Path(__file__).with_name("kernel.config")
# Debian's and Ubuntu's name; it depends on the package of the current release.
META_PACKAGE = "linux-source"
# Beyond gcc and make: the parsers of its configuration and device tables, its constants, objtool, the archive.
BUILD_PACKAGES = ("gcc", "libc6-dev", "make", "flex", "bison", "bc", "libelf-dev", "xz-utils", "bzip2")
# Part of the directory's name: to be raised when equal inputs should give another kernel.
_FORMAT = 1
# 1.5 GB of source, 0.3 GB of objects.
_BUILD_BYTES = 3 << 30
_SHOWN_LINES = 20
# Else who built it, where, when and how often would be in its banner.
_FIXED = {
    "KBUILD_BUILD_USER": "testbed",
    "KBUILD_BUILD_HOST": "testbed",
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan 1 00:00:00 UTC 1970",
    "KBUILD_BUILD_VERSION": "1",
    "LC_ALL": "C",
}

Progress = Callable[[str], None]


def parse_options(text: str) -> tuple[str, ...]:
    """Return the lines of a configuration, or of a fragment of one, that set an option."""
    return tuple(line.strip() for line in text.splitlines() if line.strip().startswith("CONFIG_"))


def find_refused(fragment: str, config: str) -> tuple[str, ...]:
    """Return the fragment's lines that the kernel's configuration ``config`` does not have.

    Kconfig drops in silence what it does not know and what depends on something that is off.
    """
    taken = set(parse_options(config))
    set_at_all = {line.partition("=")[0] for line in taken}
    return tuple(
        line
        for line in parse_options(fragment)
        if not (line in taken or (line.endswith("=n") and line.removesuffix("=n") not in set_at_all))
    )


def source_package() -> Package:
    """Return the package with the kernel's source. Raises PrerequisiteError when the package lists have none."""
    meta = query_package(META_PACKAGE)
    for name in meta.depends if meta else ():
        if name.startswith("linux-source-") and (package := query_package(name)) is not None:
            return package
    raise PrerequisiteError(
        f"no kernel source: apt knows no {META_PACKAGE}",
        "run `apt-get update`, and check that the host's package sources offer it",
    )


def missing_packages(names: Iterable[str] = BUILD_PACKAGES) -> tuple[str, ...]:
    """Return those that dpkg does not have installed. Raises PrerequisiteError without dpkg."""
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n", *names]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    except OSError as error:
        raise PrerequisiteError(f"look for build packages: {error}", "build it on Debian or Ubuntu") from error
    return tuple(name for name in names if f"installed {name}" not in listed)


def install_packages(names: tuple[str, ...], progress: Progress) -> None:
    """Install the packages, after saying which. Raises PrerequisiteError, naming them, without root or sources."""
    if not names:
        return
    by_hand = f"as root: apt-get install --no-install-recommends {' '.join(names)}"
    if os.geteuid() != 0:
        raise PrerequisiteError(f"the kernel's build needs packages: {' '.join(names)}", by_hand)
    progress(f"installing what the kernel's build needs: {' '.join(names)}")
    command = ["apt-get", "-o", "DPkg::Lock::Timeout=120", "install", "--yes", "--no-install-recommends", *names]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PrerequisiteError(
            f"install {' '.join(names)}: {done.stderr.strip()}", f"run `apt-get update`, or {by_hand}"
        )


def _unpack(root: Path, folder: Path) -> Path:
    """Unpack the archive of the source that is somewhere below ``root``, and return the source's directory."""
    archives = [path for path in sorted(root.rglob("linux-source-*.tar.*")) if path.is_file() and not path.is_symlink()]
    if len(archives) != 1:
        raise PrerequisiteError(f"expected one archive of source in the package, found {len(archives)}", "report this")
    done = subprocess.run(
        ["tar", "-xf", str(archives[0]), "-C", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise PrerequisiteError(
            f"unpack {archives[0].name}: {done.stderr.strip()}", f"check the free space of {folder}"
        )
    return folder / archives[0].name.partition(".tar")[0]


def _run(command: list[str], what: str, **environment: str) -> str:
    """Run a part of the build in a process group, ended as a whole when we are interrupted; its output."""
    with subprocess.Popen(
        command,
        env={**os.environ, **_FIXED, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        shown = "\n".join(output.splitlines()[-_SHOWN_LINES:])
        raise PrerequisiteError(
            f"{what}: {command[0]} exited with {process.returncode}:\n{shown}", "look for the first error above"
        )
    return output


def configure(source: Path, fragment: Path = FRAGMENT) -> None:
    """Write the source's ``.config``: the fragment's options, what they need, and no other.

    Raises PrerequisiteError that names the options which this kernel does not take.
    """
    _run(["make", "-C", str(source), "allnoconfig"], "configure the guest kernel", KCONFIG_ALLCONFIG=str(fragment))
    check(fragment, source)


def check(fragment: Path, source: Path) -> None:
    """Raise PrerequisiteError, naming them, for options of the fragment that the source's ``.config`` does not have."""
    lacking = find_refused(fragment.read_text(), (source / ".config").read_text())
    if lacking:
        raise PrerequisiteError(
            f"the kernel in {source.name} does not take {len(lacking)} of the options in {fragment.name}: "
            f"{', '.join(lacking)}",
            f"look their names and dependencies up in this kernel's Kconfig files, and correct {fragment.name}",
        )


def compile_kernel(source: Path) -> Path:
    """Compile the configured source and return the stripped ELF kernel's path. Takes minutes."""
    _run(["make", "-C", str(source), f"-j{os.cpu_count() or 1}", "vmlinux"], "compile the guest kernel")
    stripped = source / "vmlinux.stripped"
    # As the kernel's own build does for its image (arch/x86/boot/compressed/Makefile).
    _run(["objcopy", "-R", ".comment", "-S", str(source / "vmlinux"), str(stripped)], "strip the guest kernel")
    return stripped


def _keep(source: Path, package: Package, target: Path) -> None:
    """Keep in ``target`` what a guest needs, and what a reader of an oops or a manifest does: symbols, options."""
    image = compile_kernel(source)
    check(FRAGMENT, source)
    if not has_pvh_entry(image.read_bytes()):
        raise PrerequisiteError("the kernel that was built has no PVH entry", f"check CONFIG_PVH in {FRAGMENT.name}")
    image.rename(target / "vmlinux")
    (source / "System.map").rename(target / "System.map")
    (source / ".config").rename(target / "config")
    release = (source / "include" / "config" / "kernel.release").read_text().strip()
    describe(GuestKernel(target, release, package.name, package.version, True, ()))


def _compiler() -> str:
    return subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout.partition("\n")[0]


def build_minimal_kernel(guest_root: Path, progress: Progress) -> GuestKernel:
    """Build the minimal kernel of the current source package, options and compiler, unless ``guest_root`` has it.

    Raises PrerequisiteError for missing packages, space or options, and when the compiler fails.
    """
    install_packages(missing_packages(), progress)
    package = source_package()
    inputs = (package.sha256, FRAGMENT.read_text(), _compiler())
    digest = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
    folder = guest_root / f"minimal-{package.version}-{digest[:12]}-{_FORMAT}"
    if not folder.exists():
        require_space(guest_root, _BUILD_BYTES, "building the guest kernel")
        with partial(folder) as target:
            scratch = target / "build"
            scratch.mkdir(parents=True)
            progress(f"downloading {package.name} {package.version}")
            root = download((package,), scratch)
            progress("unpacking it")
            source = _unpack(root, scratch)
            configure(source)
            progress("compiling it, which takes 5 to 20 minutes on two processors")
            _keep(source, package, target)
            shutil.rmtree(scratch)
    return read_kernel(folder)


def find_stored_minimal_kernel(guest_root: Path) -> GuestKernel:
    """Return the minimal kernel that was built last. Raises PrerequisiteError when none was."""
    kernel = find_stored_kernel(guest_root, f"minimal-*-{_FORMAT}")
    if kernel is None:
        raise PrerequisiteError(f"there is no minimal guest kernel below {guest_root}", "run `./invoke images.kernel`")
    return kernel
