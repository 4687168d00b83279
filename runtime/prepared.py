"""Prepared runs: what ``run`` does with a bundle, worked out once, as a file that the launcher performs by itself.

Most of a run's time is the interpreter's: to start, to read and check config.json, to make a plan of it. None of that
depends on the container's id, and little on anything but config.json. So the first plain run of a bundle leaves its
plan in the state's root, with all that it rests on. The launcher (client/front.c) compares that, byte for byte, and
does it again; if anything differs, or fails, the interpreter does it anew.

The file: magic (8 bytes), then eight little-endian u32: total size, number of inputs, of cgroups, of cgroups above
those, the step of the host's plan that makes the first cgroup, the offsets of the host's and the container's plan, 0.
Then strings as in plans (runtime/plan/encode.py): the record, the inputs in pairs, the cgroups. Then the two plans. In
all strings MARK stands for the id. An input is a kind and a path, and what must be found: ``h`` what the file holds,
``s`` its size and time of change, ``l`` where it leads, ``m`` its lines about cgroups.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from contextlib import suppress
from errno import EEXIST
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runtime.atomic import replace_file
from runtime.cgroups import Hierarchies
from runtime.cgroups.hierarchy import delegations
from runtime.config.types import Config
from runtime.plan import steps as s
from runtime.plan.bundle import Choices, bundle_plan
from runtime.plan.encode import encode, encode_string, raw_strings
from runtime.seccomp.kept import relied_on
from runtime.state import Record

MAGIC = b"TBRUN\x01\n\0"
MARK = "\ue000"
_HEADER = struct.Struct("<8s8I")
_STAT = struct.Struct("<3Q")
_MOST = 64  # bundles that are remembered; beyond, the oldest is forgotten
_PACKAGE = Path(__file__).resolve().parent


def file_name(bundle: str) -> str:
    """The name of a bundle's prepared run: the 64-bit FNV-1a hash of its path (draft-eastlake-fnv)."""
    value = 0xCBF29CE484222325
    for byte in bundle.encode():
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return f"{value:016x}"


def is_plain(config: Config, record: Record, parent: str) -> bool:
    """Whether nothing happens between the steps of its plan: no hook, no terminal, no map of ids, no listener."""
    hooks = config.hooks
    others = (hooks.prestart, hooks.create_runtime, hooks.create_container, hooks.start_container, hooks.poststart)
    process, seccomp = config.process, config.linux.seccomp
    return (
        record.cgroup == f"{parent}/{record.id}"
        and not any(others)
        and not hooks.poststop
        and process is not None
        and not process.terminal
        and not (seccomp and seccomp.listener_path)
        and not config.linux.net_devices
        and all(namespace.type != "user" for namespace in config.linux.namespaces)
        and all(mount.type == "proc" for mount in config.mounts if mount.destination.rstrip("/") == "/proc")
        and MARK not in record.config + record.bundle + record.rootfs
        and record.bundle.isprintable()
    )


def _host_steps(found: Hierarchies, cgroup: str) -> tuple[list[s.Step], int]:
    """What makes the cgroup, and which step makes its first directory, which must not be there."""
    parent = cgroup.rpartition("/")[0]
    steps: list[s.Step] = [s.Mkdir(f"{mount}/{parent}", tolerate=(EEXIST,)) for mount in found.used]
    claim = len(steps)
    steps.append(s.Mkdir(f"{found.used[0]}/{cgroup}"))
    steps += [s.Mkdir(f"{mount}/{cgroup}", tolerate=(EEXIST,)) for mount in found.used[1:]]
    if found.unified and (controllers := found.v2 & set(found.wanted)):
        passing_on = delegations(found.unified, parent, controllers)
        steps += [s.Write(str(path), (words,)) for path, words in passing_on]
    if cpuset := found.v1.get("cpuset"):
        for name in (parent, cgroup):
            for file in ("cpuset.cpus", "cpuset.mems"):
                steps.append(s.Write(f"{cpuset}/{name}/{file}", ((cpuset / file).read_text().strip(),)))
    return steps, claim


