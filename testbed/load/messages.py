"""What the generator's process is told and what it reports, as bytes (generator/input.c and generator/booking.c)."""

from __future__ import annotations

import errno
import struct
from array import array
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from msgspec import Struct

from testbed.load.requests import Request, is_version_six

_LOADS, _REPORT = 0x314C4254, 0x31524254
_HEAD = struct.Struct("=II")
_STREAM = struct.Struct("=qqq16s5I")
_KIND = struct.Struct("=III")
_REPORT_HEAD = struct.Struct("=IIqqII")
_STREAM_REPORT = struct.Struct("=q6I")
_COUNT = struct.Struct("=BBHI")
# Why a request failed, in the order of generator.h; behind the first four is the symbol of an errno.
_FAILURES = (
    *("", "socket", "connect", "send", "receive", "status"),
    *("timeout", "malformed response", "connection closed", "response cut short", "surplus answer", "other failures"),
)
_SHOWN_CHARACTERS = 60


class Stream(Struct, frozen=True):
    """One load as the generator is told it: times in nanoseconds; ``arrivals`` are due so long after the start, and
    ``kinds`` says which of ``requests`` each is."""

    address: str
    port: int
    timeout_ns: int
    warmup_ns: int
    duration_ns: int
    connections: int
    requests: tuple[Request, ...]
    arrivals: list[int]
    kinds: bytes


class StreamReport(Struct, frozen=True):
    """What became of a load's counted requests: latencies in the order of the answers, failures by reason, the moment
    of the last one's end, connections opened, and how many were not over when the load's time was."""

    ok_usec: array[int]
    timeout_usec: array[int]
    failures: Mapping[str, int]
    last_ns: int
    opened: int
    backlog: int


class Report(Struct, frozen=True):
    """When counting began on CLOCK_MONOTONIC, how late each request was turned to, the processor time since, and the
    loads' own reports in order."""

    began_ns: int
    cpu_ns: int
    lags_usec: array[int]
    streams: tuple[StreamReport, ...]


def encode_loads(streams: Sequence[Stream]) -> list[bytes]:
    """Return what the generator reads, in pieces."""
    pieces = [_HEAD.pack(_LOADS, len(streams))]
    for stream in streams:
        address = ip_address(stream.address).packed.ljust(16, b"\0")
        family = 6 if is_version_six(stream.address) else 4
        times = (stream.timeout_ns, stream.warmup_ns, stream.duration_ns)
        numbers = (stream.port, stream.connections, len(stream.requests), len(stream.arrivals))
        pieces.append(_STREAM.pack(*times, address, family, *numbers))
        for request in stream.requests:
            message = request.compose(stream.address, stream.port)
            pieces += [_KIND.pack(request.expect_status, request.is_bodiless, len(message)), message]
        pieces += [array("q", stream.arrivals).tobytes(), stream.kinds]
    return pieces


def decode_report(data: bytes, streams: Sequence[Stream]) -> Report:
    """Return what the generator said at the end. Raises ValueError when that is no report on these loads."""
    reader = _Reader(data)
    magic, count, began_ns, cpu_ns, lags, _ = reader.take(_REPORT_HEAD)
    if magic != _REPORT or count != len(streams):
        raise ValueError("no report on these loads")
    lags_usec = reader.take_numbers(lags)
    return Report(began_ns, cpu_ns, lags_usec, tuple(_decode_stream(reader, stream) for stream in streams))


def _decode_stream(reader: _Reader, stream: Stream) -> StreamReport:
    last_ns, ok, timeouts, counts, opened, backlog, _ = reader.take(_STREAM_REPORT)
    ok_usec, timeout_usec = reader.take_numbers(ok), reader.take_numbers(timeouts)
    failures: dict[str, int] = {}
    for _ in range(counts):
        failure, kind, detail, times = reader.take(_COUNT)
        reason = describe_failure(failure, detail, stream.requests[kind] if len(stream.requests) > 1 else None)
        failures[reason] = failures.get(reason, 0) + times
    return StreamReport(ok_usec, timeout_usec, failures, last_ns, opened, backlog)


def describe_failure(failure: int, detail: int, request: Request | None) -> str:
    """Return why a request failed, in words; of a mix, ``request`` says which one."""
    reason = _FAILURES[failure]
    if reason == "status":
        reason = f"status {detail}"
    elif detail:
        reason = f"{reason}: {errno.errorcode.get(detail, detail)}"
    return f"{reason} ({str(request)[:_SHOWN_CHARACTERS]})" if request else reason


class _Reader:
    """Takes values from the front of bytes. Raises ValueError when they end early."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def _bytes(self, size: int) -> memoryview:
        if size > len(self._data):
            raise ValueError("cut short")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self._bytes(layout.size))

    def take_numbers(self, count: int) -> array[int]:
        numbers = array("I")
        numbers.frombytes(self._bytes(numbers.itemsize * count))
        return numbers
