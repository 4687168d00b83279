"""The history's own commands, typed again: 4.4BSD's chroot, and a union mount in AUFS's words.

They are run in a mount namespace of their own, in a scratch directory, on files of the run's images.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from runtime.images.model import Image
from testbed.ladder.model import Snippet

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 60.0
_MOST_BYTES = 8192
_UNION = f"{shlex.quote(sys.executable)} -P -m reports.commands.front --search-root {shlex.quote(str(ROOT))} union"


class Script(Struct, frozen=True):
    """What is typed: ``before`` and ``after`` are not shown. A command may name ``$layer``, the lowest of the image."""

    title: str
    year: int
    words: str
    commands: tuple[str, ...]
    before: str = ""
    after: str = ""


SCRIPTS = (
    Script(
        "a root directory, and nothing else",
        1993,
        "The manual of 4.4BSD has one command for it: chroot newroot [command]. The program sees another tree of files."
        " It sees the host's name, users and clock all the same, and may signal the host's first process.",
        (
            "chroot $layer /bin/ls /",
            "chroot $layer /bin/sh -c 'read name < /etc/debian_version; echo \"files of Debian $name\"'",
            "chroot $layer /bin/sh -c 'kill -0 1 && echo \"process 1 of the host could be signalled\"'",
        ),
    ),
    Script(
        "directories shown as one",
        2006,
        "AUFS laid a writable directory over read-only ones, which is how Docker's first images were layers. It never"
        " came into Linux; the same words work by the driver that this kernel has.",
        (
            "mount -t aufs -o br=changes=rw:system=ro none both",
            "union mount br:changes=rw:system=ro both",
            "cat both/motd; echo 'written above' > both/motd; cat both/motd",
            "cat system/motd changes/motd",
        ),
        "mkdir changes system both && echo 'of the system' > system/motd",
        "union umount both > /dev/null",
    ),
)


def run_snippets(image: Image, scratch: Path) -> tuple[Snippet, ...]:
    """Run all of them below ``scratch``; one that fails shows how."""
    return tuple(_run(script, image, scratch / f"snippet-{number}") for number, script in enumerate(SCRIPTS))


def _run(script: Script, image: Image, folder: Path) -> Snippet:
    folder.mkdir(parents=True)
    text = write_script(script, str(image.layers[0].path))
    output, status = _execute(text, folder)
    shown = output.replace(str(image.layers[0].path), "$layer").replace(f"{folder}/", "")
    return Snippet(script.title, script.year, script.commands, shown, status, script.words)


def write_script(script: Script, layer: str) -> str:
    """Return the shell's script: each command is shown before it is run, and its status does not end the script."""
    lines = [f"layer={shlex.quote(layer)}", f'union() {{ {_UNION} "$@"; }}', script.before]
    for command in script.commands:
        lines += [f"printf '$ %s\\n' {shlex.quote(command)}", command]
    return "\n".join([*lines, "status=$?", script.after, "exit $status", ""])


def _execute(script: str, folder: Path) -> tuple[str, int]:
    """Run a script in a mount namespace of its own; return what it printed, bounded, and its status."""
    words: Sequence[str] = ("unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script)
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    with (folder / "output").open("w+b") as output:
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            status = 128 + signal.SIGKILL
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        return output.read(_MOST_BYTES).decode(errors="replace"), status
