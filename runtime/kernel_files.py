"""This module parses the text files in which the kernel lists keys and values."""

from __future__ import annotations


def parse_flat_keyed(text: str) -> dict[str, int]:
    """Parse lines ``key value`` with numeric values, as in cpu.stat (admin-guide/cgroup-v2.rst, "Flat keyed")."""
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def parse_fields(text: str) -> dict[str, str]:
    """Parse lines ``Key: value``, as in /proc/PID/status, and strip white space around the values."""
    lines = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, colon, value in lines if colon}


def parse_meminfo(text: str) -> dict[str, int]:
    """Parse /proc/meminfo into bytes. Numbers without a unit, such as counts of huge pages, stay unchanged."""
    fields = {key: value.split() for key, value in parse_fields(text).items()}
    return {key: int(words[0]) * (1024 if words[1:] == ["kB"] else 1) for key, words in fields.items()}


def available_bytes(meminfo: str) -> int:
    """Return MemAvailable of /proc/meminfo, the kernel's estimate of the bytes available without swapping."""
    return parse_meminfo(meminfo)["MemAvailable"]
