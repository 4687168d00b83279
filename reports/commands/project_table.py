"""Shows projects on a terminal: their services, with state, address, memory and age, and where they can be opened."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from runtime.output import printable
from testbed.projects.record import Member, Project, Record

_HEAD = ("SERVICE", "STATE", "ADDRESS", "MEMORY", "SINCE", "ON THIS HOST")
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def describe_age(seconds: float) -> str:
    """Return a time that has passed, as one reads it at a glance: ``4 s``, ``12 min``, ``5 h``, ``3 d``."""
    for unit_s, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds // unit_s:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _describe_state(member: Member) -> str:
    if member.state == "exited":
        return "exited" if member.exit_status is None else f"exited ({member.exit_status})"
    return f"{member.state} ({member.health})" if member.health else member.state


def _describe_memory(bytes_used: int | None) -> str:
    return "" if bytes_used is None else f"{bytes_used / 2**20:.1f} MiB"


def _rows(project: Project, record: Record, now_s: float) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for member in record.members:
        opened = [str(one) for one in record.published if one.service == member.name]
        memory = project.memory_bytes(member) if project.alive and member.state != "exited" else None
        since = describe_age(now_s - member.since_s) if member.since_s else ""
        state = _describe_state(member) if project.alive else "left behind"
        rows.append((member.name, state, member.address, _describe_memory(memory), since, " ".join(opened)))
    return rows


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose columns are as wide as what is in them."""
    all_rows = [tuple(head), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*all_rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in all_rows]


def describe_project(project: Project, now_s: float | None = None) -> str:
    """Return a project as text: a line that says what it is, then a row for each service."""
    now_s = time.time() if now_s is None else now_s
    record = project.record
    if record is None:
        return f"{project.name}: just being brought up" if project.alive else f"{project.name}: left by a killed holder"
    if not project.alive:
        state = "its holder was killed; ./invoke clean, or up and down, remove what that left"
    elif record.ready_s is None:
        state = f"starting since {describe_age(now_s - record.started_s)}"
    else:
        state = f"up since {describe_age(now_s - record.ready_s)}"
    title = f"{record.name}: {state}; scenario {record.scenario} on {record.label}"
    lines = format_table(_HEAD, _rows(project, record, now_s)) if record.members else []
    return "\n".join([printable(title), *(f"  {line}" for line in lines)])
