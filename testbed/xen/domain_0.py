"""Domain 0: the guest of Xen's that has the devices and starts the others; whether this system is it, and its services.

A system that Xen has booted usually has its services started by systemd. The reference machine has none and starts them
here, as children of whoever measures, so that their work is not taken for somebody else's.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from runtime.errors import PrerequisiteError
from runtime.files import read_bounded
from runtime.speed import scale
from testbed.host.facts import is_domain_0

URI = "xen:///system"
_XENFS = Path("/proc/xen")
_DIRECTORIES = ("/run/xen", "/run/xenstored", "/var/lib/xenstored", "/var/log/xen", "/run/lock", "/run/libvirt")
_LIMIT_S = 60.0


def require_domain_0() -> None:
    """Raise PrerequisiteError on a system that is not domain 0."""
    if not is_domain_0():
        raise PrerequisiteError(
            "Xen has not booted this system, and its guests run nowhere else",
            "the reference machine boots Xen for it: ./invoke bench --machine reference --scenario idle "
            "--platforms container,paravirtual-2003 --measures start, or ./invoke ladder --machine reference --rungs "
            "process,paravirtual-2003",
        )


def start_services(log: Path) -> None:
    """Make this system domain 0 with all that it needs to start guests by libvirt; ``log`` takes what its services say.

    Raises PrerequisiteError for one that does not start.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):  # Xen's own scripts write to these
        _link(f"/proc/self/fd/{number}", f"/dev/{name}")
    _link("/proc/self/fd", "/dev/fd")
    if not is_domain_0():
        _run(["mount", "-t", "xenfs", "xenfs", str(_XENFS)])
    for path in _DIRECTORIES:
        Path(path).mkdir(parents=True, exist_ok=True)
    programs = _find_programs()
    _begin([str(programs / "xenstored"), "--no-fork"], Path("/run/xenstored/socket"), log)
    _run([str(programs / "xen-init-dom0")])
    _begin([str(programs / "xenconsoled"), "--interactive"], None, log)
    _begin(["libvirtd"], Path("/run/libvirt/libvirt-sock"), log)


def _find_programs() -> Path:
    found = sorted(Path("/usr/lib").glob("xen-4*/bin"))
    if len(found) != 1:
        raise PrerequisiteError(f"there are {len(found)} directories /usr/lib/xen-4*/bin", "install xen-utils")
    return found[0]


def _link(target: str, path: str) -> None:
    with suppress(FileExistsError):
        Path(path).symlink_to(target)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines()[-3:]
        raise PrerequisiteError(f"{command[0]} ended with the status {done.returncode}: {' '.join(said)}")


def _begin(command: Sequence[str], socket: Path | None, log: Path) -> None:
    """Start a service that goes on, and return when it listens at its ``socket``, if it has one."""
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    if socket is not None:
        _wait(socket.exists, process, command[0], log)


def _wait(is_there: Callable[[], bool], process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    limit_s = scale(_LIMIT_S)
    deadline_s = time.monotonic() + limit_s
    while not is_there():
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline_s:
            what = f"ended with the status {process.returncode}" if ended else f"did not answer within {limit_s:g} s"
            said = " ".join(read_bounded(log, 1 << 20).decode(errors="replace").strip().splitlines()[-3:])
            raise PrerequisiteError(f"start {name}: it {what}: {said}", "report it")
        time.sleep(0.001)
