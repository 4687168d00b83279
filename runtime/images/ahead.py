"""Read ahead: what a stream yields is made by a thread while the caller works on what came before.

Hashing, decompression and file operations let go of Python's lock, so a layer is read, hashed and decompressed by one
processor while another makes its files.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable

# So many chunks wait; they are of a MiB at most, but for what little compressed data may become.
_DEPTH = 4
_PAUSE_S = 0.1


def read_ahead(chunks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Yield the chunks, made by a thread of its own. What they raise is raised here; once this is closed, no more are
    asked for."""
    waiting: queue.Queue[bytes | BaseException | None] = queue.Queue(_DEPTH)
    closed = threading.Event()

    def put(what: bytes | BaseException | None) -> None:
        while not closed.is_set():
            try:
                waiting.put(what, timeout=_PAUSE_S)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for chunk in chunks:
                put(chunk)
                if closed.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="read ahead", daemon=True)
    thread.start()
    try:
        while (what := waiting.get()) is not None:
            if isinstance(what, BaseException):
                raise what
            yield what
    finally:
        closed.set()
        thread.join()
