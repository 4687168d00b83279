"""A further program in a guest, as a plan: what the guest's own launcher performs beside the workload when the host
asks for it, to execute a command, to ask a service for its health, or to signal it.

The host asks through a port of a virtio-serial device (virtio 1.2, "Console Device"), which no network leads to. The
port's server is forked by PID 1 where nothing confines it: outside of the workload's limit of tasks and of its root
or, where the guest has several services, outside of their containers, whose first processes it holds.
"""

from __future__ import annotations

from errno import EEXIST
from pathlib import Path

from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.config.process import ConsoleSize
from runtime.config.process import Process as Configured
from runtime.plan.cgroup import join_in_two
from runtime.plan.constants import CLONE_NEWCGROUP
from runtime.plan.execution import NAMESPACE_FLAGS, further_steps, kinds_of
from runtime.plan.network import Attachment
from runtime.plan.steps import Chroot, JoinProcess, Mkdir, OpenProcess, Plan, SignalProcess, Step, Unshare
from runtime.plan.workload import workload_plan
from runtime.spec import Process, Spec, configuration, configured_process
from runtime.supervisor import CGROUP
from vm_images.plans import pod
from vm_images.plans.container_host import BRIDGE_INDEX, CONTROLLERS
from vm_images.plans.guest import FIRST_PROCESS, TASKS, WORKLOAD

_HOST = Hierarchies({}, Path("/sys/fs/cgroup"), frozenset(CONTROLLERS))
# Rows and columns of a terminal.
Size = tuple[int, int]


def _configured(process: Process, size: Size | None) -> Configured:
    configured = configured_process(process)
    return configured if size is None else replace(configured, terminal=True, console_size=ConsoleSize(*size))


def command_plan(spec: Spec, process: Process, size: Size | None = None) -> Plan:
    """Return the plan of ``process`` beside the workload ``spec``, in whose root the server has its working directory.

    With a ``size`` it gets a terminal. Raises UsageError for an empty command.
    """
    joining: tuple[Step, ...] = ()
    first: tuple[Step, ...] = (Chroot("."),)
    if spec.resources.pids is not None:
        joining, joined = join_in_two(TASKS, WORKLOAD)
        first = (*joined, Unshare(CLONE_NEWCGROUP), *first)
    return Plan(further_steps(_configured(process, size), configuration(spec), first=first), joining)


def pod_command_plan(spec: Spec, process: Process, service: str, number: int, size: Size | None = None) -> Plan:
    """Return the plan of ``process`` in a service of a guest that runs several, of which it is the one with this
    ``number``, from 0. ``size`` and errors as ``command_plan``."""
    return _in_container(pod.inside(spec), process, pod.HIERARCHIES, service, number, size)


def container_command_plan(spec: Spec, process: Process, service: str, number: int, size: Size | None = None) -> Plan:
    """Return the plan of ``process`` in a container of a guest that is a host of them; as ``pod_command_plan``."""
    return _in_container(spec, process, _HOST, CGROUP.format(service), number, size)


def again_plan(plan: Plan) -> Plan:
    """Return the plan that starts a service again by its own, of which its cgroup may be left."""
    parent = tuple(replace(one, tolerate=(EEXIST,)) if isinstance(one, Mkdir) else one for one in plan.parent)
    return replace(plan, parent=parent)


def container_plan(spec: Spec, service: str, number: int) -> Plan:
    """Return the plan of a container with this ``number``, from 0, in a guest that is a host of them."""
    attachment = Attachment(BRIDGE_INDEX, number + 1) if spec.link else None
    return workload_plan(spec, _HOST, CGROUP.format(service), attachment=attachment)


def aimed_at(plan: Plan, number: int, pid: int) -> Plan:
    """Return a plan for the service with this ``number`` for the one that is in its place: its first process is
    ``pid``."""
    return replace(plan, parent=(OpenProcess(pid, FIRST_PROCESS + number), *plan.parent))


def signal_plan(number: int, signal: int) -> Plan:
    """Return the plan that sends a ``signal`` to the first process of the service with this ``number``, from 0; the
    only service of a guest is number 0. The kernel hides from a first process what that does not handle, as it does in
    a container; but SIGKILL ends one that is not PID 1 of the guest."""
    return Plan((SignalProcess(FIRST_PROCESS + number, signal),))


def _in_container(
    spec: Spec, process: Process, hierarchies: Hierarchies, cgroup: str, number: int, size: Size | None
) -> Plan:
    joining, joined = join_in_two(hierarchies, cgroup)
    flags = sum(NAMESPACE_FLAGS[kind] for kind in kinds_of(configuration(spec)))
    child = further_steps(_configured(process, size), configuration(spec), first=joined)
    return Plan(child, (*joining, JoinProcess(FIRST_PROCESS + number, flags)))
