"""Histograms of latencies: made, written to a run folder so that other tools read them, and read back.

A file is a log as HdrHistogram's own tools write it (github.com/HdrHistogram/HdrHistogram, HistogramLogWriter, version
1.2) with one interval, whose histogram is in the V2 compressed format. Its values are microseconds. A file that is read
may be anybody's: cut short, too long, or made to harm.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import UsageError
from runtime.files import read_bounded

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

MAX_USEC = 3_600_000_000
DIGITS = 3
# A percentile says something when so many lie beyond it.
LEAST_BEYOND = 5
# Those that a load's latency is told by.
PERCENTILES = (50.0, 90.0, 99.0, 99.9)

# The most that a histogram of MAX_USEC and DIGITS takes: 23 buckets of 1,024 counters, at most 9 bytes each.
_MOST_PAYLOAD_BYTES = 1 << 18
_MOST_FILE_BYTES = 1 << 20
# HdrHistogram, AbstractHistogram.java: the cookies of V2, compressed and not, with a word size of one byte.
_COMPRESSED, _PLAIN = 0x1C849304 | 0x10, 0x1C849303 | 0x10
_COMPRESSED_HEAD = struct.Struct(">II")
_PLAIN_HEAD = struct.Struct(">IIIIQQQ")
# More than anybody has measured: sums stay exact.
_MOST_VALUES = 1 << 53
_INTERVAL = re.compile(r"(?:Tag=[^,\n]*,)?([0-9.]+),([0-9.]+),([0-9.]+),(HISTF[A-Za-z0-9+/]+={0,2})")


def build_histogram(values_usec: Sequence[int]) -> HdrHistogram:
    """Return a histogram of microseconds up to an hour, to three significant digits."""
    from hdrh.histogram import HdrHistogram

    counted = HdrHistogram(1, MAX_USEC, DIGITS)
    for value, count in Counter(values_usec).items():
        counted.record_value(min(max(value, 1), MAX_USEC), count)
    return counted


def can_tell(n: int, percentile: float) -> bool:
    """Return whether at least LEAST_BEYOND of ``n`` values lie beyond a percentile (0 to 100)."""
    # In the decimals that a reader sees: 99.9 % of 5,000 leaves 5, and no more than 4.999 in binary.
    return n * (1 - Fraction(str(percentile)) / 100) >= LEAST_BEYOND


def percentile_or_none(histogram: HdrHistogram, percentile: float) -> float | None:
    """Return a percentile (0 to 100) in the histogram's unit; None when fewer than LEAST_BEYOND values are beyond."""
    if not can_tell(histogram.get_total_count(), percentile):
        return None
    return float(histogram.get_value_at_percentile(percentile))


def name_percentile(percentile: float) -> str:
    """Return a percentile's name in metrics: p50, p99_9."""
    return f"p{percentile:g}".replace(".", "_")


def find_percentiles(histogram: HdrHistogram) -> dict[float, float]:
    """Return those of PERCENTILES, ascending, that so many values can tell, in the histogram's unit."""
    found = ((percentile, percentile_or_none(histogram, percentile)) for percentile in PERCENTILES)
    return {percentile: value for percentile, value in found if value is not None}


def encode_histogram(histogram: HdrHistogram, length_s: float) -> bytes:
    """Return the log of a histogram of microseconds over ``length_s``."""
    from hdrh.log import HistogramLogWriter

    text = StringIO()
    writer = HistogramLogWriter(text)
    writer.output_log_format_version()
    writer.output_legend()
    writer.output_interval_histogram(histogram, 0, length_s, 1e3)  # the log's maximum is in milliseconds
    return text.getvalue().encode()


def read_histogram(file: Path) -> HdrHistogram:
    """Return the histogram in a file that ``encode_histogram`` made.

    Raises UsageError for a file that cannot be read, is longer than any of ours, is cut short, or is another's.
    """
    try:
        text = read_bounded(file, _MOST_FILE_BYTES).decode("ascii")
        return _decode(text)
    except (_Damaged, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no histogram of this testbed: {error}", "restore it, or remove it") from error


class _Damaged(ValueError):
    """What a log says is no histogram, for this reason."""


def _decode(text: str) -> HdrHistogram:
    """Return the histogram of a log with one interval. Raises _Damaged."""
    from hdrh.histogram import HdrHistogram

    if not text.endswith("\n"):
        raise _Damaged("its last line is cut short")
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", '"StartTimestamp"'))]
    found = _INTERVAL.fullmatch(lines[0]) if len(lines) == 1 else None
    if found is None:
        raise _Damaged("it is not a log with one histogram")
    _check_payload(found[4])
    try:
        histogram = HdrHistogram.decode(found[4])
    except Exception as error:  # the library has an exception for each of its layers, and some without a common class
        raise _Damaged(f"it cannot be decoded: {error}") from error
    if not 0 <= histogram.get_total_count() <= _MOST_VALUES:
        raise _Damaged("its counts cannot be")
    return histogram


def _check_payload(encoded: str) -> None:
    """Check what the library takes for granted: lengths, and what it would make room for. Raises _Damaged."""
    try:
        data = base64.b64decode(encoded, validate=True)
        cookie, length = _COMPRESSED_HEAD.unpack_from(data)
        if cookie != _COMPRESSED or length != len(data) - _COMPRESSED_HEAD.size:
            raise _Damaged("its histogram is cut short, or of another format than V2")
        inflate = zlib.decompressobj()
        plain = inflate.decompress(data[_COMPRESSED_HEAD.size :], _MOST_PAYLOAD_BYTES + _PLAIN_HEAD.size)
        head = _PLAIN_HEAD.unpack_from(plain)
    except (binascii.Error, struct.error, zlib.error) as error:
        raise _Damaged(f"its histogram is cut short or damaged: {error}") from error
    cookie, length, offset, digits, low, high, _ = head
    if not inflate.eof or length != len(plain) - _PLAIN_HEAD.size:
        raise _Damaged("its histogram has another length than it says")
    if (cookie, offset, digits, low, high) != (_PLAIN, 0, DIGITS, 1, MAX_USEC):
        raise _Damaged(f"it does not count microseconds up to an hour to {DIGITS} digits")
