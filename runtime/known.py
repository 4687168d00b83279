"""What is known of a container from its creation on, for the launcher to serve it without an interpreter.

``state``, ``start``, ``kill`` and ``delete`` need little of a container: where its cgroups are, what its state reads
like, whether anything happens beside it. That is left in a file beside its record. ``client/operations.c`` reads it,
and leaves to the interpreter what is not plain and what fails. A container without the file is the interpreter's.

The file: magic (8 bytes), then four little-endian u32: total size, flags, number of cgroups, of cgroups above those.
Then strings as in plans (runtime/plan/encode.py): what ``state`` prints before the status, between that and the process
id, and after it; the file that tells whether the container is frozen; the cgroups.
"""

from __future__ import annotations

import json
import os
import struct

from runtime.cgroups import Hierarchies
from runtime.cgroups.placing import CGROUP_PARENT
from runtime.config.types import Config
from runtime.plan.encode import encode_string
from runtime.state import Place, Record, cli_state

MAGIC = b"TBKNOW\x01\n"
# enum known_flags of launcher/client/known.h
_START, _DELETE, _UNIFIED, _KILLABLE = 1, 2, 4, 8
_HEADER = struct.Struct("<8s4I")


def state_around(state: dict[str, object]) -> tuple[str, str, str]:
    """The state as it is printed: before its status, between that and its process id, and after it."""
    text = json.dumps({**state, "status": "", "pid": 0}, indent=2)
    before, _, rest = text.partition('"status": "')  # only the specification's version and the id come before
    between, _, after = rest.partition("0")
    return f'{before}"status": "', between, f"{after}\n"


def _flags(config: Config, record: Record, found: Hierarchies) -> int:
    hooks, seccomp = config.hooks, config.linux.seccomp
    flags = _DELETE if not hooks.poststop else 0
    waits = record.choices.get("notify")  # until it is ready, to tell whoever wants to know
    if not (hooks.start_container or hooks.poststart or waits or seccomp and seccomp.listener_path):
        flags |= _START
    if "freezer" not in found.v1:
        flags |= _UNIFIED
    return flags | (_KILLABLE if not found.v1 else 0)


def _freezer(cgroup: str, found: Hierarchies) -> str:
    if "freezer" in found.v1:
        return f"{found.v1['freezer']}/{cgroup}/freezer.state"
    return f"{found.unified}/{cgroup}/cgroup.events" if found.unified else ""


def known(config: Config, record: Record, state: dict[str, object], found: Hierarchies) -> bytes:
    """The file, for a container with a cgroup; ``state`` is its ``cli_state``, whatever its status."""
    cgroups = [f"{mount}/{record.cgroup}" for mount in found.used]
    parents = [os.path.dirname(cgroup) for cgroup in cgroups] if record.cgroup.startswith(f"{CGROUP_PARENT}/") else []
    strings = [*state_around(state), _freezer(record.cgroup, found), *cgroups, *parents]
    body = b"".join(encode_string(os.fsencode(text)) for text in strings)
    return (
        _HEADER.pack(MAGIC, _HEADER.size + len(body), _flags(config, record, found), len(cgroups), len(parents)) + body
    )


def leave(place: Place, config: Config, record: Record, found: Hierarchies) -> None:
    """Write the file of a container that has just been recorded, where the launcher will serve it: the host's root's,
    with a cgroup that is not systemd's."""
    others = record.choices.get("scope") or record.choices.get("mapped")
    if os.geteuid() == 0 and record.cgroup and found.used and not others:
        place.write_known(known(config, record, cli_state(place, record, "created"), found))
