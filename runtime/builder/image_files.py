"""The files of an image, or of another stage of a build, as ``COPY --from`` takes them: read through its layers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from msgspec import Struct

from runtime.builder.context import Entry
from runtime.builder.patterns import WILD, Pattern, literal_folder
from runtime.errors import UsageError
from runtime.images.model import Layer
from runtime.images.rootfs import folders, is_directory, lookup, resolve
from runtime.unionfs.lookup import Folders, step


class ImageFiles(Struct, frozen=True):
    """What an overlay of ``layers`` would show, without mounting it; paths are absolute ones of the image.

    ``name`` is what errors call it.
    """

    layers: Sequence[Layer]
    name: str

    def sources(self, pattern: str, spanning: bool = False) -> tuple[Path, ...]:
        """Return the sorted paths that a COPY source matches; ``*``, ``?`` and ``[...]`` are wildcards, and with
        ``spanning`` so is ``**`` for any number of directories.

        Raises UsageError if it names nothing. Wildcards may match nothing.
        """
        # As in a file system's root, `..` leads nowhere else there.
        names = [name for name in os.path.normpath("/" + pattern).split("/") if name]
        try:
            if spanning and "**" in names:
                glob = Pattern("/".join(names))
                below = self.entries(Path("/"))
                paths = [f"/{entry.name}" for entry in below if glob.is_match(glob.after(glob.start, entry.name))]
            else:
                paths = self._matching(names)
        except ValueError as error:
            raise UsageError(f"COPY {pattern}: {error}") from error
        found = tuple(Path(path) for path in paths if lookup(path, self.layers) is not None)
        folder = literal_folder("/".join(names))
        if not found and (folder is None or not is_directory(f"/{folder}", self.layers)):
            raise UsageError(f"COPY {pattern}: no such file in {self.name}")
        return found

    def _matching(self, names: Sequence[str]) -> list[str]:
        paths = [""]
        for name in names:
            if not any(wild in name for wild in WILD):
                paths = [f"{path}/{name}" for path in paths]
                continue
            glob = Pattern(name, spanning=False)
            paths = [
                f"{path}/{entry}"
                for path in paths
                for entry in _listing(self.merged(path))
                if glob.is_match(glob.after(glob.start, entry))
            ]
        return [path or "/" for path in paths]

    def entries(self, source: Path) -> Iterator[Entry]:
        """Yield what copying ``source`` copies: the file that it is, or all below the directory, parents first.

        Sockets are left out. Without recursion: there may be thousands of levels.
        """
        top = self.itself(source)
        if not stat.S_ISDIR(top.mode):
            yield top
            return
        here = self.merged(str(source))
        levels = [(iter(_listing(here)), "", here)]
        while levels:
            names, prefix, above = levels[-1]
            name = next(names, None)
            if name is None:
                levels.pop()
                continue
            path, merged = step(above, name)
            if path is None:  # deleted by a layer above
                continue
            entry = _entry(path, prefix + name)
            if stat.S_ISSOCK(entry.mode):
                continue
            yield entry
            if merged:
                levels.append((iter(_listing(merged)), f"{entry.name}/", merged))

    def itself(self, source: Path) -> Entry:
        """Return the file or directory that ``source`` is, or that it links to."""
        path = lookup(str(source), self.layers)
        if path is None:
            raise UsageError(f"COPY {source}: no such file in {self.name}")
        return _entry(str(path), "")

    def relative(self, source: Path) -> str:
        """Return the path of ``source`` from the image's root on."""
        return str(PurePosixPath(source).relative_to("/"))

    def merged(self, path: str) -> Folders:
        """Return the directories on the host that appear as the directory ``path``, topmost first; none for a file."""
        here = folders(self.layers)
        for name in resolve(path, self.layers).split("/"):
            if name:
                _, here = step(here, name)
        return here


def _listing(above: Folders) -> list[str]:
    """Return the sorted names in a directory that several layers have, with those that a layer deletes."""
    names: set[str] = set()
    for folder in above:
        names.update(os.listdir(folder))
    return sorted(names, key=os.fsencode)


def _entry(path: str, name: str) -> Entry:
    status = os.lstat(path)
    return Entry(Path(path), name, status.st_mode, (status.st_uid, status.st_gid), status.st_mtime_ns)
