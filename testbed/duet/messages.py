"""What a run and its players say to each other: a JSON document a line, each way through a pipe.

A player is a process that measures one platform, of this checkout or of another revision of it, trial by trial as the
run tells it to. Both sides ignore members that they do not know; what could not be understood raises ``PROTOCOL``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, Any

import msgspec
from msgspec import Struct

from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from testbed.measures.schedule import PlannedTrial
from testbed.results import Trial

PROTOCOL = 1
# More is no trial: one has a few hundred figures.
LONGEST_LINE = 4 << 20
_PIECE_BYTES = 1 << 16


class Part(Struct, frozen=True, tag="part"):
    """What a player is to measure: one platform, as ``testbed.request.Options`` has the rest. ``lease`` is the name
    below which its instances live."""

    protocol: int
    lease: str
    platform: str
    scenario: str
    scenarios: str
    quick: bool
    seed: int
    measures: tuple[str, ...]
    accelerator: str = "auto"
    connect: str = ""
    base: str = ""
    guest_kernel: str = ""
    emulator_cpus: float = 0.0


class Begin(Struct, frozen=True, tag="begin"):
    """Enter the lab; time series and logs go to this run folder."""

    folder: str


class Play(Struct, frozen=True, tag="play"):
    """Measure this."""

    planned: PlannedTrial


class Go(Struct, frozen=True, tag="go"):
    """All have got to the point where they meet."""


class Ready(Struct, frozen=True, tag="ready"):
    """The player is prepared: what the manifest records of its platform and images, and how it would measure."""

    protocol: int
    record: Mapping[str, Any]
    images: Mapping[str, Any]
    settings: Mapping[str, Any]


class Said(Struct, frozen=True, tag="said"):
    """A line for the person who waits."""

    line: str


class Met(Struct, frozen=True, tag="met"):
    """The player has got to the point where all meet, and waits."""


class Ended(Struct, frozen=True, tag="ended"):
    """A trial that ended."""

    trial: Trial


class Done(Struct, frozen=True, tag="done"):
    """All that was to be measured has ended."""


class Failed(Struct, frozen=True, tag="failed"):
    """The player cannot go on: an error of this ``kind`` (``usage``, ``prerequisite``, ``workload``, ``internal``)."""

    kind: str
    message: str
    hint: str = ""


_KINDS: Mapping[str, type[TestbedError]] = {
    "usage": UsageError,
    "prerequisite": PrerequisiteError,
    "workload": WorkloadError,
}


def describe_error(error: Exception) -> Failed:
    """Return what the other side is told of an error."""
    kind = next((name for name, cls in _KINDS.items() if isinstance(error, cls)), "internal")
    if isinstance(error, TestbedError):
        return Failed(kind, error.message, error.hint)
    return Failed(kind, f"{type(error).__name__}: {error}")


def make_error(failed: Failed, where: str = "") -> TestbedError:
    """Return the error that the other side has told of, with ``where`` that was."""
    kind = _KINDS.get(failed.kind, TestbedError)
    return kind(f"{where}: {failed.message}" if where else failed.message, failed.hint)


FromRun = Part | Begin | Play | Go
FromPlayer = Ready | Said | Met | Ended | Done | Failed


class Malformed(TestbedError):
    """A line that is no message."""


def send(stream: IO[bytes], message: Struct) -> None:
    """Send a message. Raises OSError when nobody reads any more."""
    stream.write(msgspec.json.encode(message) + b"\n")
    stream.flush()


def receive_order(stream: IO[bytes]) -> FromRun | None:
    """Return the next message from the run, None at the end. Raises Malformed."""
    line = stream.readline(LONGEST_LINE)
    if line and not line.endswith(b"\n"):
        raise Malformed(f"a message of {len(line)} bytes has no end")
    return _decode(line, FromRun) if line else None


class Inbox:
    """The news of a player, from a pipe: as many as have come whole when the pipe has something to read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._begun = b""

    def fileno(self) -> int:
        return self._stream.fileno()

    def read(self) -> list[FromPlayer]:
        """Wait for something and return what is whole. Raises EOFError at the end, and Malformed."""
        data = os.read(self.fileno(), _PIECE_BYTES)
        if not data:
            raise EOFError
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > LONGEST_LINE:
            raise Malformed(f"a message of {len(self._begun)} bytes has no end")
        return [_decode(line, FromPlayer) for line in lines]


def _decode(line: bytes, kinds: Any) -> Any:
    try:
        return msgspec.json.decode(line, type=kinds)
    except msgspec.MsgspecError as error:
        raise Malformed(f"no message of this protocol: {error}") from error
