"""Files in memory, in which the launcher is given what it needs and leaves what it has to tell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory_file(name: str, content: bytes = b"") -> Iterator[int]:
    """A file in memory, at its beginning, with this content."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        if content:
            os.write(descriptor, content)
            os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
