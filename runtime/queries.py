"""The commands that only look: what a container is, uses and contains, what there are, and what this runtime can."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from runtime.errors import UsageError
from runtime.invocation import place_of, warner

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def print_state(options: argparse.Namespace) -> int:
    from runtime import state
    from runtime.cgroups.placing import hierarchies_for

    place = place_of(options)
    record = place.read()
    word = state.status(place, record, hierarchies_for(record.cgroup))
    print(json.dumps(state.cli_state(place, record, word), indent=2))
    return 0


def print_list(options: argparse.Namespace) -> int:
    from runtime import state
    from runtime.cgroups.placing import hierarchies_for

    rows = []
    for place in state.listing(Path(options.root) if options.root else state.default_root()):
        try:
            record = place.read()
            word = state.status(place, record, hierarchies_for(record.cgroup))
            rows.append(state.cli_state(place, record, word))
        except state.UnknownContainer:  # deleted meanwhile
            continue
        except state.Damaged as error:
            warner(options)(str(error))
    if options.quiet:
        print("".join(f"{row['id']}\n" for row in rows), end="")
    elif options.format == "json":
        print(json.dumps(rows))
    else:
        line = "{:<24} {:<8} {:<10} {:<40} {:<22} {}"
        print(line.format("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"))
        for row in rows:
            print(line.format(*(str(row[key]) for key in ("id", "pid", "status", "bundle", "created", "owner"))))
    return 0


def print_ps(options: argparse.Namespace) -> int:
    import subprocess

    from runtime.cgroups import Cgroup
    from runtime.cgroups.placing import hierarchies_for

    cgroup = place_of(options).read().cgroup
    pids = Cgroup(cgroup, hierarchies_for(cgroup)).pids() if cgroup else ()
    if options.format == "json":
        print(json.dumps(pids))
        return 0
    if not pids:
        raise UsageError(f"ps {options.id}: container not running, or without a cgroup")
    return subprocess.run(["ps", "-f", "-p", ",".join(map(str, pids))]).returncode


def write_spec(options: argparse.Namespace) -> int:
    from runtime.config.decode import encode
    from runtime.config.default import default_config, rootless_config

    path = options.bundle / "config.json"
    if path.exists():
        raise UsageError(f"write {path}: it is there already", "remove it first")
    config = rootless_config(os.geteuid(), os.getegid()) if options.rootless else default_config()
    path.write_text(json.dumps(encode(config), indent=2) + "\n")
    return 0


def print_events(options: argparse.Namespace) -> int:
    import gc

    from runtime import resources

    if not 0 < options.interval < 1e6:
        raise UsageError(f"--interval {options.interval}: give seconds, above 0")
    gc.enable()  # it may go on for long
    while True:
        print(json.dumps(resources.stats(place_of(options))), flush=True)
        if options.stats:
            return 0
        time.sleep(options.interval)


def print_features(_: argparse.Namespace) -> int:
    from runtime.config.features import features

    print(json.dumps(features(), indent=2))
    return 0


COMMANDS = {
    "state": print_state,
    "list": print_list,
    "ps": print_ps,
    "spec": write_spec,
    "events": print_events,
    "features": print_features,
}
