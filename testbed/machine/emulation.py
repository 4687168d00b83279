"""Emulates the reference machine: QEMU as a container of our own runtime, watched until the machine powers off."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from runtime import container
from runtime.container import Container
from runtime.errors import TestbedError, WorkloadError
from runtime.lease import cgroup_name
from runtime.output import printable
from runtime.spec import Process, Spec, User
from testbed.machine import emulator
from testbed.machine.inputs import Inputs
from testbed.machine.job import PROGRESS, TIME

# Whom nobody else is: QEMU needs no rights, and what it emulates is a scenario's.
USER = User(uid=65533, gid=65533)
_POLL_S = 0.2
# The machine says every five seconds of its time that it is alive; on a busy host these are a minute of ours.
SILENCE_S = 600.0
_LAST_LINES = 60
_CHUNK_BYTES = 1 << 16
_LONGEST_LINE = 4096


class Console:
    """The lines of a file that grows, with the last of them."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        self._rest = b""
        self.last: list[str] = []

    def read(self) -> Iterator[str]:
        """Yield the lines that came since the last call."""
        while data := self._stream.read(_CHUNK_BYTES):
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > _LONGEST_LINE:
                lines, self._rest = [*lines, self._rest], b""
            for line in lines:
                text = line[:_LONGEST_LINE].decode(errors="replace").rstrip("\r")
                self.last = [*self.last, text][-_LAST_LINES:]
                yield text

    def tail(self) -> str:
        """Return the last lines, for a person."""
        said = (line for line in self.last if not line.startswith(TIME))
        return "\n".join(f"    {printable(line)}" for line in said) or "    (nothing)"

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_tail(path: Path) -> str:
    """Return the last lines of a console that has ended, for a person."""
    console = Console(path)
    try:
        for _ in console.read():
            continue
    finally:
        console.close()
    return console.tail()


class Emulated(Struct, frozen=True):
    """What an emulation cost: its real and processor time in seconds, the machine's own, and the greatest memory charge
    that was seen, in bytes."""

    real_s: float
    cpu_s: float
    machine_s: float
    memory_bytes: int


def emulate(
    inputs: Inputs,
    run_id: str,
    console: Path,
    results: Path,
    progress: Callable[[str], None],
    *,
    deterministic: bool = True,
) -> Emulated:
    """Run the machine until it has powered off. ``console`` takes what it prints, ``results`` what it hands over.

    Both files are made. Raises WorkloadError, with the console's last lines and the emulator's exit code, when the
    machine ends otherwise or says nothing for a long time. Nothing of it is left whatever happens.
    """
    began = time.monotonic()
    with ExitStack() as undo:
        given = os.open(results, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, given)
        os.ftruncate(given, emulator.RESULTS_BYTES)
        said = os.open(console, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, said)
        for descriptor in (given, said):
            os.fchown(descriptor, USER.uid, USER.gid)
        command = emulator.emulator_command(inputs.disk_bytes, deterministic=deterministic, system=inputs.system)
        spec = Spec(Process(args=command, user=USER), inputs.layers, hostname="emulator")
        machine = container.start(spec, name=cgroup_name(run_id, "emulator"), stdin=given, stdout=said)
        undo.callback(machine.delete)
        lines = Console(console)
        undo.callback(lines.close)
        machine_s, memory_bytes = _watch(machine, lines, progress)
        cpu_s = machine.cgroup.cpu_usage_ns() / 1e9
    return Emulated(time.monotonic() - began, cpu_s, machine_s, memory_bytes)


def _watch(machine: Container, console: Console, progress: Callable[[str], None]) -> tuple[float, int]:
    """Pass on what the machine says until the emulator has ended; return the machine's last time, in seconds, and the
    most memory that was charged at any look."""
    heard, machine_s, most_bytes = time.monotonic(), 0.0, 0
    while True:
        status = machine.wait(_POLL_S)
        if status is None:
            most_bytes = max(most_bytes, machine.cgroup.memory_bytes())
        for line in console.read():
            heard = time.monotonic()
            if line.startswith(PROGRESS):
                progress(f"[{machine_s:6.0f} s] {line.removeprefix(PROGRESS)}")
            elif line.startswith(TIME):
                machine_s = _seconds(line.removeprefix(TIME), machine_s)
        if status == 0:
            return machine_s, most_bytes
        if status is not None:
            raise _failure(f"its emulator ended with the status {status}", console)
        if time.monotonic() - heard > SILENCE_S:
            raise _failure(f"it has said nothing for {SILENCE_S:.0f} s, and was ended", console)


def _seconds(text: str, otherwise: float) -> float:
    return float(text) if text.isdecimal() and len(text) < 9 else otherwise


def _failure(reason: str, console: Console) -> TestbedError:
    return WorkloadError(f"the reference machine: {reason}", f"its console's last lines:\n{console.tail()}")
