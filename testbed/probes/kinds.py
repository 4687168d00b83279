"""The kinds of canaries, and what each offers to the words of a probe."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# What every probe's words may have: ``host``, where the rung has the host's files by their names; ``token``, which is
# the attempt's own; ``mark``, what the names of all canaries begin with, and a secret follows.
COMMON = ("host", "token", "mark")
_PROCESS = ("pid", "address", "flag", "descriptor", "limit", "score", "signal")
_KEY = ("key",)
_GROUP = ("group_type", "group_options", "group_path")
_NODE = ("major", "minor")
# By kind; what follows a kind's name in a probe, as `uid` in `user 0`, is an argument of what the host looks for.
CANARIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # Secrets in files, processes and objects: reached where the program tells the secret.
        "secret": ("secret", "secret_name", "pid"),
        "handle": ("handle_type", "handle", "volume"),
        "process": _PROCESS,
        "listener": ("port",),
        "abstract": ("name",),
        "traffic": ("word", "wait_ms"),
        "segment": _KEY,
        "message": _KEY,
        "posix_message": ("name",),
        "key": ("key_name",),
        "log": (),
        "disk": _NODE,
        "listed_key": (),
        "listed_socket": (),
        "listed_interface": (),
        "listed_port": ("port_hex",),
        "listed_segment": _KEY,
        "locked_range": ("inode",),
        "partition": ("disk",),
        "watched": ("volume", "wait_ms"),
        # What the host knows of itself: reached where the program tells the same.
        "host_name": (),
        "group_path": ("group",),
        "clock": (),
        "same_time": (),
        "boot_id": (),
        "total_memory": (),
        # What the host sees changed, or has received.
        "signal": _PROCESS,
        "flag": _PROCESS,
        "priority": _PROCESS,
        "affinity": _PROCESS,
        "core_limit": _PROCESS,
        "oom_score": _PROCESS,
        "semaphore": _KEY,
        "key_added": (),
        "disk_written": _NODE,
        "setting": ("setting", "value"),
        "packet": ("gateway",),
        "bound": ("port", "gateway"),
        "answered": ("port",),
        "served": ("own",),
        "created": ("volume",),
        "created_setuid": ("volume",),
        "written": ("volume",),
        "removed": ("volume",),
        "held_lock": ("volume", "lock_name"),
        "moved": _GROUP,
        # What the host sees of the attempt's own process.
        "kernel": (),
        "user": (),
        "capability": (),
        "became_root": (),
        "became_capable": (),
        "own_namespace": (),
        "host_namespace": ("pid",),
        "descriptor": (),
        "device": ("device_major", "device_minor"),
        "opened": (),
        "mounted": (),
        "remounted": (),
        "uncovered": (),
        "pivoted": (),
        "route": ("route",),
        "persona": (),
        "locked": ("locked_bytes",),
        "held_memory": ("memory_bytes",),
        "held_tasks": ("tasks",),
        "held_disk": ("disk_bytes",),
        "used_processors": ("spin_ms",),
        "hurried": (),
        "real_time": (),
        # Nobody's but the attempt's own: what must go on working.
        "answer": (),
    }
)
