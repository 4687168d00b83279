"""What it costs to sample many instances, and how often each of their files is then read.

Makes cgroups below testbed-runtime/ with a sleeping process in each, samples them as a trial does, and removes them.

    sudo .venv/bin/python benchmarks/sampler.py --instances 500 --seconds 20

Prints the fraction of a processor, by kind of file, how late the samples came, and beside it what one reading of the
same cgroups takes in Python.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime.cgroups import Cgroup
from testbed.sample import read_usage
from testbed.sampler.plan import Target
from testbed.sampler.sampler import Sampler, Sampling


@contextmanager
def sleeping_cgroups(count: int) -> Iterator[dict[str, Cgroup]]:
    """Make so many cgroups, each with a process that sleeps; remove all at the end."""
    parent = Cgroup(f"testbed-runtime/sampler-{os.getpid()}")
    cgroups = {f"i{number:04}": Cgroup(f"{parent.name}/i{number:04}") for number in range(count)}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for cgroup in cgroups.values():
            cgroup.make(delegate=False)
            processes.append(subprocess.Popen(["sleep", "1000"]))
            for directory in cgroup.directories():
                (directory / "cgroup.procs").write_text(str(processes[-1].pid))
        yield cgroups
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        parent.remove()
        with suppress(OSError):  # others may have theirs there
            for directory in Cgroup("testbed-runtime").directories():
                directory.rmdir()


def describe(sampling: Sampling, instances: int, python_s: float) -> str:
    """Return the lines that tell what sampling so many instances took."""
    account = sampling.account
    lines = [
        f"{instances} instances, {account.elapsed_s:.1f} s: {account.core:.2%} of a processor",
        f"samples: {account.ticks} of {account.due} due, p99 {account.late_p99_s * 1e3:.2f} ms late",
        f"the first reading of all files {account.opening_s * 1e3:.1f} ms, the last {account.closing_s * 1e3:.1f} ms",
        "kind         each file/s  us each  of a processor, with the last reading",
    ]
    for name, readings in account.readings.items():
        taken_s = account.group_cpu_s[name]
        each = f"{taken_s / max(readings, 1) * 1e6:8.2f}  {taken_s / account.elapsed_s:.3%}"
        lines.append(f"{name:12} {account.rates_per_s[name]:11.2f} {each}")
    lines.append(
        f"in Python, one reading of all of them: {python_s * 1e3:.0f} ms, {python_s / instances * 1e6:.0f} us each"
    )
    return "\n".join([*lines, *(f"not read: {what}" for what in sampling.unread)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--unlimited", action="store_true", help="let each kind of file take what it takes")
    chosen = parser.parse_args()
    with sleeping_cgroups(chosen.instances) as cgroups:
        begun_s = time.process_time()
        for cgroup in cgroups.values():
            read_usage(cgroup)
        python_s = time.process_time() - begun_s
        targets = {name: Target(cgroup) for name, cgroup in cgroups.items()}
        with Sampler(targets, limited=not chosen.unlimited) as sampler:
            time.sleep(chosen.seconds)
    print(describe(sampler.sampling, chosen.instances, python_s))


if __name__ == "__main__":
    main()
