"""Implement the commands that do not change a container: state, list, ps, spec, events and features."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import msgspec

from runtime.cgroups import Cgroup
from runtime.cgroups.placing import hierarchies_for
from runtime.errors import PrerequisiteError, UsageError
from runtime.oci import state
from runtime.oci.invocation import Ending, Invocation
from runtime.plan import steps as s
from runtime.plan.process import search_path

_NAP_S = 5.0


def print_state(invocation: Invocation) -> Ending:
    """Print the OCI state of one container as JSON."""
    container = invocation.container()
    record = container.read()
    word = state.status(container, record, hierarchies_for(record.cgroup))
    document = msgspec.json.encode(state.cli_state(container, record, word))
    invocation.print(msgspec.json.format(document, indent=2).decode() + "\n")
    return Ending()


def print_list(invocation: Invocation) -> Ending:
    """Print all containers as a table, as JSON or as ids."""
    rows = []
    for container in state.listing(invocation.root):
        try:
            record = container.read()
            word = state.status(container, record, hierarchies_for(record.cgroup))
            rows.append(state.cli_state(container, record, word))
        except state.UnknownContainer:  # deleted meanwhile
            continue
        except state.Damaged as error:
            invocation.warn(str(error))
    if invocation.options.quiet:
        invocation.print("".join(f"{row['id']}\n" for row in rows))
    elif invocation.options.format == "json":
        invocation.print(json.dumps(rows) + "\n")
    else:
        line = "{:<24} {:<8} {:<10} {:<40} {:<22} {}\n"
        invocation.print(line.format("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"))
        columns = ("id", "pid", "status", "bundle", "created", "owner")
        for row in rows:
            invocation.print(line.format(*(str(row[key]) for key in columns)))
    return Ending()


def print_ps(invocation: Invocation) -> Ending:
    """Print the processes of a container: their pids as JSON, or the output of ps(1) for them."""
    cgroup = invocation.container().read().cgroup
    pids = Cgroup(cgroup, hierarchies_for(cgroup)).pids() if cgroup else ()
    if invocation.options.format == "json":
        invocation.print(json.dumps(pids) + "\n")
        return Ending()
    if not pids:
        raise UsageError(f"ps {invocation.options.id}: container not running, or without a cgroup")
    env = tuple(f"{name}={value}" for name, value in invocation.caller.environment.items())
    program = shutil.which("ps", path=search_path(env))
    if program is None:
        raise PrerequisiteError("ps: not found", "install the package procps, or use --format json")
    return Ending(1, (s.Exec((program, "-f", "-p", ",".join(map(str, pids))), env),))


def write_spec(invocation: Invocation) -> Ending:
    """Write a config.json to start from."""
    from runtime.config.decode import encode
    from runtime.config.default import default_config, rootless_config

    path = Path(invocation.caller.path(invocation.options.bundle)) / "config.json"
    if path.exists():
        raise UsageError(f"write {path}: it is there already", "remove it first")
    rootless = invocation.options.rootless
    config = rootless_config(os.geteuid(), os.getegid()) if rootless else default_config()
    text = json.dumps(encode(config), indent=2) + "\n"
    mode = 0o666 & ~invocation.caller.request.umask
    temporary = f"{path}.{invocation.caller.pid}"
    return Ending(0, (s.Replace(str(path), temporary, text.encode(), mode),))


def print_events(invocation: Invocation) -> Ending:
    """Print a container's resource usage as JSON, once or at intervals."""
    from runtime.oci import resources

    interval = invocation.options.interval
    if not 0 < interval < 1e6:
        raise UsageError(f"--interval {interval}: give seconds, above 0")
    while True:
        invocation.print(json.dumps(resources.stats(invocation.container())) + "\n")
        if invocation.options.stats:
            return Ending()
        invocation.caller.perform()
        until = time.monotonic() + interval
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _NAP_S))
            invocation.caller.keep_alive()


def print_features(invocation: Invocation) -> Ending:
    """Print what this runtime supports (runtime-spec, features.md)."""
    from runtime.oci.features import features

    invocation.print(json.dumps(features(), indent=2) + "\n")
    return Ending()


COMMANDS = {
    "state": print_state,
    "list": print_list,
    "ps": print_ps,
    "spec": write_spec,
    "events": print_events,
    "features": print_features,
}
