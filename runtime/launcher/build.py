"""Compiles the launcher, a static binary without a C library, when a source is newer than it is.

Its sources are the C files, and the classes of steps: what both sides share is a header made of those (``header``).

python -m runtime.launcher.build             compile
python -m runtime.launcher.build --analyze   look for faults: gcc -fanalyzer, and clang-tidy (.clang-tidy says for what)
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from runtime.atomic import partial
from runtime.errors import PrerequisiteError, TestbedError
from runtime.launcher.header import operations_header, table_header

HERE = Path(__file__).resolve().parent
# What performs plans, what asks for them on the command line, and what chooses between the two.
FOLDERS = (HERE / "executor", HERE / "client", HERE)
GENERATED = HERE / "generated"
INCLUDES = tuple(f"-I{folder}" for folder in (*FOLDERS, GENERATED))
# What the header is made of.
_SHARED = (HERE / "header.py", HERE / "messages.py", HERE.parent / "plan" / "encode.py")
_STEPS = HERE.parent / "plan" / "steps"
BINARY = HERE / "testbed-launcher"
# The same with another interpreter behind it, for images of hosts.
IMAGE_BINARY = HERE / "testbed-launcher-image"
# What the command line imports of installed packages; it sees no others, some of which cost milliseconds to import.
PACKAGES = Path(sys.prefix, "lib", "testbed-runtime")
NEEDED = Path(msgspec.__file__).parent
# The command line: the launcher under another name (client/client.c).
COMMAND = Path(sys.executable).with_name("testbed-runtime")
# All functions that perform a step take one, also those that need nothing of it.
WARNINGS = ("-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wno-unused-parameter")
# A position-independent binary with no writable code, no lazy binding, no executable stack, and a checked stack whose
# secret start.c draws. Freestanding: fortified functions are a C library's and there is none.
HARDENING = (
    "-O2",
    "-fPIE",
    "-fno-tree-slp-vectorize",  # it makes tables of pointers, which nothing would relocate
    "-static-pie",
    "-fstack-protector-strong",
    "-mstack-protector-guard=global",
    "-fstack-clash-protection",
    "-ftrivial-auto-var-init=zero",
    "-Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code",
)
# The same of a program that has a C library: static, so that it runs in another release of the system, too.
STATIC = (
    *("-O2", "-fPIE", "-static-pie", "-fstack-protector-strong", "-fstack-clash-protection"),
    *("-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),  # some distributions' compilers define it themselves
    "-Wl,-z,relro,-z,now,-z,noexecstack",
)
FREESTANDING = (
    "-D_GNU_SOURCE",
    "-nostdlib",
    "-ffreestanding",
    "-fno-builtin",
    "-Wl,--no-dynamic-linker,--build-id=none",
)


def generate() -> None:
    """Write the headers that are made of the classes of steps, where they are missing or say something else."""
    GENERATED.mkdir(exist_ok=True)
    for name, text in (("operations.h", operations_header()), ("table.h", table_header())):
        path = GENERATED / name
        if not path.exists() or path.read_text() != text:
            with partial(path) as unfinished:
                unfinished.write_text(text)


def sources() -> list[str]:
    """The paths of all C files; what they include is there afterwards."""
    generate()
    return sorted(str(path) for folder in FOLDERS for path in folder.glob("*.c"))


def version() -> str:
    """What tells this runtime from others: its sources' digest, and where they are."""
    import hashlib

    digest = hashlib.sha256(str(HERE).encode())
    for path in sorted((*HERE.parent.rglob("*.py"), *(path for folder in FOLDERS for path in folder.glob("*.[ch]")))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def command(python: str = sys.executable, packages: Path = PACKAGES) -> list[str]:
    """The compiler's command line, without its output; ``python`` is the interpreter behind the command line, and
    ``packages`` a directory to import from."""
    places = [f'-DPYTHON="{python}"', f'-DPACKAGES="{packages}"', f'-DVERSION="{version()}"']
    return [os.environ.get("CC", "gcc"), *places, *INCLUDES, *WARNINGS, *HARDENING, *FREESTANDING, *sources()]


def is_current(output: Path) -> bool:
    """Whether ``output`` exists and no source is newer."""
    written = (path for folder in FOLDERS for path in folder.glob("*.[ch]"))
    inputs = [*written, *_SHARED, *_STEPS.glob("*.py"), Path(__file__)]
    return output.exists() and output.stat().st_mtime >= max(path.stat().st_mtime for path in inputs)


def build() -> None:
    """Compile what is out of date, and in a virtual environment install the command line.

    Raises PrerequisiteError without a compiler, TestbedError when it fails.
    """
    build_for(sys.executable, PACKAGES, BINARY)
    if sys.prefix != sys.base_prefix:
        PACKAGES.mkdir(exist_ok=True)
        _link(PACKAGES / NEEDED.name, NEEDED)
        _link(COMMAND, BINARY)


def analyze() -> None:
    """Have the analyzers look for faults in the launcher; errors as ``find_faults``."""
    find_faults(sources(), ("-ffreestanding", *INCLUDES))


def find_faults(paths: Sequence[str], flags: Sequence[str]) -> None:
    """Have gcc and clang-tidy look for faults in C files. Raises PrerequisiteError without them, TestbedError for what
    they find; they print it themselves."""
    commands = [["gcc", *WARNINGS, *flags, "-O2", "-fanalyzer", "-c", "-o", os.devnull, path] for path in paths]
    config = f"--config-file={HERE / '.clang-tidy'}"
    commands.append(["clang-tidy", "--quiet", config, *paths, "--", "-std=gnu11", "-D_GNU_SOURCE", *flags])
    failed = []
    for command in commands:
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError as error:
            raise PrerequisiteError(f"analyze C: {error}", f"install {command[0]}") from error
        if done.returncode:  # else it only counts what .clang-tidy leaves out
            print(done.stderr, file=sys.stderr)
            failed.append(command[0])
    if failed:
        raise TestbedError(f"analyze C: {', '.join(dict.fromkeys(failed))} found something")


def _link(path: Path, target: Path) -> None:
    if not (path.is_symlink() and path.resolve() == target):
        path.unlink(missing_ok=True)
        path.symlink_to(target)


def build_for(python: str, packages: Path, binary: Path) -> None:
    """Compile ``binary``, whose interpreter is ``python``, if it is out of date; errors as ``build``."""
    if not is_current(binary):
        compile_program(command(python, packages), binary)


def compile_program(command: Sequence[str], binary: Path) -> None:
    """Call the compiler, whose command line lacks nothing but its output, and put ``binary`` in place when it is whole;
    errors as ``build``."""
    try:
        with partial(binary) as unfinished:
            subprocess.run([*command, "-o", str(unfinished)], check=True)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"compile {binary.name}: {error}", "install gcc") from error
    except subprocess.CalledProcessError as error:
        raise TestbedError(f"compile {binary.name}: gcc exited with {error.returncode}") from error


