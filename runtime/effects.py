"""What is done to files and processes of the host: by this process, or by another one for it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class Effects(Protocol):
    """Whoever does it. The methods raise OSError as the system calls do."""

    def write(self, path: Path, text: str) -> None:
        """Write to a file that is there, such as one of the kernel's."""

    def remove_directories(self, paths: Iterable[Path], unless_busy: bool = False) -> None:
        """rmdir(2), in this order; those that are not there are passed over, and ``unless_busy`` those in use too."""

    def signal_all(self, pids: Sequence[int], number: int) -> None:
        """Signal processes; those that have ended are passed over, and reaped if they are children."""

    def keep_alive(self) -> None:
        """Say, to whom it concerns, that something is waited for."""


class Direct:
    """This process itself."""

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
                os.waitpid(pid, os.WNOHANG)  # ours, and nobody else waits for it

    def keep_alive(self) -> None:
        return


DIRECT = Direct()
