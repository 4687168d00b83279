"""Containers made and deleted in a row: nothing of the caller's or the host's may grow.

    sudo .venv/bin/python benchmarks/container_churn.py [--containers 10000] [--command-line 500] [--json]

Two rows: through the Python API (a run each, from create to delete), and by the command line (create, start, delete
--force: a process each). Counted after a warm-up, halfway and at the end, when the host has settled:

- ours: the caller's resident set, open descriptors and mounts; the cgroups below the run's own in every hierarchy; the
  processes that are our children or in those cgroups; the files of the command line's state;
- the host's, which others change too: the cgroups of its fullest hierarchy, dying ones included (/proc/cgroups), and
  memory of the kernel's own that cannot be reclaimed.

Exits with 3 when one of ours, which nobody else changes, has grown: descriptors, mounts, cgroups, processes and files
at all, the resident set by more than RESIDENT_LIMIT_KIB from the half to the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from benchmarks.container_start import make_rootfs  # noqa: E402
from runtime import container  # noqa: E402
from runtime.cgroups import Cgroup  # noqa: E402
from runtime.cgroups.placing import CGROUP_PARENT, all_hierarchies  # noqa: E402
from runtime.config.decode import encode  # noqa: E402
from runtime.config.default import default_config  # noqa: E402
from runtime.errors import WorkloadError  # noqa: E402
from runtime.launcher.build import COMMAND  # noqa: E402
from runtime.lease import cgroup_name, lease  # noqa: E402
from runtime.spec import Process, Resources, Spec  # noqa: E402

WARM_UP_PART = 50  # one in so many of the containers comes first, so that what is made once is not counted
SETTLE_S = 3.0
RESIDENT_LIMIT_KIB = 256  # an allocator's last step; 10,000 containers that leave 52 bytes each pass it in their half
MOMENTS = ("before", "halfway", "after")
HOSTS_OWN = ("host_cgroups", "host_unreclaimable_kib")

Census = dict[str, int]


def census(lease_name: str, state: Path) -> Census:
    """What could leak, counted."""
    status = Path("/proc/self/status").read_text()
    slab, per_cpu = (
        int(re.findall(rf"^{name}:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)[0])
        for name in ("SUnreclaim", "Percpu")
    )
    cgroups = Path("/proc/cgroups").read_text().splitlines()[1:]
    below = Cgroup(cgroup_name(lease_name, "")[:-1], all_hierarchies()).directories()
    by_command = Cgroup(f"{CGROUP_PARENT}/{lease_name}", all_hierarchies()).directories()
    return {
        "resident_kib": int(re.findall(r"VmRSS:\s+(\d+)", status)[0]),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "cgroups": sum(path.is_dir() for directory in below for path in directory.rglob("*"))
        + sum(directory.is_dir() for directory in by_command),
        "processes": sum(is_ours(name, lease_name) for name in os.listdir("/proc") if name.isdigit()),
        "state_files": sum(1 for _ in state.rglob("*")),
        "host_cgroups": max(int(line.split()[2]) for line in cgroups),
        "host_unreclaimable_kib": slab + per_cpu,
    }


def is_ours(pid: str, lease_name: str) -> bool:
    """Whether a process is our child (dead or alive) or in one of our cgroups."""
    try:
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        return parent == str(os.getpid()) or lease_name in Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def through_the_api(rootfs: Path, cgroup: str) -> Callable[[], None]:
    """One container from create to delete by runtime.container."""
    spec = Spec(Process(args=("/bin/true",)), (str(rootfs),), "benchmark", Resources(64 << 20, 1.0, 64))

    def run() -> None:
        if container.run(spec, name=cgroup) != 0:
            raise WorkloadError("run /bin/true as a container: it failed")

    return run


def by_the_command_line(rootfs: Path, name: str, state: Path) -> Callable[[], None]:
    """One container by create, start and delete, with limits."""
    config = encode(default_config())
    config["root"] = {"path": str(rootfs), "readonly": False}
    config["process"].update(args=["/bin/true"], terminal=False)
    config["linux"]["cgroupsPath"] = name
    config["linux"]["resources"] |= {"memory": {"limit": 64 << 20}, "pids": {"limit": 64}}
    (rootfs.parent / "config.json").write_text(json.dumps(config))
    command = [str(COMMAND), "--root", str(state)]
    null = subprocess.DEVNULL

    def run() -> None:
        for words in (["create", "--bundle", str(rootfs.parent), "c"], ["start", "c"], ["delete", "--force", "c"]):
            subprocess.run([*command, *words], check=True, stdin=null, stdout=null)

    return run


def measure(run: Callable[[], None], count: int, take: Callable[[], Census]) -> dict[str, Census]:
    """The census at each of MOMENTS: before, after half of and after all of ``count`` runs."""
    found = {}
    for moment, rounds in zip(MOMENTS, (count // WARM_UP_PART + 1, count // 2, count - count // 2), strict=True):
        for _ in range(rounds):
            run()
        time.sleep(SETTLE_S)
        found[moment] = take()
    return found


def grown(found: dict[str, Census]) -> list[str]:
    """What of ours has grown."""
    before, halfway, after = (found[moment] for moment in MOMENTS)
    counts = [name for name in before if name not in (*HOSTS_OWN, "resident_kib") and after[name] > before[name]]
    more = after["resident_kib"] - halfway["resident_kib"] > RESIDENT_LIMIT_KIB
    return counts + ["resident_kib"] * more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--containers", type=int, default=10_000)
    parser.add_argument("--command-line", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    name = f"churn-{os.getpid()}"
    with lease(name), tempfile.TemporaryDirectory() as temporary:
        directory, state = Path(temporary), Path(temporary) / "state"
        directory.chmod(0o755)
        rootfs = make_rootfs(directory)
        cgroup = cgroup_name(name, "c")
        ways = {
            "API": (through_the_api(rootfs, cgroup), options.containers),
            "command line": (by_the_command_line(rootfs, name, state), options.command_line),
        }
        found = {way: measure(run, count, lambda: census(name, state)) for way, (run, count) in ways.items() if count}
    if options.json:
        print(json.dumps(found))
    else:
        for way, moments in found.items():
            print(f"{way}, {ways[way][1]} containers" + "".join(f"{moment:>12}" for moment in MOMENTS))
            for what in moments["before"]:
                print(f"  {what:28}" + "".join(f"{moments[moment][what]:12}" for moment in MOMENTS))
    worse = [f"{way}: {what}" for way, moments in found.items() for what in grown(moments)]
    if worse:
        print(f"grown: {', '.join(worse)}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    perform(main)
