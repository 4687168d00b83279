"""The platforms that a workload can run on, by name: containers, every kind of virtual machine, and peers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from runtime.checkpoint import find_criu
from runtime.errors import PrerequisiteError, UsageError
from runtime.home import store_root
from testbed.lab import BRIDGE, Lab
from testbed.platforms.cloud import CloudPlatform
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.docker import DockerPlatform
from testbed.platforms.docker_client import find_daemon
from testbed.platforms.hypervisors import HYPERVISORS, refuse_hypervisor
from testbed.platforms.libvirt_lxc import LibvirtLxcPlatform, find_driver
from testbed.platforms.needs import Host, find_needs, look_at_host
from testbed.platforms.nested import ContainersInVmPlatform
from testbed.platforms.paravirtual import PARAVIRTUAL, ParavirtualPlatform
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.platform import PeerPlatform, probe
from testbed.platforms.pooled import PooledPlatform
from testbed.platforms.pooled_vm import PooledVmPlatform
from testbed.platforms.protocol import Platform
from testbed.platforms.restored import RestoredPlatform
from testbed.platforms.restored_container import RestoredContainerPlatform
from testbed.platforms.rungs.names import ALIASES, RUNGS
from testbed.platforms.rungs.needs import check_rung
from testbed.platforms.rungs.platform import RungPlatform
from testbed.platforms.virtualbox import VIRTUALBOX, VirtualBoxPlatform
from testbed.platforms.vm import VmPlatform
from testbed.qemu.shares import find_refusal as find_refusal_to_share
from testbed.qemu.variants import VARIANTS, Variant, find_refusal
from testbed.rungs.read import find_rung, read_history
from testbed.virtualbox.installation import require_virtualbox
from testbed.xen.domain_0 import require_domain_0
from vm_images.guest import ensure_guest
from vm_images.kernel import GuestKernel

# More would be no share of a host's.
MOST_EMULATOR_CPUS = 64.0
NAMES = (
    *("container", "container-pooled", "container-restored", *VARIANTS, PARAVIRTUAL, VIRTUALBOX),
    *("libvirt-lxc", *PEERS, "docker", *RUNGS),
)
_PEERS = (*PEERS, "docker")
# Why no cgroup has the guests of other hypervisors than QEMU.
_UNCOUNTED: Mapping[str, str] = MappingProxyType(
    {
        PARAVIRTUAL: "no cgroup has a guest of Xen's",
        VIRTUALBOX: "no cgroup has the memory of a guest of VirtualBox's",
    }
)
# The platforms with a kernel of its own for each instance; a guest of Xen's or VirtualBox's asks for what a plain
# machine does.
MACHINES: Mapping[str, Variant] = MappingProxyType({**VARIANTS, **{name: Variant(name) for name in _UNCOUNTED}})
# What measures have of cgroups that nothing else can give them.
_TAKES_CGROUPS: Mapping[str, str] = MappingProxyType(
    {
        "consolidation": "the wake-ups of an idle server are its processes'",
        "neighbours": "a ceiling of cgroups keeps a neighbour from the host",
    }
)
# Names that stand for several: all peers that are here, all rungs of the ladder, and all platforms but the rungs.
GROUPS = ("peers", "ladder", "all")


class Missing(Struct, frozen=True):
    """A platform that a group stands for and that is not here: its name, and why."""

    name: str
    why: str


def find_missing(names: Iterable[str]) -> tuple[Missing, ...]:
    """Return those of the platforms that cannot be had here, with the reason; programs are asked for their versions."""
    host = look_at_host(store_root())
    missing = []
    for name in names:
        try:
            require_platform(name, host)
        except PrerequisiteError as error:
            missing.append(Missing(name, f"{error.message} ({error.hint})" if error.hint else error.message))
    return tuple(missing)


def find_missing_in(absent: Mapping[str, str], names: Iterable[str]) -> tuple[Missing, ...]:
    """Return those of the platforms that cannot be had in a machine which is made of what is here, has virtualisation
    of its own, and lacks the ``absent`` ones for these reasons."""
    named = tuple(names)
    without = tuple(Missing(name, absent[name]) for name in named if name in absent)
    hardware = [name for name, variant in VARIANTS.items() if variant.accelerator == "kvm"]
    return (*without, *find_missing(name for name in named if name not in (*absent, *hardware, *_UNCOUNTED)))


def require_platform(name: str, host: Host) -> None:
    """Raise PrerequisiteError when a platform lacks a program, as far as that is known before it is prepared."""
    if name in PEERS:
        probe(PEERS[name])
    elif name in RUNGS:
        check_rung(find_rung(name))
    elif name in HYPERVISORS:
        refuse_hypervisor(name)
    elif name == "container-restored":
        find_criu()
    elif name == "docker":
        find_daemon()
    elif name == "libvirt-lxc":
        find_driver()
    elif name == PARAVIRTUAL:
        require_domain_0()
    elif name == VIRTUALBOX:
        require_virtualbox()
    elif name in VARIANTS:
        for need in find_needs(VARIANTS[name], host):
            if not need.there:
                raise PrerequisiteError(need.words, need.fix)


def list_ladder() -> tuple[tuple[str, ...], tuple[Missing, ...]]:
    """Return the platforms of the rungs that can be run, in the order of the ladder, and those rungs whose platform
    this version does not make."""
    rungs = [(rung.name, rung.platform or rung.name) for rung in read_history().rungs if rung.runs]
    without = tuple(Missing(name, _explain_lack(platform)) for name, platform in rungs if platform not in NAMES)
    return tuple(dict.fromkeys(platform for _, platform in rungs if platform in NAMES)), without


def _explain_lack(platform: str) -> str:
    """Return why a rung's platform is none."""
    if platform not in HYPERVISORS:
        return f"no platform {platform} is made yet"
    try:
        refuse_hypervisor(platform)
    except PrerequisiteError as error:
        return f"{error.message} ({error.hint})"