class StaticProgram(msgspec.Struct, frozen=True):
    """A static program that has a C library: ``binary``, made of the C files in ``folder``. ``module`` is the file that
    says so, which counts as a source."""

    folder: Path
    binary: Path
    module: Path

    def sources(self) -> list[str]:
        """Return the paths of all C files."""
        return sorted(str(path) for path in self.folder.glob("*.c"))

    def is_current(self) -> bool:
        """Return whether the binary exists and no source is newer; where there is no source, none is."""
        if not self.binary.exists() or not self.sources():
            return self.binary.exists()
        written = [path.stat().st_mtime for path in (*self.folder.glob("*.[ch]"), self.module)]
        return self.binary.stat().st_mtime >= max(written)

    def build(self) -> Path:
        """Compile the binary if it is out of date, and return its path. Raises PrerequisiteError without a compiler,
        TestbedError when it fails."""
        if not self.is_current():
            compile_program([os.environ.get("CC", "gcc"), *WARNINGS, *STATIC, *self.sources()], self.binary)
        return self.binary

    def analyze(self) -> None:
        """Have the analyzers look for faults; errors as ``find_faults``."""
        find_faults(self.sources(), ())


def do_as_asked(build: Callable[[], object], analyze: Callable[[], None]) -> None:
    """Compile a program, or with ``--analyze`` look for faults in it: the command line of a module like this one."""
    try:
        analyze() if sys.argv[1:] == ["--analyze"] else build()
    except TestbedError as problem:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    do_as_asked(build, analyze)
