"""Write the id maps of a new user namespace from outside it, and tell whether we may make device nodes for it."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.config.decode import short
from runtime.config.types import Config
from runtime.errors import PrerequisiteError, UsageError
from runtime.oci.caller import Caller
from runtime.plan.constants import CAPABILITIES
from runtime.plan.mounts import map_lines


def may_make_nodes(capabilities: int) -> bool:
    """Tell whether these capabilities allow making device nodes: a root that is itself confined may lack CAP_MKNOD."""
    return bool(capabilities >> CAPABILITIES.index("CAP_MKNOD") & 1)


def write_maps(pid: int, config: Config, caller: Caller) -> None:
    """Have the client write the id maps of a new user namespace, either itself or, for an unprivileged user's ranges,
    with newuidmap and newgidmap. Raises UsageError, PrerequisiteError."""
    linux = config.linux
    for file, mappings in (("uid_map", linux.uid_mappings), ("gid_map", linux.gid_mappings)):
        if not mappings:
            continue
        if os.geteuid() == 0:
            _write(Path(f"/proc/{pid}/{file}"), map_lines(mappings), caller)
        elif len(mappings) == 1 and mappings[0].size == 1:
            if file == "gid_map":
                _write(Path(f"/proc/{pid}/setgroups"), "deny", caller)
            _write(Path(f"/proc/{pid}/{file}"), map_lines(mappings), caller)
        else:
            command = [f"new{file.replace('_', '')}", str(pid), *map_lines(mappings).split()]
            try:
                done = caller.execute(command)
            except OSError as error:
                raise PrerequisiteError(f"{command[0]}: {error.strerror}", "install the package uidmap") from error
            if done.status != 0:
                raise UsageError(f"{' '.join(command)}: {done.errors.strip()}", "see /etc/subuid")


def _write(path: Path, text: str, caller: Caller) -> None:
    try:
        caller.write(path, text)
    except OSError as error:
        lines = short(", ".join(text.strip().splitlines()))
        hint = "ids must be our own to give, and no two lines may have the same ones (user_namespaces(7))"
        raise UsageError(f"write {lines} to {path}: {error.strerror}", hint) from error