def _list_meant(group: str, tell: Callable[[str], None]) -> tuple[str, ...]:
    if group != "ladder":
        return _PEERS if group == "peers" else tuple(name for name in NAMES if name not in RUNGS)
    platforms, without = list_ladder()
    for one in without:
        tell(f"without {one.name}: {one.why}")
    return platforms


def expand(
    names: Sequence[str],
    tell: Callable[[str], None],
    look: Callable[[Iterable[str]], tuple[Missing, ...]] = find_missing,
) -> tuple[str, ...]:
    """Return the platforms that the names stand for: a group is those of it that are here and not named beside it, and
    a rung that is a platform of another name is that one. ``look`` finds those that are not here.

    Those that are not are told of, each with the reason. Raises PrerequisiteError when none of a group is here.
    """
    names = [ALIASES.get(name, name) for name in names]
    expanded: list[str] = []
    for name in names:
        if name not in GROUPS:
            expanded.append(name)
            continue
        meant = [one for one in _list_meant(name, tell) if one not in (*expanded, *names)]
        missing = look(meant)
        for one in missing:
            tell(f"without {one.name}: {one.why}")
        here = [one for one in meant if one not in {one.name for one in missing}]
        if meant and not here:
            raise PrerequisiteError(f"--platforms {name}: none of them is here", "./invoke doctor says what is missing")
        expanded += here
    return tuple(expanded)


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names as given. Raises UsageError for one that is no platform, or named twice, and PrerequisiteError
    for a hypervisor that nothing of the testbed's runs on."""
    for name in names:
        if name in HYPERVISORS:
            refuse_hypervisor(name)
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise UsageError(
            f"unknown platform {', '.join(unknown) or '(none)'}", f"known platforms: {', '.join((*NAMES, *GROUPS))}"
        )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(f"platform {', '.join(twice)} is named twice", "name each once: a block holds each once")
    return names


def find_share_refusal(name: str, machines: Machines | None = None) -> str:
    """Return why services on a platform can have no directories of the host mounted; empty when they can. A kernel of
    machines that is not there is fetched for the answer."""
    if name in ("container", "container-pooled"):
        return ""
    if name not in VARIANTS:
        return "it is not told of them by us"
    variant = VARIANTS[name]
    own = machines.kernel if machines is not None and variant.boots_kernel else None
    return find_refusal_to_share(variant, own or ensure_guest(store_root() / "guest", variant.kernel).kernel)


def require_countable(names: Iterable[str], measures: Iterable[str]) -> None:
    """Raise a UsageError that names every measure that takes cgroups, with what for, where one of these platforms has
    none."""
    uncounted = [f"{measure} ({_TAKES_CGROUPS[measure]})" for measure in measures if measure in _TAKES_CGROUPS]
    without = [name for name in names if name in _UNCOUNTED]
    if without and uncounted:
        raise UsageError(
            f"{without[0]}: {', '.join(uncounted)} cannot be measured there, as {_UNCOUNTED[without[0]]}",
            "--measures start,density,utilisation,work, which take what the hypervisor counts",
        )


