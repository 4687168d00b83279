"""An OCI image layout (image-spec 1.1, image-layout.md) as files:

    oci-layout             the version; written first
    index.json             a descriptor of each image's manifest, with its reference as an annotation
    blobs/sha256/<hex>     manifests, configurations, and layers that came from elsewhere as they came
    tmp/                   blobs that are being written

A blob is complete, on disk and has the digest of its name, or it is not there: it is written below ``tmp/``, hashed,
flushed, and then renamed. Writers hold ``writers`` shared and what removes files holds it alone, so the next to do so
may take whatever is in ``tmp/`` for what a dead writer left. ``commit`` is held while the index changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

import msgspec

from runtime.atomic import PARTIAL, read_document, remove, replace_file
from runtime.errors import UsageError
from runtime.images import descriptors
from runtime.images.descriptors import Descriptor, Index, check_digest
from runtime.libc import call

VERSION_FILE, VERSION = "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'
COPY_BYTES = 1 << 20
_TRIES, _PAUSE_S = 5, 0.01


class Layout:
    """The image layout below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tmp = root / "tmp"

    def make(self) -> None:
        """Make what an empty layout has, unless it is there. Raises OSError."""
        for path in (self.tmp, self.root / "blobs" / "sha256"):
            path.mkdir(parents=True, exist_ok=True)
        if not (self.root / VERSION_FILE).exists():
            with self._writer(_silent), self.committing():
                if not (self.root / "index.json").exists():
                    self._write_index(Index(()))
                replace_file(self.root / VERSION_FILE, VERSION)

    # Blobs

    def path(self, digest: str) -> Path:
        """Return where the blob with this digest is, if it is there. Raises UsageError for what is no digest."""
        return self.root / "blobs" / "sha256" / check_digest(digest).removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        """Return whether the blob is there, complete."""
        return self.path(digest).is_file()

    def read(self, digest: str, what: str) -> bytes:
        """Return a small blob: a manifest or a configuration. Raises UsageError where it is missing or too long."""
        try:
            with self.path(digest).open("rb") as blob:
                return blob.read(descriptors.DOCUMENT_LIMIT_BYTES + 1)
        except FileNotFoundError:
            raise UsageError(f"{what}: {digest} is missing in {self.root}") from None

    def open(self, digest: str) -> BinaryIO:
        """Open a blob to read. Raises FileNotFoundError."""
        return self.path(digest).open("rb")

    def add(self, content: bytes) -> str:
        """Store a small blob and return its digest. Raises OSError."""
        digest = descriptors.digest_of(content)
        if not self.has(digest):
            for _ in self.store((content,), digest, len(content), "blob"):
                pass
        return digest

    def store(self, chunks: Iterable[bytes], digest: str, size: int | None, what: str) -> Generator[bytes, None, None]:
        """Yield the chunks of a blob while it is stored; it is there once the last has been taken.

        Raises UsageError, which names the blob as ``what``, for one that is longer or shorter than ``size`` or has
        another digest, and OSError. It is not there then.
        """
        target = self.path(digest)
        sha256 = hashlib.sha256()
        length = 0
        descriptor, name = tempfile.mkstemp(prefix=PARTIAL, suffix=f"-{os.getpid()}", dir=self.tmp)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                for chunk in chunks:
                    length += len(chunk)
                    if size is not None and length > size:
                        raise UsageError(f"{what}: it is longer than the {size} bytes that it should have")
                    sha256.update(chunk)
                    file.write(chunk)
                    yield chunk
                if size not in (None, length):
                    raise UsageError(f"{what}: it is cut off after {length} of {size} bytes")
                if "sha256:" + sha256.hexdigest() != digest:
                    raise UsageError(f"{what}: its digest is sha256:{sha256.hexdigest()}, and should be {digest}")
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            os.rename(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def discard(self, digest: str) -> None:
        """Remove a blob that turned out to be of no use. Raises OSError."""
        self.path(digest).unlink(missing_ok=True)

    # The index

    def read_index(self) -> Index:
        """Return the index; an empty one where there is no layout. Raises PrerequisiteError when it is damaged."""
        return read_document(self.root / "index.json", Index) or Index(())

    def references(self) -> dict[str, Descriptor]:
        """Return the manifests, or indexes, of all references."""
        named = {}
        for one in self.read_index().manifests:
            if one.annotations and descriptors.REFERENCE in one.annotations:
                named[one.annotations[descriptors.REFERENCE]] = one
        return named

    def point(self, reference: str, target: Descriptor | None) -> None:
        """Let ``reference`` name another manifest, or none. Raises OSError."""
        with self.committing():
            index = self.read_index()
            rest = tuple(
                one for one in index.manifests if (one.annotations or {}).get(descriptors.REFERENCE) != reference
            )
            named: tuple[Descriptor, ...] = ()
            if target is not None:
                annotations = {**(target.annotations or {}), descriptors.REFERENCE: reference}
                named = (msgspec.structs.replace(target, annotations=annotations),)
            changed = Index(tuple(sorted((*rest, *named), key=_order)))
            if changed != index:
                sync_directory(self.root / "blobs" / "sha256")  # what it names is there, too
                self._write_index(changed)

    def _write_index(self, index: Index) -> None:
        document = {"schemaVersion": 2, "mediaType": descriptors.INDEX, **msgspec.to_builtins(index)}
        replace_file(self.root / "index.json", msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
        sync_directory(self.root)

    # Locks

    @contextmanager
    def writing(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Hold the layout as one of its writers, after removing what dead ones left when no other writes."""
        with open(self.root / "writers", "w") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.sweep()
        with self._writer(progress):
            yield

    @contextmanager
    def _writer(self, progress: Callable[[str], None]) -> Iterator[None]:
        with open(self.root / "writers", "w") as lock:
            _lock(lock, fcntl.LOCK_SH, f"waiting for a collection in {self.root}", progress)
            yield

    @contextmanager
    def alone(self, progress: Callable[[str], None]) -> Iterator[None]:
        """Hold the layout while nobody writes, after removing what dead writers left."""
        with hold(self.root / "writers", f"waiting for who writes to {self.root}", progress):
            self.sweep()
            yield

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Hold the lock under which the index and the names of layers change: for moments only."""
        with hold(self.root / "commit", "", _silent):
            yield

    def leftovers(self) -> tuple[Path, ...]:
        """Return files that are not complete. While nobody writes there are none, unless a writer was killed."""
        return tuple(sorted((*self.root.glob(f"{PARTIAL}*"), *self.root.glob(f"*/{PARTIAL}*"))))

    def sweep(self) -> None:
        """Remove what dead writers left. Nobody may write."""
        for path in self.leftovers():
            remove(path)


@contextmanager
def hold(path: Path, waiting: str, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock file alone; where another holds it, report ``waiting`` and wait. A kill lets go of it."""
    with open(path, "w") as lock:
        _lock(lock, fcntl.LOCK_EX, waiting, progress)
        yield


def _lock(lock: TextIO, kind: int, waiting: str, progress: Callable[[str], None]) -> None:
    for _ in range(_TRIES):  # who looks for leftovers holds a lock for a moment, which is not worth a line
        with suppress(BlockingIOError):
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE_S)
    if waiting:
        progress(waiting)
    fcntl.flock(lock, kind)


def _silent(line: str) -> None:
    pass


def _order(one: Descriptor) -> tuple[str, str]:
    return (one.annotations or {}).get(descriptors.REFERENCE, ""), one.digest


def read_chunks(file: BinaryIO) -> Generator[bytes, None, None]:
    """Yield what a file holds, and close it."""
    with file:
        while chunk := file.read(COPY_BYTES):
            yield chunk


def sync_directory(path: Path) -> None:
    """Write a directory's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Write all of the file system of ``path`` to disk (syncfs(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        call("syncfs", descriptor)
    finally:
        os.close(descriptor)
