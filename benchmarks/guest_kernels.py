"""The distribution's guest kernel beside the minimal one: how long each takes to its first process, and what it keeps.

    sudo .venv/bin/python benchmarks/guest_kernels.py [--rounds 5] [--memory-mib 256] [--json]

Each round boots both, in turn, under the accelerator that guests get, on a machine like a guest's without disk and
network. Times are the host's: from QEMU's start to the kernel's banner, and from there to PID 1's first message.
Memory is what the guest itself tells after its modules are loaded: MemTotal is RAM less what the kernel took
before it could count, MemFree less what it has taken since. `./invoke images.kernel` builds the minimal kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import stat
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from runtime.home import store_root  # noqa: E402
from runtime.lease import lease  # noqa: E402
from runtime.plan.steps import Exec, LoadModule, LogLine, Mount, Plan  # noqa: E402
from testbed.qemu.accelerator import probe_command, reach_verdict  # noqa: E402
from testbed.qemu.emulator import find_qemu  # noqa: E402
from vm_images.guest import Guest, KernelName, ensure_guest  # noqa: E402
from vm_images.initramfs import Entry, write_archive  # noqa: E402
from vm_images.plans.guest import FIRST_USERSPACE  # noqa: E402

KERNELS: tuple[KernelName, ...] = ("debian", "minimal")
_BUSYBOX = Path("/bin/busybox")
_MEMORY = re.compile(r"^(MemTotal|MemFree):\s+(\d+) kB", re.MULTILINE)

Figures = dict[str, float]


def initrd(guest: Guest) -> bytes:
    """One whose PID 1 loads the modules of a guest and prints what memory is left."""
    plan = Plan(
        (
            LogLine(FIRST_USERSPACE),
            Mount("devtmpfs", "/dev", "devtmpfs", 0),
            *(LoadModule(path) for path in guest.modules("pci")),
            Mount("proc", "/proc", "proc", 0),
            Exec(("/busybox", "cat", "/proc/meminfo"), (), "/"),
        )
    )
    return write_archive([Entry("busybox", stat.S_IFREG | 0o755, _BUSYBOX.read_bytes())]) + guest.initrd(plan)


def boot(command: list[str]) -> Figures:
    """The figures of one boot; its console is QEMU's output."""
    began = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        lines = [(time.monotonic(), line.decode(errors="replace")) for line in process.stdout]
    entry = next(at for at, line in lines if "Linux version" in line)
    first = next(at for at, line in lines if FIRST_USERSPACE in line)
    memory = {
        name: int(kib) / 1024 for name, kib in _MEMORY.findall("".join(line for _, line in lines).replace("\r", ""))
    }
    return {
        "firmware_s": entry - began,
        "kernel_s": first - entry,
        **{f"{name}_mib": mib for name, mib in memory.items()},
    }


def measure(rounds: int, memory_mib: int) -> tuple[str, dict[str, list[Figures]]]:
    """The accelerator, and each kernel's figures, one a round."""
    guest_root, qemu = store_root() / "guest", find_qemu()
    found: dict[str, list[Figures]] = {name: [] for name in KERNELS}
    commands: dict[str, list[str]] = {}
    with lease(f"benchmark-{os.getpid()}") as scratch:
        for name in KERNELS:
            guest = ensure_guest(guest_root, name)
            accelerator = reach_verdict(guest_root, qemu, guest).accelerator
            path = scratch / name
            path.write_bytes(initrd(guest))
            command = probe_command(qemu, guest.kernel.image, path)
            command[command.index("-accel") + 1] = accelerator
            command[command.index("-m") + 1] = f"{memory_mib}M"
            commands[name] = command
        for _ in range(rounds):
            for kernel, command in commands.items():
                found[kernel].append(boot(command))
    return accelerator, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-mib", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    accelerator, found = measure(options.rounds, options.memory_mib)
    if options.json:
        print(json.dumps({"accelerator": accelerator, "memory_mib": options.memory_mib, "rounds": found}))
        return
    print(f"accelerator {accelerator}, {options.memory_mib} MiB, {options.rounds} rounds: median (min to max)")
    for kernel, rounds in found.items():
        for figure in rounds[0]:
            values = [figures[figure] for figures in rounds]
            print(f"  {kernel:8} {figure:12} {statistics.median(values):8.3f} ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    perform(main)
