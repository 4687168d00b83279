"""Push a blob: not at all where it is, by a mount from another repository, at once, or in chunks; go on after a cut."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from urllib.parse import quote, urljoin, urlsplit

from msgspec import Struct

from runtime.images.descriptors import Descriptor
from runtime.registry.access import Access
from runtime.registry.addresses import check_address, shown
from runtime.registry.answers import Answer
from runtime.registry.errors import CutError, RegistryError
from runtime.registry.transport import Part

# What is sent at once. A larger blob goes in such chunks, so that a cut costs one at most.
CHUNK_BYTES = 64 << 20
_LARGEST_CHUNK_BYTES = 4 << 30
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,19})")
_OCTETS = "application/octet-stream"
_TRANSIENT = (408, 416, 429, 500, 502, 503, 504)


class _Session(Struct):
    """An upload: its address, how many bytes the registry has, and the least that it takes in a chunk."""

    url: str
    offset: int = 0
    least_bytes: int = 0


class Upload(Struct, frozen=True):
    """The blobs of one repository as they are pushed."""

    access: Access
    path: str
    chunk_bytes: int = CHUNK_BYTES

    @property
    def scopes(self) -> tuple[str, ...]:
        return (f"repository:{self.path}:pull,push",)

    def has(self, digest: str) -> bool:
        """Return whether the repository has a blob."""
        answer = self.access.call("HEAD", f"{self.path}/blobs/{digest}", self.scopes)
        if answer.status not in (200, 404):
            raise self.access.refused(answer, f"ask for {digest} in {self.path}")
        answer.close()
        return answer.status == 200

    def send(self, blob: Descriptor, content: io.BufferedReader, mount_from: Sequence[str] = ()) -> str:
        """Bring ``content`` into the repository unless it is there, and return how: ``there``, ``mounted`` or ``sent``.

        ``mount_from`` are repositories of the same registry that may have it. Raises RegistryError, NotThereError.
        """
        if self.has(blob.digest):
            return "there"
        session: _Session | None = None
        for source in mount_from:
            session = self._begin(blob.digest, source)
            if session is None:
                return "mounted"
        cuts = 0
        while True:
            before = session.offset if session else 0
            try:
                session = session or self._begin()
                assert session is not None
                if self._advance(blob, content, session):
                    return "sent"
                cuts = 0
                continue
            except CutError as error:
                cuts += 1
                if cuts >= self.access.transport.limits.attempts:
                    raise RegistryError(f"push {blob.digest} to {self.path}: {error.message}", error.hint) from error
            self.access.transport.wait(cuts)
            session = self._look_up(session) if session else None
            if session and session.offset - before > self.chunk_bytes // 2:
                cuts = 0

    def _begin(self, mount: str = "", source: str = "") -> _Session | None:
        """Begin an upload; None if a mount made that needless."""
        query = f"?mount={quote(mount, safe='')}&from={quote(source, safe='')}" if source else ""
        scopes = (*self.scopes, f"repository:{source}:pull") if source else self.scopes
        answer = self.access.call("POST", f"{self.path}/blobs/uploads/{query}", scopes, body=b"")
        if answer.status == 201 and source:
            answer.close()
            return None
        if answer.status != 202:
            raise self.access.refused(answer, f"push to {self.access.host}/{self.path}")
        return self._session(answer, 0)

    def _advance(self, blob: Descriptor, content: io.BufferedReader, session: _Session) -> bool:
        """Send the next chunk, or all at once, and return whether that was the end. Raises CutError to try again."""
        left = blob.size - session.offset
        chunk = min(max(self.chunk_bytes, session.least_bytes), _LARGEST_CHUNK_BYTES)
        if session.offset == 0 and left <= chunk:
            self._complete(blob, session, Part(content, 0, blob.size))
            return True
        size = min(left, chunk)
        if size:
            end = session.offset + size
            headers = {"Content-Type": _OCTETS, "Content-Range": f"{session.offset}-{end - 1}"}
            body = Part(content, session.offset, size)
            answer = self.access.call("PATCH", session.url, self.scopes, headers=headers, body=body, attempts=1)
            self._expect(answer, 202, blob)
            moved = self._session(answer, end)
            session.url, session.offset = moved.url, moved.offset
            return False
        self._complete(blob, session, b"")
        return True

    def _complete(self, blob: Descriptor, session: _Session, body: bytes | Part) -> None:
        url = f"{session.url}{'&' if urlsplit(session.url).query else '?'}digest={quote(blob.digest, safe='')}"
        answer = self.access.call("PUT", url, self.scopes, headers={"Content-Type": _OCTETS}, body=body, attempts=1)
        self._expect(answer, 201, blob)
        answer.close()

    def _expect(self, answer: Answer, status: int, blob: Descriptor) -> None:
        if answer.status == status:
            return
        error = self.access.refused(answer, f"push {blob.digest} to {self.access.host}/{self.path}")
        if answer.status in _TRANSIENT or answer.status == 404:  # it has forgotten the upload: from the beginning
            raise CutError(error.message, error.hint) from error
        raise error

    def _look_up(self, session: _Session) -> _Session | None:
        """Ask how much of an upload arrived; None if it is to be begun again."""
        answer = self.access.call("GET", session.url, self.scopes)
        if answer.status not in (202, 204):
            answer.close()
            return None
        match = _RANGE.fullmatch(answer.header("Range").strip())
        if not match or match[1] == "0":  # which registries say of one byte, and of none
            answer.close()
            return None
        found = self._session(answer, int(match[1]) + 1)
        found.least_bytes = session.least_bytes
        return found

    def _session(self, answer: Answer, offset: int) -> _Session:
        """Return the upload as an answer describes it; a ``Range`` in it tells better than we what arrived."""
        location, least = answer.header("Location"), answer.header("OCI-Chunk-Min-Length")
        answer.close()
        if not location:
            raise RegistryError(f"{shown(answer.url)}: it says not where to upload")
        url = urljoin(answer.url, location)
        check_address(url, answer.url)
        return _Session(url, offset, int(least) if least.isascii() and least.isdigit() and len(least) < 12 else 0)
