"""A guest that runs all services of an application, as a plan: one kernel, one address, a container for each service.

PID 1 brings the machine up as for a single workload (``guest``), but stays: it makes a root of its own on a tmpfs,
since no process can pivot_root away from the initial RAM file system, and forks a process for every service. Its steps
are those that start the service as a container on a host (``workload_plan``), with two differences: the network is
the machine's, so all services have one address and share their ports; and the layers come merged on a disk.
Their limits hold within the guest by its own cgroup v2, as the host's cgroups hold a container's; the machine's RAM
and processors are the sums of them. The first service that ends takes the guest with it, unless it may leave.

A service that is held has a process from the start, which waits before its first step until the host gives the word
through the console, so that the host decides the order as it does where each service has a guest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.types import Mount as OciMount
from runtime.plan.cgroup import join_steps
from runtime.plan.constants import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from runtime.plan.steps import (
    Chdir,
    Close,
    LogLine,
    Mkdir,
    Mount,
    Open,
    OpenForked,
    Plan,
    Step,
    WaitFirstExit,
    WaitInput,
    WaitPath,
    Write,
    forked,
)
from runtime.plan.workload import workload_plan
from runtime.spec import CALLERS_NETWORK, Link, Spec
from vm_images.plans.guest import (
    FIRST_PROCESS,
    MOVE_IN,
    NO_INPUT,
    boot_steps,
    console_steps,
    network_steps,
    serve_commands,
    share_steps,
)

_POD, _CGROUP, _LOWER, _DEVICES, _PROC, _HELD = "/pod", "/cgroup", "/lower", "/dev", "/proc", "/held"
# How the process is called that executes commands, when it keeps a machine; no service can be.
_COMMANDS = "(commands)"
_WORD = 9  # the descriptor by which a held service waits for its word
_CONTROLLERS = ("cpu", "memory", "pids")
# cgroup v2 with what the services' limits rest on; found so in every guest, for it is mounted here.
HIERARCHIES = Hierarchies({}, Path(_CGROUP), frozenset(_CONTROLLERS))


def executing(service: str) -> str:
    """Return the line on the console right before the execve of a service's command."""
    return f"testbed: {service}: exec"


def _root_steps(disks: Sequence[str], mounts: Iterable[OciMount]) -> tuple[Step, ...]:
    """Return a root for PID 1 with the disks, what the ``mounts`` are of, the cgroups, and a directory for the services
    to mount their tmpfs on."""
    steps: list[Step] = [Mkdir(_POD), Mount("tmpfs", _POD, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")]
    steps += [Mkdir(f"{_POD}{path}") for path in ("/tmp", _LOWER, _CGROUP, _PROC)]
    for disk in disks:
        lower = f"{_POD}{_lower(disk)}"
        steps += [WaitPath(disk), Mkdir(lower), Mount(disk, lower, "erofs", MS_RDONLY)]
    return (
        *steps,
        *share_steps(mounts, _POD),
        Mount("cgroup2", f"{_POD}{_CGROUP}", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC),
        Write(f"{_POD}{_CGROUP}/cgroup.subtree_control", (" ".join(f"+{name}" for name in _CONTROLLERS),)),
        NO_INPUT,
        Chdir(_POD),
        *MOVE_IN,
        Mount("proc", _PROC, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC),
    )


def _server(services: int) -> tuple[Step, ...]:
    """Return a process beside those of the services, which have been forked after the one that reports the memory."""
    opened = (OpenForked(1 + number, FIRST_PROCESS + number) for number in range(services))
    devices = (Mkdir(_DEVICES), Mount("devtmpfs", _DEVICES, "devtmpfs", MS_NOSUID | MS_NOEXEC))
    return forked(*opened, *devices, serve_commands(_DEVICES))


def _lower(disk: str) -> str:
    return f"{_LOWER}/{Path(disk).name}"


def inside(spec: Spec) -> Spec:
    """Return what runs in the machine: a container that has the machine's network."""
    return replace(spec, link=None, shared=CALLERS_NETWORK)


def _service_steps(service: str, spec: Spec, disk: str, *, held: bool) -> tuple[Step, ...]:
    """Return the cgroup with the service's limits, and the process in it that becomes the service, once it has the word
    for that if it is ``held``."""
    plan = service_plan(service, spec, disk)
    waiting = (Open(f"{_HELD}/{service}", _WORD), WaitInput(_WORD), Close(_WORD)) if held else ()
    return (*plan.parent, *forked(*waiting, *plan.child, flags=plan.clone_flags))


def service_plan(service: str, spec: Spec, disk: str) -> Plan:
    """Return the plan of a service, from its cgroup on."""
    plan = workload_plan(replace(inside(spec), layers=(_lower(disk),)), HIERARCHIES, service)
    *child, execution = plan.child
    joining = join_steps(HIERARCHIES, service)
    return replace(plan, child=(*joining, *child, LogLine(executing(service)), execution), into_cgroup="")


def pod_plan(
    specs: Mapping[str, Spec],
    disks: Mapping[str, str],
    link: Link | None,
    modules: Sequence[str],
    *,
    commands: bool = False,
    held: Collection[str] = (),
    leaving: Collection[str] = (),
    stays: bool = False,
) -> Plan:
    """Return the plan of the guest that runs all ``specs``, by service, started in their order, at the address of
    ``link``. Those that are ``held`` wait for a word each, in that order; one that is ``leaving`` may end without the
    others. One that ``stays`` goes on when all have left, as long as its port does.

    ``disks`` is each service's disk, by the device's path: several may share one. ``modules`` are the files to load,
    in order, by their paths in the initial RAM disk; with ``commands`` it has a port through which more are executed.
    Raises UsageError as ``workload_plan`` does.
    """
    return Plan(
        child=(
            *boot_steps(modules, network_steps(link), reports_memory=False),
            *_root_steps(
                tuple(dict.fromkeys(disks[service] for service in specs)),
                [mount for spec in specs.values() for mount in spec.mounts],
            ),
            *console_steps([service for service in specs if service in held], _HELD),
            *(
                step
                for service, spec in specs.items()
                for step in _service_steps(service, spec, disks[service], held=service in held)
            ),
            *(_server(len(specs)) if commands else ()),
            WaitFirstExit(
                ("", *specs, *((_COMMANDS,) if stays else ())),  # the first process has the console
                sum(2 << number for number, service in enumerate(specs) if service in leaving),
            ),
        )
    )
