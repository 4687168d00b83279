"""This module reports what a cgroup has used, in the format of runc's ``events --stats`` (runc, types/events.go)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from runtime.cgroups.cgroup import Cgroup
from runtime.kernel_files import parse_flat_keyed

_USER_HZ_NS = 10_000_000  # cpuacct.stat counts in hundredths of a second, regardless of the kernel's own tick
_UNLIMITED = 1 << 63

Numbers = dict[str, int]


def _keyed(path: Path) -> Numbers:
    with suppress(OSError):
        return parse_flat_keyed(path.read_text())
    return {}


def _number(path: Path) -> int | None:
    """Return a file's number, or None for an absent file and for one that holds no limit."""
    with suppress(OSError):
        text = path.read_text().strip()
        return int(text) if text.isdigit() and int(text) < _UNLIMITED - 4096 else None
    return None


def _present(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _cpu(cgroup: Cgroup) -> dict[str, object]:
    """Return CPU usage and throttling, with times in nanoseconds."""
    throttled = _keyed(cgroup.file("cpu", "cpu.stat", "cpu.stat"))
    throttling = {
        "periods": throttled.get("nr_periods", 0),
        "throttledPeriods": throttled.get("nr_throttled", 0),
        "throttledTime": throttled.get("throttled_time", throttled.get("throttled_usec", 0) * 1000),
    }
    if "cpuacct" in cgroup.hierarchies.v1:
        shares = _keyed(cgroup.file("cpuacct", "cpuacct.stat", ""))
        user, kernel = (shares.get(name, 0) * _USER_HZ_NS for name in ("user", "system"))
        each = [int(word) for word in cgroup.file("cpuacct", "cpuacct.usage_percpu", "").read_text().split()]
    else:
        user, kernel = (throttled.get(name, 0) * 1000 for name in ("user_usec", "system_usec"))
        each = []
    usage = {"total": cgroup.cpu_usage_ns(), "kernel": kernel, "user": user, **({"percpu": each} if each else {})}
    return {"usage": usage, "throttling": throttling}


def _memory(cgroup: Cgroup) -> dict[str, object]:
    """Return memory usage in bytes; ``failcnt`` counts how often the limit was reached."""
    failures = _number(cgroup.file("memory", "memory.failcnt", ""))
    if failures is None:
        failures = _keyed(cgroup.file("memory", "", "memory.events")).get("max")
    usage = _present(
        usage=cgroup.memory_bytes(),
        max=_number(cgroup.file("memory", "memory.max_usage_in_bytes", "memory.peak")),
        limit=_number(cgroup.file("memory", "memory.limit_in_bytes", "memory.max")),
        failcnt=failures,
    )
    raw = cgroup.memory_stat()
    return {"usage": usage, "cache": raw.get("cache", raw.get("file", 0)), "raw": raw}


def _block(cgroup: Cgroup) -> dict[str, object]:
    """Return the bytes transferred and the operations, by device and direction."""
    if "blkio" in cgroup.hierarchies.v1:
        files = {
            "ioServiceBytesRecursive": "blkio.throttle.io_service_bytes_recursive",
            "ioServicedRecursive": "blkio.throttle.io_serviced_recursive",
        }
        return {name: _entries(cgroup.file("blkio", file, "")) for name, file in files.items()}
    counted: dict[str, object] = {}
    with suppress(OSError):
        lines = [line.split() for line in cgroup.file("io", "", "io.stat").read_text().splitlines()]
        for name, keys in {"ioServiceBytesRecursive": "bytes", "ioServicedRecursive": "ios"}.items():
            words = [(line[0], word.partition("=")) for line in lines for word in line[1:]]
            counted[name] = [
                _entry(device, {"r": "Read", "w": "Write", "d": "Discard"}[key[0]], int(value))
                for device, (key, _, value) in words
                if key[1:] == keys
            ]
    return counted


def _entries(path: Path) -> list[dict[str, object]]:
    with suppress(OSError):
        lines = [line.split() for line in path.read_text().splitlines()]
        return [_entry(device, kind, int(value)) for device, kind, value in (line for line in lines if len(line) == 3)]
    return []


def _entry(device: str, kind: str, value: int) -> dict[str, object]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": kind, "value": value}


def _huge_pages(cgroup: Cgroup) -> dict[str, object]:
    mount = cgroup.hierarchies.mount_of("hugetlb")
    if mount is None:
        return {}
    v1 = "hugetlb" in cgroup.hierarchies.v1
    current = "usage_in_bytes" if v1 else "current"
    counted: dict[str, object] = {}
    for path in sorted((mount / cgroup.name).glob(f"hugetlb.*B.{current}")):
        size = path.name.split(".")[1]
        counted[size] = _present(usage=_number(path), max=_number(path.with_name(f"hugetlb.{size}.max_usage_in_bytes")))
    return counted


def usage(cgroup: Cgroup) -> dict[str, object]:
    """Return all statistics, leaving out those of controllers that the host lacks."""
    has = cgroup.hierarchies.mount_of
    data: dict[str, object] = {}
    if has("cpuacct") or has("cpu"):
        data["cpu"] = _cpu(cgroup)
    if has("memory"):
        data["memory"] = _memory(cgroup)
    if has("pids"):
        data["pids"] = _present(
            current=_number(cgroup.file("pids", "pids.current", "pids.current")),
            limit=_number(cgroup.file("pids", "pids.max", "pids.max")),
        )
    if has("blkio") or has("io"):
        data["blkio"] = _block(cgroup)
    if huge := _huge_pages(cgroup):
        data["hugetlb"] = huge
    return data
