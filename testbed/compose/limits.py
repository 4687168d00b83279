"""What a service may use: its limits, in both of Compose's places for them, and those of its processes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from runtime.spec import Resources
from testbed.compose import keys
from testbed.compose.forms import read_bytes
from testbed.compose.keys import Notes
from testbed.compose.model import Ulimit
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value

# A virtual machine has a size, and the other side gets the same: what a service has whose file says nothing of it.
DEFAULT_CPUS = 1.0
DEFAULT_MEMORY_BYTES = 512 * 2**20
# The shortest quota that the kernel's scheduler takes: 1 ms of every 100.
LEAST_CPUS, MOST_CPUS = 0.01, 4096
MOST_PIDS = 2**22  # PID_MAX_LIMIT
_PERIOD_USEC = 100_000  # Docker's cpu_period
_ULIMITS = frozenset(
    ("as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack").split()
)


def read_resources(name: str, fields: Mapping[str, Value], notes: Notes) -> Resources:
    """Return a service's limits; processors and memory that are not given are the usual, with a note."""
    limits = _read_deploy(name, fields["deploy"], notes) if "deploy" in fields and not fields["deploy"].is_null else {}
    cpus = _one(fields, limits, "cpus", "cpus")
    memory = _one(fields, limits, "mem_limit", "memory")
    pids = _one(fields, limits, "pids_limit", "pids")
    number = cpus.number("processors", low=LEAST_CPUS, high=MOST_CPUS) if cpus is not None else _quota(fields)
    size = 0 if memory is None else read_bytes(memory)
    missing = [text for text, given in (("1 processor", number), ("512 MiB", size)) if not given]
    if missing:
        notes.say(f"{name}: no limit given, so it gets {' and '.join(missing)} on every platform")
    count = pids.integer(-1, MOST_PIDS, "processes and threads") if pids is not None else -1
    return Resources(
        memory_bytes=size or DEFAULT_MEMORY_BYTES,
        cpus=(number if math.isfinite(number) else DEFAULT_CPUS) or DEFAULT_CPUS,
        pids=count if count > 0 else None,
    )


def _one(fields: Mapping[str, Value], limits: Mapping[str, Value], key: str, deployed: str) -> Value | None:
    """Return the one of two keys that is there; both with different values are a mistake, as for Compose. A service's
    own 0 is no limit."""
    value, other = fields.get(key), limits.get(deployed)
    value = None if value is None or value.is_null or (value.is_text and value.printed() == "0") else value
    if value is not None and other is not None and value.printed() != other.printed():
        value.report(f"is {quote(value.printed())}, and deploy.resources.limits says otherwise", "one of the two")
    return other if value is None else value


def _quota(fields: Mapping[str, Value]) -> float:
    """Return the processors that quota and period mean, 0 without."""
    quota, period = (fields.get(key) for key in ("cpu_quota", "cpu_period"))
    if quota is None or quota.is_null:
        return 0.0
    usec = quota.integer(-1, 10**12, "microseconds")
    every = _PERIOD_USEC if period is None else period.integer(1000, 1_000_000, "microseconds")
    return min(max(usec / every, LEAST_CPUS), MOST_CPUS) if usec > 0 else 0.0


def _read_deploy(name: str, deploy: Value, notes: Notes) -> dict[str, Value]:
    """Return the limits below ``deploy``."""
    fields = keys.DEPLOY.read(deploy, notes, name, "deploy.")
    if "resources" not in fields:
        return {}
    resources = keys.RESOURCES.read(fields["resources"], notes, name, "deploy.resources.")
    if "reservations" in resources:
        keys.RESERVATIONS.read(resources["reservations"], notes, name, "deploy.resources.reservations.")
    if "limits" not in resources:
        return {}
    return keys.LIMITS.read(resources["limits"], notes, name)


def read_ulimits(value: Value, service: str, notes: Notes) -> tuple[Ulimit, ...]:
    """Return the limits of a service's processes."""
    ulimits: list[Ulimit] = []
    for name, entry in value.entries().items():
        if name not in _ULIMITS:
            entry.report(f"{quote(name)} is no limit of processes", f"one of {', '.join(sorted(_ULIMITS))}")
        elif entry.is_mapping:
            fields = keys.ULIMIT.read(entry, notes, service)
            soft, hard = (_ulimit(fields[key]) if key in fields else None for key in ("soft", "hard"))
            if soft is None or hard is None:
                entry.report("lacks a part", "both soft and hard")
                continue
            ulimits.append(Ulimit(name, soft, hard))
        else:
            both = _ulimit(entry)
            ulimits.append(Ulimit(name, both, both))
    return tuple(ulimits)


def _ulimit(value: Value) -> int:
    text = value.text("a number, -1 for no limit")
    if text == "unlimited":
        return -1
    if not re.fullmatch(r"-1|[0-9]{1,19}", text):
        value.report(f"is {quote(text)}", "a number, -1 for no limit")
        return -1
    return int(text)
