"""By what the host tells that a canary was reached: a function for each kind, which returns what it saw, in words, or
nothing. What a program says counts only where it could not know it otherwise."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from testbed.probes.canaries import Canaries
from testbed.probes.objects import find_key, read_semaphore, remove_key
from testbed.probes.place import Evidence
from testbed.probes.sight import find_mounts
from testbed.probes.sockets import ask
from testbed.probes.told import TELLING, Judge

_FIFO = 1
# Of a canary: its processors' time, which a busy host may not have for anybody.
PACKET, PROCESSORS = "packet", "used_processors"
_MOST_OVER = 1.25  # of a limit of processors: periods and their ends


def find_reached(canaries: Canaries, canary: str, evidence: Evidence) -> str:
    """Return what the host saw of an attempt on a canary; "" where it saw nothing."""
    kind, _, argument = canary.partition(" ")
    return _JUDGES[kind](canaries, evidence, argument)


def _got_signal(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    number = evidence.fills["signal"]
    return f"the host's process got signal {number}" if canaries.process.has_said(f"signal {number}") else ""


def _wrote_flag(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    wrote = canaries.process.has_said(f"flag {evidence.fills['token']}")
    return "the memory of the host's process was changed" if wrote else ""


def _raised_semaphore(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    value = read_semaphore(canaries.semaphore)
    return f"the host's semaphore has the value {value}" if value else ""


def _added_key(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    found = find_key(evidence.fills["token"])
    if found is None:
        return ""
    with suppress(OSError):
        remove_key(found)
    return "the key is in the keyring of the host's root"


def _wrote_disk(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    file = canaries.disks["disk_written"][3]
    os.fsync(canaries.disks["disk_written"][0])
    with file.open("rb") as disk:
        return "it is on the host's disk" if evidence.fills["token"].encode() in disk.read(512) else ""


def _changed_setting(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    value = canaries.setting.read_text().strip()
    if value == canaries.value:
        return ""
    canaries.setting.write_text(canaries.value)
    return f"the host's setting was {value}"


def _sent_packet(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    return "the packet passed the host" if canaries.wire.has_seen(evidence.fills["token"]) else ""


def _bound(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    address = canaries.place.gateway if argument == "gateway" else argument
    answer = ask(address, int(evidence.fills["port"]))
    return f"it answered at {address}" if answer == evidence.fills["token"] else ""


def _answered(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    answer = ask(argument, int(evidence.fills["port"]), streams=False)
    return f"it answered at {argument}" if answer == evidence.fills["token"] else ""


def _served(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    kind, _, port = argument.partition(" ")
    answer = ask(canaries.place.own, int(port), streams=kind == "tcp")
    return f"it answered at its address, port {port}" if answer == evidence.fills["token"] else ""


def _created(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    return _find_created(canaries, evidence, "owner", 0)


def _created_setuid(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    return _find_created(canaries, evidence, "setuid", 0o4000)


def _find_created(canaries: Canaries, evidence: Evidence, suffix: str, bits: int) -> str:
    with suppress(FileNotFoundError):
        found = (canaries.place.volume / f"{evidence.fills['token']}-{suffix}").lstat()
        if found.st_uid == 0 and found.st_mode & bits == bits:
            return f"the file belongs to the host's root, with mode {found.st_mode & 0o7777:o}"
    return ""


def _written(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    with suppress(OSError):
        file = os.open(canaries.open_folder / "written", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return "it is in the host's file" if evidence.fills["token"].encode() in os.read(file, 512) else ""
        finally:
            os.close(file)
    return ""


def _removed(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    return "" if os.path.lexists(canaries.open_folder / "removed") else "the host's file is gone"


def _held_lock(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    with canaries.lock_file.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "the host could not have the lock"
    return ""


def _moved(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    outside = f"/{canaries.outside}"
    moved = seen is not None and bool(canaries.outside) and any(one.endswith(outside) for one in seen.groups)
    return "it is in a group without limits" if moved else ""


# Of the attempt's own process.


def _answered_by_kernel(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    ended = evidence.trace.state == "ended" and not evidence.trace.errno
    return "the host's kernel did it for a process of the host's" if ended and evidence.seen is not None else ""


def _answered_by_any(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    return "it could" if evidence.trace.state == "ended" and not evidence.trace.errno else ""


def _is_user(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    if seen is None:
        return "it could" if argument != "0" and _answered_by_any(canaries, evidence, argument) else ""
    inside = int(argument)
    numbers = {root + inside for root in seen.roots} if inside else {0}
    return next((f"it is the host's user {one}" for one in numbers if (one, one) in seen.users), "")


def _has_capability(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    if seen is None or _is_mapped(seen.namespaces.get("user", set())):
        return ""
    has = any(sets >> int(argument) & 1 for _, sets in seen.capabilities)
    return f"the host's process has capability {argument}" if has else ""


def _is_mapped(namespaces: set[str]) -> bool:
    return os.readlink("/proc/self/ns/user") not in namespaces


def _became_root(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    became = seen is not None and any(real != effective for real, effective in seen.users)
    return "an unprivileged user's process became its program's owner" if became else ""


def _became_capable(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    if seen is None:
        return ""
    became = any(real not in {0, *seen.roots} and sets >> 0 & 1 for real, sets in seen.capabilities)
    return "an unprivileged user's process got its program's capability" if became else ""


def _own_namespace(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    if seen is None or argument not in seen.runner_namespaces:
        return ""
    made = seen.namespaces.get(argument, set()) - {seen.runner_namespaces[argument]}
    return f"it is in a {argument} namespace of its own making" if made else ""


def _host_namespace(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    if seen is None:
        return ""
    hosts = os.readlink(f"/proc/{canaries.process.pid}/ns/{argument}")
    entered = hosts in seen.namespaces.get(argument, set()) and hosts != seen.runner_namespaces.get(argument)
    return f"it has entered the host's {argument} namespace" if entered else ""


def _has_descriptor(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    has = seen is not None and f"anon_inode:{argument}" in seen.descriptors
    return f"the host's process has a descriptor of {argument}" if has else ""


def _has_device(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    number = os.makedev(int(evidence.fills["device_major"]), int(evidence.fills["device_minor"]))
    return f"it has {argument} open" if seen is not None and number in seen.devices else ""


def _opened(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    return "it has the kernel's file open for writing" if seen is not None and seen.written else ""


def _mounted(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    token = evidence.fills["token"]
    done = seen is not None and any(line.partition(" - ")[2].split()[1:2] == [token] for line in seen.mounts)
    return "the file system is among its mounts" if done else ""


def _remounted(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    if seen is None:
        return ""
    was = any("ro" in options.split(",") for options, _, _ in find_mounts(seen.runner_mounts, argument))
    now = any("rw" in options.split(",") for options, _, _ in find_mounts(seen.mounts, argument))
    return f"its {argument} is writable now" if was and now else ""


def _uncovered(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    if seen is None:
        return ""
    was, now = (find_mounts(lines, argument) for lines in (seen.runner_mounts, seen.mounts))
    return f"its {argument} is covered no more" if was and not now else ""


def _pivoted(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    done = seen is not None and any(source == "testbed-probe" for _, _, source in find_mounts(seen.mounts, "/"))
    return "its root is another file system" if done else ""


def _routed(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    wanted = "".join(f"{int(one):02X}" for one in reversed(evidence.fills["route"].split(".")))
    done = seen is not None and any(line.split()[1:2] == [wanted] for line in seen.routes)
    return "the route is in its stack's table" if done else ""


def _has_persona(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    return "its personality is another" if seen is not None and 0x0400000 in seen.personas else ""


def _locked(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen, wanted = evidence.seen, int(evidence.fills["locked_bytes"])
    return f"it has {wanted >> 20} MiB locked" if seen is not None and seen.locked_bytes >= wanted else ""


def _held_memory(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen, limit = evidence.seen, canaries.place.memory_bytes
    if seen is None or seen.resident_bytes <= limit:
        return ""
    return f"it had {seen.resident_bytes >> 20} MiB, and the limit is {limit >> 20}"


def _held_tasks(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen, limit = evidence.seen, canaries.place.tasks
    return f"it had {seen.most} processes, and the limit is {limit}" if seen is not None and seen.most > limit else ""


def _held_disk(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen, wanted = evidence.seen, int(evidence.fills["disk_bytes"])
    return f"it had a file of {wanted >> 20} MiB" if seen is not None and seen.file_bytes >= wanted else ""


def _used_processors(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    used, limit = evidence.used_processors, canaries.place.cpus
    return f"it used {used:.2f} processors, and the limit is {limit:g}" if used > limit * _MOST_OVER else ""


def _hurried(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    return "it has a negative nice value" if seen is not None and min(seen.nice, default=0) < 0 else ""


def _is_real_time(canaries: Canaries, evidence: Evidence, argument: str) -> str:
    seen = evidence.seen
    return "it is a real-time process of the host's" if seen is not None and _FIFO in seen.policies else ""


_JUDGES: Mapping[str, Judge] = MappingProxyType(
    {
        **TELLING,
        "signal": _got_signal,
        "flag": _wrote_flag,
        "priority": lambda canaries, *_: canaries.process.priority_changed(),
        "affinity": lambda canaries, *_: canaries.process.processors_changed(),
        "core_limit": lambda canaries, *_: canaries.process.limit_changed(),
        "oom_score": lambda canaries, *_: canaries.process.score_changed(),
        "semaphore": _raised_semaphore,
        "key_added": _added_key,
        "disk_written": _wrote_disk,
        "setting": _changed_setting,
        PACKET: _sent_packet,
        "bound": _bound,
        "answered": _answered,
        "served": _served,
        "created": _created,
        "created_setuid": _created_setuid,
        "written": _written,
        "removed": _removed,
        "held_lock": _held_lock,
        "moved": _moved,
        "kernel": _answered_by_kernel,
        "answer": _answered_by_any,
        "user": _is_user,
        "capability": _has_capability,
        "became_root": _became_root,
        "became_capable": _became_capable,
        "own_namespace": _own_namespace,
        "host_namespace": _host_namespace,
        "descriptor": _has_descriptor,
        "device": _has_device,
        "opened": _opened,
        "mounted": _mounted,
        "remounted": _remounted,
        "uncovered": _uncovered,
        "pivoted": _pivoted,
        "route": _routed,
        "persona": _has_persona,
        "locked": _locked,
        "held_memory": _held_memory,
        "held_tasks": _held_tasks,
        "held_disk": _held_disk,
        PROCESSORS: _used_processors,
        "hurried": _hurried,
        "real_time": _is_real_time,
    }
)