def _inputs(config: Config, record: Record, found: Hierarchies) -> list[tuple[str, bytes]]:
    bundle = record.bundle
    inputs = [
        (f"h{bundle}/config.json", record.config.encode()),
        (
            f"l{bundle}/{config.root.path}" if config.root.path[:1] != "/" else f"l{config.root.path}",
            os.fsencode(record.rootfs),
        ),
        ("m/proc/self/mountinfo", _cgroup_lines()),
    ]
    if cpuset := found.v1.get("cpuset"):
        inputs += [(f"h{cpuset}/{file}", (cpuset / file).read_bytes()) for file in ("cpuset.cpus", "cpuset.mems")]
    return inputs + [(f"s{path}", _looks(path)) for path in _code()]


def _cgroup_lines() -> bytes:
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if b" - cgroup" in line)


def _looks(path: str) -> bytes:
    status = os.stat(path)
    return _STAT.pack(status.st_size, *divmod(status.st_mtime_ns, 10**9))


def _code() -> list[str]:
    """The files that the plan came out of: our modules, and the library that compiles filters."""
    files = {getattr(module, "__file__", None) or "" for module in sys.modules.values()}
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libseccomp" in line}
    return sorted({file for file in files if Path(file).is_relative_to(_PACKAGE)} | mapped | relied_on())


def assemble(
    record: str,
    inputs: list[tuple[str, bytes]],
    cgroups: list[str],
    parents: list[str],
    claim: int,
    host: s.Plan,
    container: s.Plan,
) -> bytes:
    """The file, of its parts."""
    strings = [record.encode(), *(part for path, expected in inputs for part in (os.fsencode(path), expected))]
    strings += [name.encode() for name in (*cgroups, *parents)]
    body, plans = b"".join(map(encode_string, strings)), (encode(host), encode(container))
    first = _HEADER.size + len(body)
    second = first + len(plans[0])
    total = second + len(plans[1])
    numbers = (total, len(inputs), len(cgroups), len(parents), claim, first, second, 0)
    return _HEADER.pack(MAGIC, *numbers) + body + b"".join(plans)


def prepare(config: Config, record: Record, found: Hierarchies) -> bytes:
    """The prepared run of a bundle from the record of one of its containers, for which ``is_plain`` holds."""
    cgroup = record.cgroup.removesuffix(record.id) + MARK
    choices: dict[str, Any] = {**record.choices, "cgroup": cgroup, "start_immediately": True}
    if choices["keyring"]:
        choices["keyring"] = str(choices["keyring"]).removesuffix(record.id) + MARK
    made = replace(record, id=MARK, cgroup=cgroup, choices=choices, pid=0, start_time=0)
    plan = bundle_plan(config, found, record.bundle, Choices(**choices))
    steps, claim = _host_steps(found, cgroup)
    text = json.dumps(made.made_as(), ensure_ascii=False)
    cgroups = [f"{mount}/{cgroup}" for mount in found.used]
    parents = [os.path.dirname(directory) for directory in cgroups]
    return assemble(text, _inputs(config, record, found), cgroups, parents, claim, s.Plan((), tuple(steps)), plan)


def save(root: Path, config: Config, record: Record, found: Hierarchies) -> None:
    """Keep a bundle's prepared run in the state's root, for the launcher to find."""
    choices: dict[str, Any] = record.choices
    plan = bundle_plan(config, found, record.bundle, Choices(**choices))
    if any(MARK.encode() in text for step in plan.steps() for text in raw_strings(step)):
        return  # by chance
    directory = root / "@prepared"
    directory.mkdir(mode=0o700, exist_ok=True)
    replace_file(directory / file_name(record.bundle), prepare(config, record, found))
    kept = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    for path in kept[:-_MOST]:
        with suppress(FileNotFoundError):
            path.unlink()
