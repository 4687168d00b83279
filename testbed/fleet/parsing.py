"""Reads what a person writes of fleets: sizes, shares, percentages."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from runtime.errors import UsageError
from testbed.fleet.demands import Host
from testbed.fleet.distributions import Size

_UNITS = {"M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9.]+)c,([0-9.]+)([MGT])i?B?", re.IGNORECASE)
_MOST_SIZES = 1000


def parse_size(option: str, text: str) -> Host:
    """Return the processors and memory of text such as ``64c,512G``. Raises UsageError for anything else."""
    found = _SIZE.fullmatch(text.strip().replace(" ", ""))
    size = Host(_number(found[1]), _number(found[2]) * _UNITS[found[3].upper()]) if found else Host(0, 0)
    if not (size.cores > 0 and size.memory_bytes > 0):
        raise UsageError(f"{option} {text}: no size", "processors and memory, such as 64c,512G")
    return size


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def parse_sizes(option: str, text: str) -> tuple[Size, ...]:
    """Return the sizes of text such as ``0.6:2c,4G;0.4:8c,32G``: each with its share."""
    sizes = []
    for part in text.split(";"):
        share, colon, size = part.partition(":")
        if not colon:
            raise UsageError(
                f"{option} {text}: {part!r} has no share", "a share before each size, as 0.6:2c,4G;0.4:8c,32G"
            )
        host = parse_size(option, size)
        sizes.append(Size(_number(share), host.cores, host.memory_bytes))
    if len(sizes) > _MOST_SIZES:
        raise UsageError(f"{option}: more than {_MOST_SIZES} sizes", "fewer")
    return tuple(sizes)


def parse_numbers(option: str, text: str, count: int | None = None) -> tuple[float, ...]:
    """Return the finite numbers of a list with commas, exactly ``count`` unless that is None."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)) or (count is not None and len(numbers) != count):
        raise UsageError(f"{option} {text}: not {count or 'a list of'} numbers", "numbers with commas between them")
    return numbers


def parse_percent(option: str, text: str) -> float:
    """Return a percentage as a fraction."""
    (number,) = parse_numbers(option, text.strip().removesuffix("%").strip(), 1)
    return number / 100


def parse_spares(option: str, text: str) -> tuple[int, int]:
    """Return spare hosts and the hosts of a cluster of text such as ``1/32``; ``0`` is none."""
    parts: Sequence[str] = text.split("/")
    if text.strip() == "0":
        return 0, 1
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts) or int(parts[1]) < 1:
        raise UsageError(
            f"{option} {text}: no number of spare hosts", "so many of a cluster of so many, such as 1/32; or 0"
        )
    return int(parts[0]), int(parts[1])
