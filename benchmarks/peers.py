"""The command lines that are measured: ours, Debian's crun and runc, the newest crun; and the host that crun needs.

The newest crun is a later Debian's, with its own C library: it is unpacked below the store, from the archive that this
host is configured with, and executed by the dynamic loader that came with it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from runtime.atomic import partial
from runtime.errors import PrerequisiteError
from runtime.home import store_root
from runtime.images.base import read_host
from runtime.images.sources import Source, distribution_sources, read_texts, to_deb822
from runtime.plan.constants import CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, MS_REC

REFERENCE = Path(__file__).resolve().parent / "reference"
LAUNCHER = Path(__file__).resolve().parents[1] / "runtime" / "launcher" / "executor"  # for sys.h
NEWEST_SUITE = "sid"


class Peer(Struct, frozen=True):
    """A runtime's command line: the words it begins with, what it has in its environment beside ours, its version."""

    name: str
    words: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    version: str


def make_peer(name: str, words: Sequence[str], settings: Mapping[str, str]) -> Peer | None:
    """A command line that is called ``name``; None when it is not here. Raises TestbedError when it fails."""
    path = shutil.which(words[0])
    if path is None:
        return None
    first = _output([path, *words[1:], "--version"]).partition("\n")[0]
    return Peer(name, (path, *words[1:]), tuple(settings.items()), first.rpartition(" ")[2])


def newest_crun() -> tuple[str, ...]:
    """The command line of the crun of Debian's next release but one, fetched at the first call (10 MB).

    Raises PrerequisiteError when the archive of this host has none, or there is no apt.
    """
    directory = store_root() / "peers" / f"crun-{NEWEST_SUITE}"
    if not directory.exists():
        with partial(directory) as unfinished:
            unfinished.mkdir(mode=0o755)
            _fetch("crun", NEWEST_SUITE, unfinished)
    loaders = sorted(directory.glob("usr/lib/*/ld-linux*.so.*"))
    if not loaders:
        raise PrerequisiteError(f"no dynamic loader of {platform.machine()} in {directory}", "remove that directory")
    return (str(loaders[0]), "--library-path", str(loaders[0].parent), str(directory / "usr/bin/crun"))


def _fetch(package: str, suite: str, directory: Path) -> None:
    """Unpack a package of another release, and all that it depends on, into ``directory``."""
    codename = read_host().codename
    configured = distribution_sources(read_texts(Path("/etc/apt")), codename)
    archive = next((source for source in configured if codename in source.suites), None)
    if archive is None:
        raise PrerequisiteError(f"no package source for {codename} in /etc/apt", "configure one: sources.list(5)")
    work = directory / "apt"
    for name in ("state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    sources = work / "archive.sources"
    sources.write_text(to_deb822([Source(archive.uris, (suite,), ("main",), archive.options)]))
    settings = {
        "Dir::State": work / "state",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    _output([*apt, "update"])
    _output([*apt, "install", "--yes", "--download-only", package])
    for archive_file in sorted((work / "cache" / "archives").glob("*.deb")):
        _output(["dpkg-deb", "--extract", str(archive_file), str(directory)])
    shutil.rmtree(work)


def _output(command: Sequence[str]) -> str:
    """What a command prints; PrerequisiteError, with the last of what it said, when it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{command[0]} is not installed", "it comes with Debian") from error
    if done.returncode:
        last = "\n    ".join(done.stderr.strip().splitlines()[-4:])
        raise PrerequisiteError(f"{' '.join(command)}: exit status {done.returncode}\n    {last}")
    return done.stdout


def compile_program(source: str, output: Path, *options: str) -> Path:
    """Compile a static program of ``reference/``, without a C library. Raises PrerequisiteError."""
    flags = ["-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", f"-I{LAUNCHER}"]
    _output(["gcc", *flags, *options, "-o", str(output), str(REFERENCE / source)])
    return output


def wrap(peer: Peer, more: Sequence[str], output: Path) -> Path:
    """A program that executes the peer's command line, with ``more`` words and its settings, for who takes a path."""
    words = ",".join(_quoted(word) for word in (*peer.words, *more))
    settings = "".join(f"{_quoted(f'{name}={value}')}," for name, value in peer.settings)
    return compile_program("wrapper.c", output, f"-DWORDS={words}", f"-DSETTINGS={settings}")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@contextmanager
def mount_namespace(directory: Path) -> Iterator[Path]:
    """A mount namespace of our own in which crun works; the value, ``directory``, is a tmpfs there, as /run is on a
    host with systemd.

    crun refuses a host that has some controllers in each version of cgroups; there such a one has the first alone.
    Raises PrerequisiteError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/mnt").open("rb") as before, ExitStack() as undo:
        undo.callback(os.chdir, Path.cwd())
        _check(libc.unshare(CLONE_NEWNS), "make a mount namespace")
        undo.callback(libc.setns, before.fileno(), CLONE_NEWNS)
        _check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "make / private")
        where = str(directory).encode()
        _check(libc.mount(b"tmpfs", where, b"tmpfs", 0, b"mode=755"), f"mount a tmpfs on {directory}")
        undo.callback(libc.umount2, where, MNT_DETACH)
        if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            libc.umount2(b"/sys/fs/cgroup/unified", MNT_DETACH)  # EINVAL: there is none
        yield directory


def _check(answer: int, what: str) -> None:
    if answer:
        raise PrerequisiteError(f"{what}: {os.strerror(ctypes.get_errno())}", "run as root, or through sudo")
