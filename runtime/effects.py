"""This module defines the effects on the host's files and processes, which this process or another one performs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Effects(Protocol):
    """The interface of whatever performs the effects. The methods raise OSError as the system calls do."""

    def write(self, path: Path, text: str) -> None:
        """Write to an existing file, such as one of the kernel's."""

    def remove_directories(self, paths: Iterable[Path], unless_busy: bool = False) -> None:
        """Remove directories in order with rmdir(2), skipping absent ones and, with ``unless_busy``, busy ones too."""

    def signal_all(self, pids: Sequence[int], number: int) -> None:
        """Signal processes. Those that have ended are skipped, and reaped if they are children."""

    def keep_alive(self) -> None:
        """Tell those concerned that the caller is still waiting for something."""


class Direct:
    """Effects that this process performs itself."""

    def write(self, path: Path, text: str) -> None:
        with open(path, "w") as file:
            file.write(text)

    def remove_directories(self, paths: Iterable[Path], unless_busy: bool = False) -> None:
        for path in paths:
            with suppress(*((OSError,) if unless_busy else (FileNotFoundError,))):
                path.rmdir()

    def signal_all(self, pids: Sequence[int], number: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # a child of ours, and nobody else waits for it

    def keep_alive(self) -> None:
        return


DIRECT = Direct()
