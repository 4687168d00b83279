"""buildah with a storage of its own: its builds, and the images that it has, to be looked at."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from runtime.errors import WorkloadError
from runtime.images.save import save
from runtime.images.store import Store

# As ours; hard limits cannot be raised everywhere.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


class Buildah:
    """buildah, whose images lie below ``home``. Its methods raise WorkloadError with the words of one that failed."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._storage = ("--root", str(home / "root"), "--runroot", str(home / "run"), "--storage-driver", "overlay")

    def run(self, *words: str) -> str:
        """Return what a command of it writes."""
        command = ["buildah", *self._storage, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorkloadError(f"buildah {' '.join(words)[:300]}: status {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout.strip()

    def build(self, context: Path, tag: str, *options: str) -> None:
        """Build an image, with the lightest isolation that there is (chroot)."""
        flags = ("build", "--quiet", "--isolation=chroot", "--network=host", "--pull-never", *LIMITS)
        self.run(*flags, "--tag", tag, *options, str(context))

    def pull(self, source: str, tag: str) -> None:
        """Take an image from ``oci-archive:PATH`` or ``oci:PATH:NAME``."""
        self.run("tag", self.run("pull", "--quiet", source), tag)

    def lend(self, store: Store, reference: str, tag: str) -> None:
        """Take an image of ours, by the archive that its store saves."""
        with tempfile.NamedTemporaryFile(dir=self.home, suffix=".tar") as archive:
            save(store, [reference], cast(BinaryIO, archive), lambda line: None)
            archive.flush()
            self.pull(f"oci-archive:{archive.name}", tag)

    def config(self, tag: str) -> dict[str, Any]:
        """Return an image's configuration, as Docker's format has it."""
        return dict(json.loads(self.run("inspect", "--type", "image", tag))["Docker"]["config"])

    @contextmanager
    def mounted(self, tag: str) -> Iterator[Path]:
        """Show the files of an image."""
        container = self.run("from", "--pull-never", tag)
        try:
            yield Path(self.run("mount", container))
        finally:
            self.run("umount", container)
            self.run("rm", container)

    def remove(self, tags: Sequence[str] = ("--all",)) -> None:
        """Remove images; without names all of them."""
        self.run("rmi", "--force", *tags)
