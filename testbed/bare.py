"""Times small pieces of work as bare processes: what a host's clock says of them, without any platform.

The same code runs on a host of its own and in the reference machine, so that the two clocks can be set side by side
(benchmarks/calibration.py). Each piece leans on something else: instructions, the memory, the kernel's processes,
pages, system calls, the scheduler, files. All of them together take about a second.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

_ROUNDS = 5
_FORKS = 20
_STEPS = 20_000
_HASHED_BYTES = 4 << 20
_TOUCHED_BYTES = 8 << 20
_COPIED_BYTES = 16 << 20
_CALLS = 20_000
_TURNS = 500
_FILES = 100
_SHELL_LOOP = "i=0; while [ $i -lt {steps} ]; do i=$((i+1)); done"


def _spawn(*command: str) -> None:
    with Path(os.devnull).open("r+b") as null:
        actions = [(os.POSIX_SPAWN_DUP2, null.fileno(), 1)]
        pid = os.posix_spawn(command[0], command, {"LC_ALL": "C"}, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    if status:
        raise ChildProcessError(f"{command[0]}: exit status {os.waitstatus_to_exitcode(status)}")


def _start_processes(_: Path) -> None:
    for _number in range(_FORKS):
        _spawn("/bin/true")


def _loop_in_shell(_: Path) -> None:
    _spawn("/bin/sh", "-c", _SHELL_LOOP.format(steps=_STEPS))


def _hash(folder: Path) -> None:
    file = folder / "hashed"
    if not file.exists():
        file.write_bytes(bytes(range(256)) * (_HASHED_BYTES // 256))
    _spawn("/usr/bin/sha256sum", str(file))


def _touch_pages(_: Path) -> None:
    with mmap.mmap(-1, _TOUCHED_BYTES) as memory:
        for at in range(0, _TOUCHED_BYTES, mmap.PAGESIZE):
            memory[at] = 1


def _copy_memory(_: Path) -> None:
    source = bytearray(_COPIED_BYTES)
    memory = bytearray(_COPIED_BYTES)
    memory[:] = source


def _call_kernel(_: Path) -> None:
    for _number in range(_CALLS):
        os.getppid()


def _take_turns(_: Path) -> None:
    """Pass a byte to another process and back."""
    to_child, from_parent = os.pipe()
    to_parent, from_child = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(from_parent)
            while os.read(to_child, 1):
                os.write(from_child, b"x")
        finally:
            os._exit(0)
    try:
        os.close(to_child)
        for _number in range(_TURNS):
            os.write(from_parent, b"x")
            os.read(to_parent, 1)
    finally:
        for descriptor in (from_parent, to_parent, from_child):
            os.close(descriptor)
        os.waitpid(child, 0)


def _make_files(folder: Path) -> None:
    for number in range(_FILES):
        path = folder / f"file{number}"
        path.write_bytes(b"x" * 4096)
        path.unlink()


# By name: the work, and how many pieces it has.
WORKLOADS: Mapping[str, tuple[Callable[[Path], None], int]] = {
    "start a process": (_start_processes, _FORKS),
    "shell loop, a step": (_loop_in_shell, _STEPS),
    "sha256, a MiB": (_hash, _HASHED_BYTES >> 20),
    "touch a page": (_touch_pages, _TOUCHED_BYTES // mmap.PAGESIZE),
    "copy a MiB": (_copy_memory, _COPIED_BYTES >> 20),
    "system call": (_call_kernel, _CALLS),
    "turn between processes": (_take_turns, _TURNS),
    "make and remove a file": (_make_files, _FILES),
}


def time_work() -> dict[str, float]:
    """Return the seconds that a piece of each work takes, by name: medians of several rounds.

    Raises OSError when a program is missing that every Debian has, or fails.
    """
    with tempfile.TemporaryDirectory(prefix="testbed-bare-") as scratch:
        return {name: _time(work, Path(scratch)) / pieces for name, (work, pieces) in WORKLOADS.items()}


def _time(work: Callable[[Path], None], folder: Path) -> float:
    work(folder)  # what is done once only: files, pages, the caches of the kernel
    took_ns = []
    for _ in range(_ROUNDS):
        began_ns = time.monotonic_ns()
        work(folder)
        took_ns.append(time.monotonic_ns() - began_ns)
    return median(took_ns) / 1e9
