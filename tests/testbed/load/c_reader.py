"""The generator's reader of responses as a Python class, with the interface of the one in Python."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from runtime.launcher.build import WARNINGS
from testbed.load.build import FOLDER
from testbed.load.http1 import MalformedResponse

_MORE, _COMPLETE, _MALFORMED = range(3)


class _Reader(ctypes.Structure):
    """The first members of ``struct reader``; the rest is room, which is more than it takes."""

    _fields_ = (
        ("status", ctypes.c_uint16),
        *((name, ctypes.c_bool) for name in ("keep_alive", "surplus", "touched", "bodiless")),
        ("rest", ctypes.c_uint64 * 32),
    )


@cache
def library() -> ctypes.CDLL:
    """Compile the reader, with the sanitizers that need no help from the process, and load it."""
    with TemporaryDirectory() as folder:
        shared = Path(folder, "http1.so")
        flags = ("-O1", "-g", "-shared", "-fPIC", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
        subprocess.run(["gcc", *WARNINGS, *flags, "-o", str(shared), str(FOLDER / "http1.c")], check=True)
        loaded = ctypes.CDLL(str(shared))
    loaded.reader_feed.argtypes = (ctypes.POINTER(_Reader), ctypes.c_char_p, ctypes.c_size_t)
    loaded.reader_reset.argtypes = (ctypes.POINTER(_Reader), ctypes.c_bool)
    loaded.reader_close.argtypes = (ctypes.POINTER(_Reader),)
    loaded.reader_close.restype = ctypes.c_bool
    return loaded


class CReader:
    """Takes the bytes of one response in pieces, as ``ResponseReader`` does."""

    def __init__(self, bodiless: bool = False) -> None:
        self._reader = _Reader()
        self._bodiless = bodiless
        self.reset()

    def reset(self) -> None:
        library().reader_reset(ctypes.byref(self._reader), self._bodiless)

    def feed(self, data: bytes) -> bool:
        outcome = library().reader_feed(ctypes.byref(self._reader), data, len(data))
        if outcome == _MALFORMED:
            raise MalformedResponse("by the generator's reader")
        return bool(outcome == _COMPLETE)

    def close(self) -> bool:
        return bool(library().reader_close(ctypes.byref(self._reader)))

    @property
    def status(self) -> int:
        return int(self._reader.status)

    @property
    def keep_alive(self) -> bool:
        return bool(self._reader.keep_alive)

    @property
    def surplus(self) -> bool:
        return bool(self._reader.surplus)

    @property
    def untouched(self) -> bool:
        return not self._reader.touched
