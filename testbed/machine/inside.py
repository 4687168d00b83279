"""The program that the reference machine becomes: it runs one experiment, hands over the run folder, and powers off.

    python3 -m testbed.machine.inside

It is PID 1, and does nothing but wait: the experiment has a process of its own, so that it runs as everywhere else.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import termios
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from runtime import libc
from runtime.errors import PrerequisiteError, TestbedError
from testbed.bench import bench
from testbed.interruption import raise_on_signals
from testbed.ladder.model import INSTRUCTIONS
from testbed.ladder.study import Wishes, run_ladder
from testbed.machine import job as jobs
from testbed.machine.emulator import RESULTS_BYTES
from testbed.machine.handover import pack
from testbed.machine.systems import choose_system
from testbed.qemu.accelerator import ON_EMULATED_HOST
from testbed.request import Options
from testbed.rungs.read import read_history
from testbed.xen.domain_0 import start_services
from vm_images.reference import RESULTS, System

# How often it says that it is alive, in seconds of its own time.
_PULSE_S = 5.0
_SERVICES_LOG = Path("/run/xen-services.log")
_VHOST = Path("/dev/vhost-net")
# What guests are made by, why it may not be there, and what to do then.
_DEVICES: Mapping[System, tuple[Path, str, str]] = MappingProxyType(
    {
        "kvm": (
            Path("/dev/kvm"),
            "its emulator does not emulate AMD's SVM",
            "its processor is QEMU's `max`: use a QEMU whose TCG has that (Debian 13's does)",
        ),
        "virtualbox": (
            Path("/dev/vboxdrv"),
            "its kernel has not taken VirtualBox's module vboxdrv",
            "the console (machine.log) says why; the module is built with the machine's image: report this release",
        ),
    }
)
# linux/reboot.h
_POWER_OFF = 0x4321FEDC


def _say(line: str) -> None:
    line = line.replace(ON_EMULATED_HOST, "")  # where containers run on the same, it would tell of a difference
    os.write(1, f"{jobs.PROGRESS}{line}\n".encode())


def _pulse() -> None:
    while True:
        os.write(1, f"{jobs.TIME}{time.monotonic():.0f}\n".encode())
        time.sleep(_PULSE_S)


def _options(job: jobs.Job) -> Options:
    return Options(
        scenario=str(jobs.SCENARIOS / job.scenario),
        platforms=job.platforms,
        accelerator="kvm",
        measures=job.measures,
        trials=job.trials,
        quick=job.quick,
        seed=job.seed,
        cap=job.cap,
        steps=job.steps,
        out=jobs.RESULTS_FOLDER,
        scenarios=jobs.SCENARIOS,
        command=("inside",),
        again=job.again,
        emulator_cpus=job.emulator_cpus,
        guest_kernel=str(jobs.GUEST_KERNEL) if job.guest_kernel else "",
        packed=job.packed,
    )


def _perform(job: jobs.Job) -> tuple[Path, int]:
    """Do what is to be done; return the run's folder and its exit code."""
    if job.rungs:
        wishes = Wishes(
            jobs.RESULTS_FOLDER, jobs.SCENARIOS, job.rungs, quick=job.quick, seed=job.seed, clock=INSTRUCTIONS
        )
        climbed = run_ladder(wishes, read_history(), _say)
        return climbed.path, climbed.exit_code
    finished = bench(_options(job), _say)
    return finished.path, finished.exit_code


def make_host(system: System) -> None:
    """Make the machine one that starts guests: as domain 0, by VirtualBox's module, or by KVM, whose devices are given
    to those who may use them, as udev does.

    Raises PrerequisiteError when Xen's services do not start, or the kernel has not the device that guests are made by.
    """
    if system == "xen":
        start_services(_SERVICES_LOG)
        return
    device, why, fix = _DEVICES[system]
    if not device.exists():
        raise PrerequisiteError(f"the reference machine has no {device}: {why}", fix)
    if system == "kvm":
        for path in (device, _VHOST):
            shutil.chown(path, group="kvm")
            path.chmod(0o660)


def _experiment() -> None:
    """Run it and write down how it ended."""
    threading.Thread(target=_pulse, daemon=True).start()
    run: Path | None = None
    try:
        job = msgspec.json.decode(jobs.JOB.read_bytes(), type=jobs.Job)
        make_host(choose_system(job.platforms))
        with raise_on_signals():
            path, code = _perform(job)
        run, outcome = path, jobs.Outcome(path.name, code)
    except Exception as error:
        if not isinstance(error, TestbedError):
            traceback.print_exc()
        outcome = jobs.describe_error(error)
    with Path(RESULTS).open("wb") as target:
        try:
            pack(outcome, run, target, RESULTS_BYTES)
        except TestbedError as error:  # too much for the memory that takes it
            pack(jobs.describe_error(error), None, target, RESULTS_BYTES)
        target.flush()
        os.fsync(target.fileno())


def main() -> None:
    """Run the experiment in a child, reap what is left to PID 1, and power off."""
    jobs.RESULTS_FOLDER.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            _experiment()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    pid = status = 0
    while pid != child:
        pid, status = os.wait()
    if status:
        _say(f"the experiment's process ended with the status {os.waitstatus_to_exitcode(status)}")
    os.sync()
    if os.isatty(1):
        termios.tcdrain(1)
    libc.call("reboot", _POWER_OFF)


if __name__ == "__main__":
    main()
