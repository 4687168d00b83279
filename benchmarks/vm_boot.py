"""clickme ready as virtual machines, by phase, and where the guest kernel's own time goes.

    sudo .venv/bin/python benchmarks/vm_boot.py [--platform vm] [--rounds 5] [--json]
    sudo .venv/bin/python benchmarks/vm_boot.py --floor [--rounds 5]
    sudo .venv/bin/python benchmarks/vm_boot.py --kernel

The first starts the application on one of the kinds of virtual machine, as the measures do, and prints for each
phase the median and the range over the rounds: seconds since the request of that service, by the host's clock.
The second starts one machine through the platform and the same kernel and initial RAM disk under a QEMU command
line written by hand, in turn, and compares the times to the first instruction of userspace. The third boots the
guest kernel once, talkative, under the accelerator that guests get, as far as its first process, and prints the
initcalls and the silences between console lines that took longest. Printing slows that boot down.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
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
from runtime.plan.steps import LogLine, Plan  # noqa: E402
from testbed.images import build_images  # noqa: E402
from testbed.lab import BRIDGE, Lab  # noqa: E402
from testbed.measures.application import Application  # noqa: E402
from testbed.measures.context import RunContext  # noqa: E402
from testbed.platforms.protocol import Instance  # noqa: E402
from testbed.platforms.vm import VmPlatform  # noqa: E402
from testbed.progress import print_progress  # noqa: E402
from testbed.qemu.accelerator import probe_command, reach_verdict  # noqa: E402
from testbed.qemu.emulator import find_qemu  # noqa: E402
from testbed.qemu.variants import VARIANTS  # noqa: E402
from testbed.results import RunFolder  # noqa: E402
from testbed.scenario.model import load  # noqa: E402
from testbed.services.specs import make_specs  # noqa: E402
from vm_images.guest import ensure_guest  # noqa: E402
from vm_images.plans.guest import FIRST_USERSPACE, guest_plan  # noqa: E402

Times = dict[str, list[float]]

_INITCALL = re.compile(r"initcall (\S+?)\+.* after (\d+) usecs")


def application_phases(name_of_platform: str, rounds: int) -> tuple[str, Times]:
    """The platform's label, and for each service's phase the seconds since its request, one a round."""
    scenario = load("clickme", ROOT / "scenarios")
    name = f"benchmark-{os.getpid()}"
    times: Times = {}
    with lease(name) as scratch:
        images = build_images(scenario, print_progress)
        platform = VmPlatform(scratch, BRIDGE, name, VARIANTS[name_of_platform])
        platform.prepare(scenario, images)
        try:
            with Lab() as lab:
                folder = RunFolder.create(scratch, "run", {"run": "run", "scenario": scenario.name})
                context = RunContext(
                    scenario, scenario.settings, images, {platform.name: platform}, lab, folder, 0, lambda line: None
                )
                for number in range(rounds):
                    with Application(context, platform, 0, f"r{number}") as application:
                        timeline = application.timeline
                    for service, phases in timeline.services.items():
                        for phase, at_ns in phases.items():
                            seconds = (at_ns - phases["request"]) / 1e9
                            times.setdefault(f"{service}.{phase}", []).append(seconds)
                    times.setdefault("ready", []).append((timeline.ready_ns - timeline.requested_ns) / 1e9)
            return platform.label, times
        finally:
            platform.close()


def _by_hand(command: list[str]) -> float:
    """Seconds from the start of QEMU to the guest's first message."""
    began = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if FIRST_USERSPACE.encode() in line:
                break
        took = time.monotonic() - began
        process.kill()
    return took


