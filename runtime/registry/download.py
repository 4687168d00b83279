"""A blob while it is downloaded: a stream that goes on where a connection was cut, and whose digest must be right."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

from runtime.images.descriptors import Descriptor
from runtime.registry.addresses import shown
from runtime.registry.answers import Answer
from runtime.registry.errors import CutError, NotThereError, RegistryError
from runtime.registry.transport import Transport

CHUNK_BYTES = 1 << 20
# A connection that brought so much was worth it: the attempts are counted anew.
_PROGRESS_BYTES = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class Download:
    """The content of a blob, to be read once, by one thread.

    ``asks`` request it from an offset on, at one registry after the other: where one fails, the next gives the rest.
    With ``check``, the read that gives the last bytes raises RegistryError if the digest is not the descriptor's, so
    that nobody has all of a wrong blob and takes it for right; without it, that is up to the reader.
    """

    def __init__(
        self,
        transport: Transport,
        descriptor: Descriptor,
        name: str,
        asks: Sequence[Callable[[int], Answer]],
        *,
        check: bool = True,
    ) -> None:
        self.descriptor, self.name = descriptor, name
        self.offset = 0
        self._transport, self._asks = transport, list(asks)
        self._sha256 = hashlib.sha256() if check else None
        self._answer: Answer | None = None
        self._cuts, self._cut_at = 0, 0

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back or up."""
        if self._answer is not None:
            answer, self._answer = self._answer, None
            answer.close()

    def read(self, most_bytes: int = CHUNK_BYTES) -> bytes:
        """Return the next bytes, at most so many; none at the end. Raises RegistryError and NotThereError."""
        size = self.descriptor.size
        if self.offset == size:
            if size == 0:
                self._verify()
            return b""
        while True:
            try:
                if self._answer is None:
                    self._answer = self._open()
                chunk = self._answer.read1(min(most_bytes, size - self.offset))
                if not chunk:
                    raise CutError(f"{self.name}: the connection ended after {self.offset} of {size} bytes")
                break
            except CutError as error:
                self._again(error)
            except (NotThereError, RegistryError):
                if not self._next():
                    raise
        if self._sha256:
            self._sha256.update(chunk)
        self.offset += len(chunk)
        if self.offset == size:
            self.close()
            self._verify()
        return chunk

    def _open(self) -> Answer:
        """Ask for what is missing. Raises CutError for what may go better next time."""
        answer = self._asks[0](self.offset)
        try:
            begin, length = _range_of(answer, self.descriptor.size)
            if begin > self.offset or begin + length != self.descriptor.size:
                said = f"{shown(answer.url)}: sends the bytes from {begin} to {begin + length}"
                raise RegistryError(
                    f"{said}, of {self.descriptor.size} that the manifest says, for those from {self.offset}"
                )
            _skip(answer, self.offset - begin)
        except BaseException:
            answer.close()
            raise
        return answer

    def _again(self, error: CutError) -> None:
        self.close()
        if self.offset - self._cut_at >= _PROGRESS_BYTES:
            self._cuts = 0
        self._cut_at = self.offset
        self._cuts += 1
        if self._cuts >= self._transport.limits.attempts and not self._next():
            what = f"{error.message}; {self._cuts} times, after {self.offset} of {self.descriptor.size} bytes"
            raise RegistryError(what, error.hint) from error
        self._transport.wait(self._cuts)

    def _next(self) -> bool:
        """Turn to the next registry, if there is one."""
        self.close()
        if len(self._asks) == 1:
            return False
        self._cuts = 0
        del self._asks[0]
        return True

    def _verify(self) -> None:
        if self._sha256 is None:
            return
        found = "sha256:" + self._sha256.hexdigest()
        if found != self.descriptor.digest:
            raise RegistryError(
                f"{self.name}: what was sent is {found}", "the registry, or something before it, is broken"
            )


def _range_of(answer: Answer, size: int) -> tuple[int, int]:
    """Return where an answer's bytes begin in the blob, and how many they are: without a length, all of them."""
    if answer.status == 206:
        match = _CONTENT_RANGE.fullmatch(answer.header("Content-Range").strip())
        if not match or (match[3] != "*" and int(match[3]) != size):
            raise RegistryError(f"{shown(answer.url)}: sends a part of something else")
        begin, end = int(match[1]), int(match[2])
        if answer.size is not None and answer.size != end + 1 - begin:
            raise RegistryError(f"{shown(answer.url)}: sends {answer.size} bytes, and says {end + 1 - begin}")
        return begin, end + 1 - begin
    return 0, size if answer.size is None else answer.size


def _skip(answer: Answer, count: int) -> None:
    while count:
        chunk = answer.read1(min(count, CHUNK_BYTES))
        if not chunk:
            raise CutError(f"{shown(answer.url)}: the connection ended")
        count -= len(chunk)
