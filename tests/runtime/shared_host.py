"""A host on which `/` is shared, as systemd makes it, whatever this host is: a mount namespace of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

# What others have mounted below /tmp may go away meanwhile, so it is left out. (umount is told from the last one on.)
_MAKE = """
sed -n 's/^[^ ]* [^ ]* [^ ]* [^ ]* \\(\\/tmp\\/[^ ]*\\) .*/\\1/p' /proc/self/mountinfo | tac | xargs -r umount --lazy --
mount --make-rshared / && echo made && exec cat
"""


class SharedHost(Struct, frozen=True):
    """A process that holds the mount namespace."""

    pid: int

    @property
    def inside(self) -> tuple[str, ...]:
        """What leads a command into the namespace."""
        return ("nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--")

    def mounts(self) -> list[str]:
        """Its mounts as the kernel lists them, with their peer groups."""
        return Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()

    def run(self, *command: str) -> str:
        """Run a command there; its standard output."""
        done = subprocess.run([*self.inside, *command], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def shared_host() -> Iterator[SharedHost]:
    """The namespace, which ends with its holder."""
    pipe = subprocess.PIPE
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", _MAKE], stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdin and holder.stdout
        assert holder.stdout.readline() == "made\n"
        yield SharedHost(holder.pid)
        holder.stdin.close()
