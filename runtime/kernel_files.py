"""Readers of the text files in which the kernel lists keys and values."""

from __future__ import annotations


def parse_flat_keyed(text: str) -> dict[str, int]:
    """Parse lines ``key value`` of numbers, as cpu.stat and memory.stat have them (admin-guide/cgroup-v2.rst, "Flat
    keyed")."""
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def parse_fields(text: str) -> dict[str, str]:
    """Parse lines ``Key: value``, as /proc/PID/status has them, without white space around values."""
    lines = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, colon, value in lines if colon}


def parse_meminfo(text: str) -> dict[str, int]:
    """Parse /proc/meminfo, in bytes; numbers without a unit, such as of huge pages, are as they are."""
    fields = {key: value.split() for key, value in parse_fields(text).items()}
    return {key: int(words[0]) * (1024 if words[1:] == ["kB"] else 1) for key, words in fields.items()}


def available_bytes(meminfo: str) -> int:
    """Return MemAvailable of a /proc/meminfo: what could be handed out without swapping, by the kernel's estimate."""
    return parse_meminfo(meminfo)["MemAvailable"]
