"""The protocol that every platform fulfils, and the data that crosses it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from msgspec import Struct, field

from runtime.cgroups import Cgroup
from runtime.images.model import Image
from runtime.spec import Resources, Spec
from testbed.sample import HostReading, Meter
from testbed.scenario.model import Scenario


class Tenants(Struct, frozen=True):
    """Who is in a machine besides the application: containers of others, by a name that no service has.

    The machine has ``room`` for them besides what the application may take, whether any is there or not.
    """

    room: Resources
    specs: Mapping[str, Spec] = field(default_factory=dict)


class Instance(Struct, frozen=True):
    """What is started and stopped as one: a service of one copy of the application or, on a shared platform, all.

    ``name`` is unique in the run; ``specs`` is what it runs, by service, in the order of dependence. ``log`` takes
    what its services write, of a lot the beginning and the end (runtime.output). ``tenants`` are beside them, where the
    platform can have any (``Hosting``); it goes on when one of those ends. ``lenders`` are the names of the instances
    that run the other services whose namespaces its own share, by service. Of several services those that are ``held``,
    the last of them in their order, begin when they are told to; one that is ``leaving`` may end without the others
    (``Together``), and one that ``stays`` goes on when all have.
    """

    name: str
    application: int
    specs: Mapping[str, Spec]
    log: Path
    tenants: Tenants | None = None
    lenders: Mapping[str, str] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    stays: bool = False

    @property
    def service(self) -> str:
        """The name of its service; only for an instance of one."""
        (service,) = self.specs
        return service

    @property
    def images(self) -> tuple[tuple[str, ...], ...]:
        """The layers of each image that its services run, in their order, each once."""
        return tuple(dict.fromkeys(spec.layers for spec in self.specs.values()))

    @property
    def spec(self) -> Spec:
        """What its service runs; only for an instance of one."""
        (spec,) = self.specs.values()
        return spec


class Started(Struct, frozen=True):
    """When each phase of a start ended: phase name to nanoseconds of the host's CLOCK_MONOTONIC.

    Every platform reports ``request`` (the call), ``created`` (the instance exists: the cloned process
    or the running QEMU) and ``first_process`` (the workload's command has been executed). A platform may
    add phases of its own in between (a VM: ``kernel_entry``, ``first_userspace``). ``services`` has those phases
    that the services of a shared instance reach by themselves, by service.
    """

    phases: Mapping[str, int]
    services: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, service: str) -> Mapping[str, int]:
        """Return the phases of one of the instance's services."""
        return {**self.phases, **self.services.get(service, {})}


class Filled(Struct, frozen=True):
    """What an instance took that waits in a pool: the nanoseconds of its making, the bytes that are charged to it while
    it waits, and how many had to be ``replaced`` because they had ended while they waited."""

    took_ns: int
    memory_bytes: int
    replaced: int = 0


@runtime_checkable
class Pooling(Protocol):
    """What a platform has besides whose instances are made before they are requested."""

    def fill(self, instance: Instance) -> Filled:
        """Make the instance up to its last step, unless it waits already; not timed. ``start`` lets it do that step,
        and ``stop`` ends it in any case."""


@runtime_checkable
class Counting(Protocol):
    """What a platform has besides whose instances are guests that something counts the exits of."""

    def exits(self, instance: Instance) -> Mapping[str, int] | None:
        """Return the exits of a running instance so far, by reason (testbed.counts); None where there are none to
        count, as under an emulator, or nothing counts them."""


@runtime_checkable
class Metered(Protocol):
    """What a platform has besides whose instances are no processes of this system: no cgroup has them, and ``cgroup``
    raises UsageError."""

    def meter(self, instance: Instance) -> Meter:
        """Return what counts for a running instance."""

    def read_host(self) -> HostReading:
        """Read the machine's processors and memory now, of which this system has only a part."""


@runtime_checkable
class Saving(Protocol):
    """What a platform has besides whose instances are copies of others that were saved: it can save them one by one,
    and does not have to save all that ``prepare`` does."""

    def prepare_images(self, images: Iterable[Image]) -> None:
        """Do what ``prepare`` does, and save nothing yet."""

    def save_services(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Save an instance of each of a scenario's services. Raises as ``save_for``."""

    def save_for(self, instance: Instance, ports: Sequence[int] = ()) -> None:
        """Start and save what ``instance`` will be a copy of, once it listens on its ports and is idle. To be called in
        a lab. Raises WorkloadError when it does not get that far, PrerequisiteError without space."""


@runtime_checkable
class Concluding(Protocol):
    """What a platform has besides that knows how a workload ended."""

    def exit_status(self, instance: Instance, timeout_s: float) -> int | None:
        """Return its exit status (128 + n when signal n ended it), waiting for its end for so long; None if it has not
        ended, or nobody knows."""


@runtime_checkable
class Reachable(Protocol):
    """What a platform has besides whose workloads are processes of the host's kernel."""

    def first_pid(self, instance: Instance) -> int:
        """Return the number of its first process; 0 when that has ended."""


@runtime_checkable
class Together(Protocol):
    """What a platform has besides that runs several services in one instance: each begins when it is told to, and ends
    by itself."""

    def service_started(self, instance: Instance, service: str, timeout_s: float) -> Mapping[str, int]:
        """Return the phases of a service's start as ``Started.of``, waiting at most ``timeout_s`` for its first
        process."""

    def begin_service(self, instance: Instance, service: str) -> None:
        """Let a service begin that is held, once those before it have begun."""

    def service_status(self, instance: Instance, service: str, timeout_s: float) -> int | None:
        """Return the exit status of a service (128 + n when signal n ended it), waiting for its end for so long; None
        if it has not ended, or nobody knows."""


@runtime_checkable
class Reviving(Protocol):
    """What a platform has besides that starts a service again within an instance of several."""

    @property
    def revives(self) -> bool:
        """Whether it can, as it was made."""

    def revive_service(self, instance: Instance, service: str) -> None:
        """Start a service again that has ended; return once its command is executed. Raises StepError when the kernel
        refuses a step, WorkloadError when nobody answers."""


@runtime_checkable
class Signalling(Protocol):
    """What a platform has besides whose workloads can be signalled."""

    @property
    def signals(self) -> bool:
        """Whether they can, as it was made."""

    def send_signal(self, instance: Instance, service: str, number: int) -> None:
        """Signal a service's first process, unless it has ended; one without a handler for that is not ended by it, but
        for SIGKILL. Returns at once. Raises TestbedError when nobody can be told."""


@runtime_checkable
class Executing(Protocol):
    """What a platform has besides that can execute commands beside its workloads."""

    @property
    def executes(self) -> bool:
        """Whether it can, as it was made."""

    def execute(self, instance: Instance, service: str, words: tuple[str, ...], timeout_s: float) -> int | None:
        """Run a command beside a service's workload, whose output goes nowhere, and return its exit status; None when
        it took longer, and was killed. Raises TestbedError when there is no such command, or nobody answers."""


@runtime_checkable
class Hosting(Protocol):
    """What a platform has besides whose machines take in containers of others, beside the application's."""

    def tenant_status(self, instance: Instance, tenant: str) -> int | None:
        """Return the exit status of a tenant (128 + n when signal n ended it); None while it is there."""

    def killed(self, instance: Instance) -> Mapping[str, int]:
        """Return how many processes the machine's kernel has killed for want of memory, by their names."""


class Overhead(Struct, frozen=True):
    """What a platform's own processes hold in memory now, and the processor time that they have used so far."""

    memory_bytes: int = 0
    cpu_ns: int = 0


@runtime_checkable
class Overseen(Protocol):
    """What a platform has besides that keeps processes of its own beside a workload: shim, monitor, supervisor."""

    def overhead(self, instance: Instance) -> Overhead:
        """Return what those take that belong to a running instance. Raises OSError when they are gone."""

    def shared_overhead(self) -> Overhead | None:
        """Return what a daemon takes that serves all instances, and others'; None where there is none."""


class Platform(Protocol):
    """One way to run an application. Adding a platform is one module and one registration."""

    @property
    def name(self) -> str:
        """The name by which it is asked for; the manifest and every trial carry it."""

    @property
    def virtual(self) -> bool:
        """Whether a kernel boots for every instance, so that a start is given the time that takes."""

    @property
    def patience(self) -> float:
        """How many times the scenario's time to be ready it is given: 1, more where a whole distribution boots, or
        where the host is slow."""

    @property
    def shared(self) -> bool:
        """Whether all services of a copy of the application run in one instance, instead of one each.

        They are metered by one cgroup then, and end together.
        """

    @property
    def one_address(self) -> bool:
        """Whether all services of a copy of the application have one network interface, instead of one each."""

    @property
    def emulated(self) -> bool:
        """Whether its processors are emulated in software, so that its figures say nothing of virtualisation."""

    @property
    def label(self) -> str:
        """How figures and tables call it, with what must be said: ``container``, ``vm (TCG, emulated)``."""

    def facts(self) -> Mapping[str, object]:
        """Return what the manifest records about the platform: accelerator, kernel, versions."""

    def prepare(self, scenario: Scenario, images: Mapping[str, Image]) -> None:
        """Do all that must not be timed: disks, kernels, the accelerator's probe. May use the real network."""

    def start(self, instance: Instance) -> None:
        """Start and return as soon as the instance exists; raise a TestbedError and leave nothing if it cannot."""

    def started(self, instance: Instance, timeout_s: float) -> Started:
        """Return the phases of an instance's start, waiting at most ``timeout_s`` for its first process."""

    def alive(self, instance: Instance) -> bool:
        """Return whether the instance's first process is still there."""

    def ending(self, instance: Instance) -> str:
        """Return why an instance that is not alive any more has ended, in a few words; empty when that is unknown."""

    def stop(self, instance: Instance) -> None:
        """End it and remove all that belongs to it; harmless when it has ended already."""

    def cgroup(self, instance: Instance) -> Cgroup:
        """Return the cgroup that all of the instance's processes (a container's, or QEMU) are in."""

    def reclaim(self, instance: Instance) -> None:
        """Let the host have what the running instance can do without; nothing where there is no way to ask for it."""

    def memory_parts(self, instance: Instance) -> Mapping[str, int]:
        """Return where its memory goes, in bytes by part (testbed.breakdown)."""

    def close(self) -> None:
        """Release what ``prepare`` took: connections, run-time directories."""
