"""Containers made and deleted in a row: nothing of the caller's or the host's may grow.

    sudo .venv/bin/python benchmarks/container_churn.py [--containers 10000] [--json]

Before and after: our own resident set and open descriptors, the mounts that we see, the cgroups of the memory
hierarchy, and the host's processes. A warm-up of 200 comes first, so that what is made once is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from benchmarks.container_start import make_rootfs  # noqa: E402
from runtime import container  # noqa: E402
from runtime.cgroups import hierarchies  # noqa: E402
from runtime.errors import WorkloadError  # noqa: E402
from runtime.lease import cgroup_name, lease  # noqa: E402
from runtime.spec import Process, Resources, Spec  # noqa: E402

WARM_UP = 200
SETTLE_S = 3.0


def census() -> dict[str, int]:
    """What could leak, counted."""
    memory = hierarchies().mount_of("memory")
    status = Path("/proc/self/status").read_text()
    return {
        "resident_kib": int(re.findall(r"VmRSS:\s+(\d+)", status)[0]),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": sum(1 for _ in memory.rglob("cgroup.procs")) if memory else 0,
        "processes": sum(name.isdigit() and Path(f"/proc/{name}/cmdline").exists() for name in os.listdir("/proc")),
    }


def measure(count: int) -> dict[str, dict[str, int]]:
    """The census before and after ``count`` containers, each from create to delete."""
    name = f"churn-{os.getpid()}"
    with lease(name), tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        directory.chmod(0o755)
        rootfs = make_rootfs(directory)
        spec = Spec(Process(args=("/bin/true",)), (str(rootfs),), "benchmark", Resources(64 << 20, 1.0, 64))
        found = {}
        for label, rounds in (("before", WARM_UP), ("after", count)):
            for _ in range(rounds):
                if container.run(spec, name=cgroup_name(name, "c")) != 0:
                    raise WorkloadError("run /bin/true as a container: it failed")
            time.sleep(SETTLE_S)
            found[label] = census()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--containers", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.containers)
    if options.json:
        print(json.dumps(found))
        return
    for what, before in found["before"].items():
        print(f"{what:14} before {before:8}   after {found['after'][what]:8}")


if __name__ == "__main__":
    perform(main)
