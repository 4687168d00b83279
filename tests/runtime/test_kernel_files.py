"""The kernel's files of keys and values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.kernel_files import available_bytes, parse_fields, parse_flat_keyed, parse_meminfo

MEMINFO = "MemTotal:       1000 kB\nMemAvailable:    600 kB\nHugePages_Total:       3\n"


def test_sizes_are_bytes_and_numbers_are_numbers() -> None:
    assert parse_meminfo(MEMINFO) == {"MemTotal": 1_024_000, "MemAvailable": 614_400, "HugePages_Total": 3}
    assert available_bytes(MEMINFO) == 614_400


def test_a_kernel_without_an_estimate_is_an_error() -> None:
    with pytest.raises(KeyError):
        available_bytes("MemTotal: 1 kB\n")


def test_flat_keyed() -> None:
    assert parse_flat_keyed("usage_usec 5\nuser_usec 3\n") == {"usage_usec": 5, "user_usec": 3}
    assert parse_flat_keyed("") == {}


def test_a_name_may_hold_a_colon() -> None:
    assert parse_fields("Name:\ta:b\nNSpid:\t7\t1\nnothing\n") == {"Name": "a:b", "NSpid": "7\t1"}


def test_the_kernels_own_can_be_read() -> None:
    assert (
        0
        < available_bytes(Path("/proc/meminfo").read_text())
        < parse_meminfo(Path("/proc/meminfo").read_text())["MemTotal"]
    )
    assert int(parse_fields(Path("/proc/self/status").read_text())["Pid"]) == os.getpid()
