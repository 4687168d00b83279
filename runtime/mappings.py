"""A new user namespace, seen from outside: its maps of ids, and what we may make for it."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.config.decode import short
from runtime.config.types import Config
from runtime.errors import PrerequisiteError, UsageError
from runtime.plan.constants import CAPABILITIES
from runtime.plan.mounts import map_lines


def may_make_nodes() -> bool:
    """Whether we may make device nodes: a root that is itself confined may lack CAP_MKNOD."""
    fields = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(fields["CapEff"], 16) >> CAPABILITIES.index("CAP_MKNOD") & 1)


def write_maps(pid: int, config: Config) -> None:
    """Write the maps of ids of a new user namespace: ourselves, or through newuidmap for an ordinary user's ranges."""
    linux = config.linux
    for file, mappings in (("uid_map", linux.uid_mappings), ("gid_map", linux.gid_mappings)):
        if not mappings:
            continue
        if os.geteuid() == 0:
            _write(Path(f"/proc/{pid}/{file}"), map_lines(mappings))
        elif len(mappings) == 1 and mappings[0].size == 1:
            if file == "gid_map":
                _write(Path(f"/proc/{pid}/setgroups"), "deny")
            _write(Path(f"/proc/{pid}/{file}"), map_lines(mappings))
        else:
            import subprocess

            command = [f"new{file.replace('_', '')}", str(pid), *map_lines(mappings).split()]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except FileNotFoundError as error:
                raise PrerequisiteError(f"{command[0]}: not found", "install the package uidmap") from error
            except subprocess.CalledProcessError as error:
                raise UsageError(f"{' '.join(command)}: {error.stderr.strip()}", "see /etc/subuid") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        lines = short(", ".join(text.strip().splitlines()))
        hint = "ids must be our own to give, and no two lines may have the same ones (user_namespaces(7))"
        raise UsageError(f"write {lines} to {path}: {error.strerror}", hint) from error