class Machines(Struct, frozen=True):
    """What was asked for of all virtual machines: ``kernel`` is one of somebody's own, for those that are given one;
    ``emulator_cpus`` processors are for QEMU's own threads, besides the services' limits; with ``commands`` they have a
    port through which commands are executed in them."""

    kernel: GuestKernel | None = None
    emulator_cpus: float = 0.0
    commands: bool = False


NOTHING_ASKED = Machines()


def check_machines(names: Iterable[str], machines: Machines) -> tuple[str, ...]:
    """Return a sentence for each platform that takes no kernel of somebody's own.

    Raises UsageError when none of those named takes it, or for a share of processors that is none.
    """
    named = tuple(names)
    if not 0 <= machines.emulator_cpus <= MOST_EMULATOR_CPUS:  # false for a NaN, too
        raise UsageError(
            f"--emulator-cpus {machines.emulator_cpus:g}: not a number of processors",
            f"from 0 to {MOST_EMULATOR_CPUS}, for example 0.5",
        )
    if machines.emulator_cpus and not any(name in VARIANTS for name in named):
        raise UsageError(f"--emulator-cpus: no virtual machine among {', '.join(named)}", "name one, for example vm")
    if machines.kernel is None:
        return ()
    without = [name for name in named if name in VARIANTS and not VARIANTS[name].boots_kernel]
    if not any(name in VARIANTS and VARIANTS[name].boots_kernel for name in named):
        disks = f" ({', '.join(without)} boots the kernel of its own disk)" if without else ""
        raise UsageError(
            f"--guest-kernel: none of {', '.join(named)} is given a kernel{disks}",
            f"name one of {', '.join(name for name, variant in VARIANTS.items() if variant.boots_kernel)}",
        )
    return tuple(f"{name} boots the kernel of its own disk: --guest-kernel is not for it" for name in without)


def require_programs(names: Iterable[str]) -> None:
    """Raise PrerequisiteError when a program is missing that one of these platforms takes, before an image is built."""
    for name in names:
        if name == "container-restored":
            find_criu()
        elif name in HYPERVISORS:
            refuse_hypervisor(name)
        elif name in PEERS:
            probe(PEERS[name])
        elif name in RUNGS:
            check_rung(find_rung(name))
        elif name == "docker":
            find_daemon()
        elif name == PARAVIRTUAL:
            require_domain_0()
        elif name == VIRTUALBOX:
            require_virtualbox()


def create(
    name: str,
    run_id: str,
    scratch: Path,
    lab: Lab,
    accelerator: str = "auto",
    connect: str = "",
    machines: Machines = NOTHING_ASKED,
) -> Platform:
    """Make the platform ``name`` for one run.

    For virtual machines, ``accelerator`` is a candidate's name, and ``connect`` the libvirt URI, empty for their own.
    A rung's name is that of its platform.
    """
    name = ALIASES.get(name, name)
    if name in VARIANTS:
        variant = replace(VARIANTS[name], uri=connect) if connect else VARIANTS[name]
        kind = choose_vm_class(variant)
        variant = replace(variant, emulator_cpus=machines.emulator_cpus, commands=machines.commands)
        if machines.kernel is not None and variant.boots_kernel:
            variant = replace(variant, kernel=machines.kernel)
        return kind(scratch, BRIDGE, run_id, variant, accelerator)
    if name == "libvirt-lxc":
        return LibvirtLxcPlatform(scratch, BRIDGE, run_id, lab)
    if name == "container-pooled":
        return PooledPlatform(run_id, lab)
    if name == "container-restored":
        return RestoredContainerPlatform(run_id, lab, scratch)
    if name == "docker":
        return DockerPlatform(run_id, scratch, lab)
    if name in PEERS:
        return PeerPlatform(PEERS[name], run_id, scratch, lab)
    if name in RUNGS:
        return RungPlatform(find_rung(name), run_id, scratch, lab)
    if name == PARAVIRTUAL:
        return ParavirtualPlatform(run_id, scratch, lab)
    if name == VIRTUALBOX:
        return VirtualBoxPlatform(run_id, scratch, lab)
    if name in HYPERVISORS:
        refuse_hypervisor(name)
    return ContainerPlatform(run_id, lab)


def choose_vm_class(variant: Variant) -> type[VmPlatform]:
    """Choose the class that starts machines of the variant. Raises UsageError when there is none."""
    if problem := find_refusal(variant):
        raise UsageError(f"no platform makes {variant.name}: {problem}", "see testbed/qemu/variants.py")
    if variant.boot == "cloud":
        return CloudPlatform
    if variant.inside == "containers":
        return ContainersInVmPlatform
    if variant.start == "restored":
        return RestoredPlatform
    if variant.start == "pooled":
        return PooledVmPlatform
    return VmPlatform
