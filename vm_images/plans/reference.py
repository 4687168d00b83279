"""The reference machine as a plan: what its PID 1 does between the kernel and the experiment.

Unlike a guest that runs a workload, it is a host: it has all devices, and the kernel's file systems as a host has them.
Its root is an overlay of layers on its one disk, with what is written in memory; cgroup v2 only.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from runtime.config.default import DEFAULT_PATH
from runtime.plan.constants import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID
from runtime.plan.network import loopback_steps
from runtime.plan.process import search_path
from runtime.plan.root import HOLD_ROOT
from runtime.plan.steps import Chdir, CloseOnExec, Exec, Mkdir, Mount, Plan, SetHostname, Step, Umask
from vm_images.plans.container_host import LAYERS, cgroup_steps
from vm_images.plans.guest import LOWER, MOVE_IN, NO_INPUT, ROOT, boot_steps, overlay_steps

_KERNELS = MS_NOSUID | MS_NODEV | MS_NOEXEC


class ReferenceMachine(Struct, frozen=True):
    """The machine: ``disk`` is the device with the ``layers``, by their names there, bottom first; PID 1 becomes
    ``args``, in ``cwd``, with ``environment`` (``NAME=value``)."""

    disk: str
    layers: tuple[str, ...]
    args: tuple[str, ...]
    cwd: str
    environment: tuple[str, ...]


def _file_systems() -> tuple[Step, ...]:
    """Return steps that mount what a host has, in the root that the working directory is."""
    return (
        Mount("proc", "proc", "proc", _KERNELS, inside=True),
        Mount("sysfs", "sys", "sysfs", _KERNELS, inside=True),
        Mount("devtmpfs", "dev", "devtmpfs", MS_NOSUID, inside=True),
        Mkdir("dev/pts", inside=True),
        Mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666", inside=True),
        Mkdir("dev/shm", inside=True),
        *(
            Mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}", inside=True)
            for place, mode in (("dev/shm", "1777"), ("run", "755"), ("tmp", "1777"))
        ),
    )


def reference_plan(machine: ReferenceMachine, modules: Sequence[str]) -> Plan:
    """Return the plan of the machine; ``modules`` are the files to load, in order, by their paths in the initial RAM
    disk."""
    environment = (f"PATH={DEFAULT_PATH}", "LC_ALL=C.UTF-8", *machine.environment)
    return Plan(
        child=(
            *boot_steps(modules, loopback_steps(), reports_memory=False),
            *overlay_steps(machine.disk, layers=machine.layers),
            Mkdir(f"{ROOT}{LAYERS}"),
            Mount(LOWER, f"{ROOT}{LAYERS}", "", MS_BIND),
            Chdir(ROOT),
            HOLD_ROOT,
            *_file_systems(),
            *cgroup_steps(),
            *MOVE_IN,
            SetHostname("reference"),
            NO_INPUT,
            CloseOnExec(),
            Chdir(machine.cwd),
            Umask(0o022),
            Exec(machine.args, environment, search_path(environment)),
        )
    )