def first_userspace(rounds: int) -> Times:
    """Seconds to the first instruction of userspace: by hand, through the platform, and the platform's own parts."""
    scenario = load("clickme", ROOT / "scenarios")
    name = f"benchmark-{os.getpid()}"
    times: Times = {}
    with lease(name) as scratch:
        images = build_images(scenario, print_progress)
        platform = VmPlatform(scratch, BRIDGE, name)
        platform.prepare(scenario, images)
        guest_root = store_root() / "guest"
        guest, qemu = ensure_guest(guest_root), find_qemu()
        try:
            with Lab() as lab:
                spec = make_specs(scenario, images, [lab.link(0, 0), lab.link(0, 1)])[0]
                initrd = scratch / "initrd"
                initrd.write_bytes(guest.initrd(guest_plan(spec, guest.modules("pci"))))
                command = probe_command(
                    qemu, guest.kernel.image, initrd, reach_verdict(guest_root, qemu, guest).accelerator
                )
                command[command.index("-m") + 1] = f"{(spec.resources.memory_bytes or 0) >> 20}M"
                for number in range(rounds):
                    times.setdefault("by hand", []).append(_by_hand(command))
                    one = Instance(f"r{number}", 0, {spec.hostname: spec}, scratch / f"r{number}.log")
                    platform.start(one)
                    phases = platform.started(one, 60.0).phases
                    platform.stop(one)
                    for phase in ("created", "kernel_entry", "first_userspace"):
                        times.setdefault(phase, []).append((phases[phase] - phases["request"]) / 1e9)
            return times
        finally:
            platform.close()


def print_floor(times: Times) -> None:
    """The medians, and their ratio: what libvirt and our own code add to QEMU and the guest."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"  {name:16} {medians[name]:7.3f} ({min(values):.3f} to {max(values):.3f})")
    print(f"first userspace, through the platform over by hand: {medians['first_userspace'] / medians['by hand']:.3f}")


def kernel_log() -> list[tuple[float, str]]:
    """The console of one talkative boot: seconds since QEMU's start by the host's clock, and the line."""
    guest_root = store_root() / "guest"
    guest, qemu = ensure_guest(guest_root), find_qemu()
    accelerator = reach_verdict(guest_root, qemu, guest).accelerator
    with lease(f"benchmark-{os.getpid()}") as scratch:
        initrd = scratch / "initrd"
        initrd.write_bytes(guest.initrd(Plan((LogLine(FIRST_USERSPACE),))))
        command = probe_command(qemu, guest.kernel.image, initrd, accelerator)
        at = command.index("-append") + 1
        command[at] = command[at].replace("quiet", "initcall_debug ignore_loglevel log_buf_len=4M")
        began = time.monotonic()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
            assert process.stdout is not None
            lines = [(time.monotonic() - began, line.decode(errors="replace").strip()) for line in process.stdout]
    return lines


def print_kernel(lines: list[tuple[float, str]], count: int = 12) -> None:
    """The longest initcalls and the longest silences between the kernel's entry and the first process."""
    entry = next(index for index, (_, line) in enumerate(lines) if "Linux version" in line)
    first = next(index for index, (_, line) in enumerate(lines) if FIRST_USERSPACE in line)
    print(f"QEMU and firmware {lines[entry][0]:.3f} s, kernel {lines[first][0] - lines[entry][0]:.3f} s")
    calls = [(int(found[2]) / 1e6, found[1]) for _, line in lines if (found := _INITCALL.search(line))]
    print(f"initcalls, {sum(seconds for seconds, _ in calls):.3f} s in all; the longest:")
    for seconds, call in sorted(calls, reverse=True)[:count]:
        print(f"  {seconds:6.3f} s  {call}")
    boot = lines[entry : first + 1]
    silences = [(after[0] - before[0], before[1], after[1]) for before, after in itertools.pairwise(boot)]
    print("silences on the console; the longest:")
    for seconds, before_line, after_line in sorted(silences, reverse=True)[:count]:
        print(f"  {seconds:6.3f} s  {before_line[:60]} ... {after_line[:60]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kernel", action="store_true")
    parser.add_argument("--floor", action="store_true")
    parser.add_argument("--platform", choices=list(VARIANTS), default="vm")
    options = parser.parse_args()
    if options.kernel:
        print_kernel(kernel_log())
        return
    if options.floor:
        print_floor(first_userspace(options.rounds))
        return
    label, times = application_phases(options.platform, options.rounds)
    medians = {phase: statistics.median(values) for phase, values in times.items()}
    if options.json:
        print(json.dumps({"platform": label, "median_s": medians}))
        return
    print(f"clickme, {label}, {options.rounds} rounds; seconds since the request: median (min to max)")
    for phase, values in times.items():
        print(f"  {phase:24} {medians[phase]:7.3f} ({min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    perform(main)
