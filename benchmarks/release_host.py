"""Runs a command of this checkout on a host of another release: in a container of our own runtime, with its root.

    sudo .venv/bin/python benchmarks/release_host.py [--fresh] [--beside] trixie [COMMAND...]

Without a command it is `./invoke doctor`. The root is made once, by mmdebstrap, and kept below the store (hosts/): what
./invoke installs there the first time is there the next. It has a clone of this checkout, with what is not committed
yet, at /srv/testbed. The container has the host's kernel, devices, cgroups and network, and all privileges that the
caller has, for the testbed must be able to do everything there; its mounts, processes and file system are its own, and
end with it. It is no boundary that holds anything back.

It takes the turn of a run on this host, waiting for one that is measured (--beside: without).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from runtime.atomic import partial  # noqa: E402
from runtime.config.default import DEFAULT_PATH  # noqa: E402
from runtime.errors import PrerequisiteError  # noqa: E402
from runtime.home import store_root  # noqa: E402
from runtime.images.base import apt_options, ensure_system, proxy_environment, read_host, release_inputs  # noqa: E402
from runtime.images.releases import choose_release  # noqa: E402
from runtime.images.store import Store  # noqa: E402
from runtime.launcher.build import COMMAND  # noqa: E402
from runtime.lease import STATE_ROOT, cgroup_name, lease  # noqa: E402
from runtime.plan.constants import CAPABILITIES  # noqa: E402
from testbed.host.turn import take_turn  # noqa: E402
from testbed.progress import print_progress  # noqa: E402

# Beside what ./invoke installs: what every installed system has.
PACKAGES = ("ca-certificates", "git", "mount", "passwd", "procps", "util-linux")
CHECKOUT = "srv/testbed"
# How this host reaches a package index, as far as it is said by files: pip's own, and the authorities it trusts.
INDEX_FILES = ("/etc/pip.conf", "/etc/xdg/pip", "/root/.config/pip", "/root/.pip", "/etc/ssl/certs")
INDEX_VARIABLES = re.compile(r"(PIP|SSL)_[A-Z_]+")
_PATH = re.compile(r"(?:file://)?(/[^\s'\"]+)")


def find_index_paths(configuration: str) -> tuple[str, ...]:
    """Return the absolute paths in the output of ``pip config list``: packages that lie on this host's disk. Of an
    index it is the directory above, as the files lie beside its pages (PEP 503's ``simple``)."""
    words = (word for line in configuration.splitlines() for word in line.partition("=")[2].strip("'\"").split())
    matches = (_PATH.fullmatch(word) for word in words)
    return tuple(dict.fromkeys(match[1].removesuffix("/simple") for match in matches if match))


def bind(path: str, *options: str) -> dict[str, Any]:
    """Return the mount of a path of the host's at the same path inside, with all that is mounted below it."""
    return {"destination": path, "type": "bind", "source": path, "options": ["rbind", *options]}


def configuration(
    rootfs: Path, command: Sequence[str], cgroup: str, capabilities: Sequence[str], readable: Iterable[str],
    environment: Mapping[str, str],
) -> dict[str, Any]:  # fmt: skip
    """Return the OCI configuration of the container: its own processes and mounts, everything else the host's."""
    sets = ("bounding", "effective", "permitted")
    return {
        "ociVersion": "1.2.0",
        "root": {"path": str(rootfs), "readonly": False},
        "process": {
            # The shell reaps what is left of others, which is the first process's to do.
            "args": ["/bin/sh", "-c", '"$@"; exit $?', "sh", *command],
            "cwd": f"/{CHECKOUT}",
            "env": [f"{name}={value}" for name, value in environment.items()],
            "user": {"uid": 0, "gid": 0},
            "terminal": False,
            "noNewPrivileges": False,
            "capabilities": {each: list(capabilities) for each in sets},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            bind("/sys"),
            bind("/dev"),
            {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            # Who cleans up after runs, here or there, must see those that are alive.
            bind(str(STATE_ROOT)),
            *(bind(path, "ro") for path in readable),
        ],
        "linux": {
            "cgroupsPath": f"/{cgroup}",
            "namespaces": [{"type": "mount"}, {"type": "pid"}],
            "resources": {"devices": [{"allow": True, "access": "rwm"}]},
        },
    }


def own_capabilities(status: str) -> tuple[str, ...]:
    """Return the names of the effective capabilities in the text of /proc/self/status."""
    mask = int(re.findall(r"^CapEff:\s+([0-9a-f]+)", status, re.MULTILINE)[0], 16)
    return tuple(name for number, name in enumerate(CAPABILITIES) if mask >> number & 1)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Wait until nobody else uses the root that is or will be ``folder``, and hold it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)  # set-user-ID programs are below
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_progress(f"waiting for another command in {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure_root(release: str, folder: Path, fresh: bool) -> Path:
    """Return ``folder``, the root of a release, made of an image with its packages the first time."""
    if fresh and folder.exists():
        shutil.rmtree(folder)
    if not folder.exists():
        inputs = release_inputs(release, PACKAGES)
        image = ensure_system(Store(store_root() / "images"), inputs, f"testbed/host:{release}", print_progress)
        with partial(folder) as unfinished:
            run("cp", "--archive", "--no-target-directory", str(image.layers[0].path), str(unfinished))
    options = folder / "etc/apt/apt.conf.d/99testbed-host"
    options.write_text("".join(f"{line}\n" for line in apt_options()))
    shutil.copyfile("/etc/resolv.conf", folder / "etc/resolv.conf")
    return folder


def renew_checkout(target: Path) -> None:
    """Make ``target`` a clone of this checkout as it is now; what git ignores there, such as .venv, stays."""
    ours, theirs = ("git", "-C", str(ROOT)), ("git", "-C", str(target))
    if not target.exists():
        run(*ours, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(target))
    run(*theirs, "fetch", "--quiet", str(ROOT), "HEAD")
    run(*theirs, "reset", "--quiet", "--hard", "FETCH_HEAD")
    run(*theirs, "clean", "--quiet", "-d", "--force")
    changed = run(*ours, "ls-files", "-z", "--modified", "--others", "--exclude-standard").split("\0")
    for name in filter(None, changed):
        (target / name).unlink(missing_ok=True)
        if (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run(*command: str) -> str:
    """Run a command and return its output. Raises PrerequisiteError with what it says if it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"{command[0]} is not installed", f"apt-get install {command[0]}") from error
    if done.returncode:
        raise PrerequisiteError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def perform_inside(release: str, fresh: bool, beside: bool, command: Sequence[str]) -> int:
    """Run the command on a host of that release and return its exit status."""
    if os.geteuid() != 0:
        raise PrerequisiteError("a host of another release needs root: mounts and cgroups", "run it with sudo")
    owner = f"release-{os.getpid()}"
    with ExitStack() as undo:
        if not beside:
            undo.enter_context(take_turn(owner, wait=True, progress=print_progress))
        scratch = undo.enter_context(lease(owner))
        folder = store_root() / "hosts" / choose_release(release, read_host()).codename
        undo.enter_context(held(folder))
        rootfs = ensure_root(release, folder, fresh)
        renew_checkout(rootfs / CHECKOUT)
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
        )
        paths = [path for path in (*INDEX_FILES, *find_index_paths(asked.stdout)) if Path(path).exists()]
        outer = [path for path in dict.fromkeys(paths) if not any(path.startswith(f"{each}/") for each in paths)]
        environment = {
            "PATH": DEFAULT_PATH,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            **proxy_environment(os.environ),
            **{name: value for name, value in os.environ.items() if INDEX_VARIABLES.fullmatch(name)},
        }
        capabilities = own_capabilities(Path("/proc/self/status").read_text())
        config = configuration(rootfs, command, cgroup_name(owner, "host"), capabilities, outer, environment)
        (scratch / "config.json").write_text(json.dumps(config))
        called = [str(COMMAND), "--root", str(scratch / "state"), "run", "--bundle", str(scratch), owner]
        process = undo.enter_context(subprocess.Popen(called, stdin=subprocess.DEVNULL))
        try:
            return process.wait()
        finally:
            delete = [*called[:3], "delete", "--force", owner]
            subprocess.run(delete, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def main() -> None:
    """Parse, run, and end with the command's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", help="bookworm, trixie or noble")
    parser.add_argument("--fresh", action="store_true", help="make the root anew")
    parser.add_argument("--beside", action="store_true", help="beside a run that is measured, which it disturbs")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what is run there (default: ./invoke doctor)")
    given = parser.parse_args()
    sys.exit(perform_inside(given.release, given.fresh, given.beside, given.command or ["./invoke", "doctor"]))


if __name__ == "__main__":
    perform(main)
