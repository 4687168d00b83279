"""By what the host tells that a canary was reached of which the program tells something that it could only know from
there: a secret, or what the host knows of itself."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from testbed.probes.canaries import Canaries
from testbed.probes.place import Evidence

# Returns what the host saw, in words, or nothing; the last argument is what follows a kind's name in a probe.
Judge = Callable[[Canaries, Evidence, str], str]
# Those that are reached where their secret is told.
_TELLING = (
    "secret", "handle", "process", "listener", "abstract", "traffic", "segment", "message", "posix_message", "key",
    "log", "disk", "listed_key", "listed_socket", "watched",
)  # fmt: skip
_CLOCK_S = 2.0
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def _told_secret(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    return "it told the canary's secret" if canaries.secret in evidence.trace.got else ""


def _told(what: Callable[[Canaries], str], words: str) -> Judge:
    def judge(canaries: Canaries, evidence: Evidence, argument: str) -> str:
        return words if what(canaries) in evidence.trace.got else ""

    return judge


def _told_port(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    fields = re.split(r"_+", evidence.trace.got)
    return "it told the number of the host's socket" if canaries.listening_inode in fields else ""


def _told_host_name(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    told = evidence.trace.got.rstrip("_")  # of a line's end
    return "it told the host's name" if told == os.uname().nodename != canaries.place.hostname else ""


def _told_partition(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    fields = re.split(r"_+", evidence.trace.got)
    is_same = str(canaries.disk_kib) in fields and evidence.fills["disk"] in fields
    return "it told the size of the host's disk" if is_same else ""


def _told_segment(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    fields = [one for one in re.split(r"_+", evidence.trace.got) if one]
    # Key, number, mode, size: the size of what the host made, and its own number for it.
    return "it told the host's segment" if len(fields) > 4 and fields[3] == "4096" else ""


def _told_clock(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    found, known = _NUMBER.match(evidence.trace.got), evidence.clocks.get(int(argument))
    if found is None or known is None or abs(float(found[0]) - known) > _CLOCK_S:
        return ""
    return "it told the time of the host's clock"


def _told_time(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    found = _NUMBER.match(evidence.trace.got)
    is_near = found is not None and abs(float(found[0]) - evidence.clocks.get(time.CLOCK_REALTIME, 0.0)) < 60
    return "it knows what time it is" if is_near else ""


def _told_memory(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    total = Path("/proc/meminfo").read_text().split()[1]
    return "it told the host's memory" if total in re.split(r"_+", evidence.trace.got) else ""


def _told_group(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    group = canaries.place.group.rpartition("/")[0]
    return "it told the name of the host's group" if group in evidence.trace.got else ""


def _read_boot_id(canaries: Canaries) -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


TELLING: Mapping[str, Judge] = MappingProxyType(
    {
        **dict.fromkeys(_TELLING, _told_secret),
        "listed_interface": _told(lambda canaries: canaries.secret[:8], "it told the name of the host's interface"),
        "listed_port": _told_port,
        "listed_segment": _told_segment,
        "locked_range": _told(lambda canaries: str(canaries.locked_from), "it told which range the host has locked"),
        "partition": _told_partition,
        "host_name": _told_host_name,
        "group_path": _told_group,
        "clock": _told_clock,
        "same_time": _told_time,
        "boot_id": _told(_read_boot_id, "it told the number of the host's start"),
        "total_memory": _told_memory,
    }
)
