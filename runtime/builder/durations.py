"""Durations as Go's time.ParseDuration reads them: ``1m30s``, ``1.5h``, ``250ms``."""

from __future__ import annotations

import re

_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(ns|us|µs|μs|ms|s|m|h)")
_LONGEST_NS = 2**63 - 1


def parse_duration(text: str) -> int:
    """Return a duration in nanoseconds. Raises ValueError for a text that is none, and for one below zero or beyond
    292 years, which Go's type ends at."""
    if text == "0":
        return 0
    total_ns, index = 0.0, 0
    while match := _PART.match(text, index):
        total_ns += float(match[1]) * _UNITS_NS[match[2]]
        index = match.end()
    if not text or index != len(text) or total_ns > _LONGEST_NS:
        raise ValueError(f"{text[:40]!r} is no duration such as 30s, 1m30s or 500ms")
    return round(total_ns)
