"""OCI runtimes, driven by their command line: the bundle is what our own runtime would run.

``run --detach`` makes and starts the container and ends; what stays is the workload, and with some a process of the
runtime's own. The configuration names the network namespace in which the command itself is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Thread
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from runtime import libc
from runtime.config.resources import DeviceRule
from runtime.config.types import Config, Mount, Namespace, Root
from runtime.errors import PrerequisiteError
from runtime.plan.constants import CLONE_NEWNET
from runtime.plan.steps import Step
from runtime.spec import SHM
from testbed.platforms.peers.peer import Place, ProgramPeer
from testbed.platforms.peers.plans import hide_second_version
from testbed.platforms.peers.program import Found, Program

# The newest that all of them understand; nothing later is used.
_OCI_VERSION = "1.0.2"
PID_FILE = "pid"
# By which gVisor knows the host's own network namespace; newer kernels have it in all.
_ROOT_ONLY = Path("/proc/sys/net/core/rmem_default")
_OWN_NETWORK = Namespace("network", "/proc/self/ns/net")


def bundle_config(place: Place) -> Config:
    """Return the configuration of the bundle: ours, with the root, the cgroup and the network namespace named."""
    config = place.config
    limits = config.linux.resources
    assert limits is not None
    kept = tuple(one for one in config.linux.namespaces if one.type != "network")
    lent = (Mount(SHM, "bind", str(place.lent), ("bind", "nosuid", "noexec", "nodev")),) if place.lent else ()
    linux = replace(
        config.linux,
        cgroups_path=f"/{place.workload}",
        namespaces=(*kept, _OWN_NETWORK),
        resources=replace(limits, devices=(DeviceRule(False, access="rwm"),)),
    )
    root, mounts = Root(str(place.root), config.root.readonly), (*config.mounts, *lent)
    return replace(config, oci_version=_OCI_VERSION, root=root, mounts=mounts, linux=linux)


class OciPeer(ProgramPeer):
    """Containers of an OCI runtime: crun, runc, youki, and others with the same words."""

    detaches = True
    limits = True

    def __init__(self, name: str, program: Program) -> None:
        self.name, self.program = name, program

    def lay_out(self, place: Place) -> None:
        (place.folder / "config.json").write_bytes(msgspec.json.encode(self.bundle(place)))

    def bundle(self, place: Place) -> Config:
        """Return the configuration that the runtime is given."""
        return bundle_config(place)

    def root_steps(self, place: Place) -> tuple[Step, ...]:
        return hide_second_version(place.hierarchies)

    def _called(self, place: Place, found: Found) -> tuple[str, ...]:
        return (found.path, "--root", str(place.folder / "state"))

    def command(self, place: Place, found: Found) -> tuple[str, ...]:
        where = ("--bundle", str(place.folder), "--pid-file", str(place.folder / PID_FILE))
        return (*self._called(place, found), "run", "--detach", *where, place.name)


@cache
def find_network() -> str:
    """Return which network stack gVisor can have: ``sandbox``, its own, or ``host``."""
    seen: list[bool] = []

    def look() -> None:
        libc.call("unshare", CLONE_NEWNET)
        seen.append(_ROOT_ONLY.exists())

    thread = Thread(target=look)  # the namespace ends with it
    thread.start()
    thread.join()
    return "sandbox" if seen == [False] else "host"


class RunscPeer(OciPeer):
    """Containers of gVisor, whose kernel in user space opens the workload's program by itself, unseen by ours; its
    first process is said to run when ``runsc run`` has ended."""

    is_seen = False
    said = MappingProxyType(
        {
            "other_walls": "gVisor's own kernel in place of our seccomp filter, which it ignores",
            "limits": "memory and processors, of its kernel and the workload together; no limit of tasks, as its"
            " kernel's threads would count",
            "first_process_seen": "when `runsc run` has ended: gVisor executes the program unseen by the host",
        }
    )

    @property
    def title(self) -> str:
        return "gVisor runsc"

    def more_facts(self, found: Found) -> Mapping[str, object]:
        words = {
            "sandbox": "gVisor's own",
            "host": "the host's, in the instance's namespace (--network=host): with its own, gVisor takes every"
            f" namespace that has {_ROOT_ONLY} for the host's, and refuses it",
        }
        return {"network_stack": words[find_network()]}

    def _called(self, place: Place, found: Found) -> tuple[str, ...]:
        return (*super()._called(place, found), f"--network={find_network()}")

    def bundle(self, place: Place) -> Config:
        config = super().bundle(place)
        assert config.linux.resources is not None
        return replace(config, linux=replace(config.linux, resources=replace(config.linux.resources, pids=None)))


class KataPeer(OciPeer):
    """Containers of Kata 1, the last with an OCI command line."""

    is_seen = False
    said = MappingProxyType({"other_walls": "a virtual machine"})

    def check(self, found: Found) -> None:
        major = re.match(r"\d+", found.version)
        if major is None or int(major[0]) >= 2:
            raise PrerequisiteError(
                f"kata-runtime {found.version} cannot run a bundle: from Kata 2 on only containerd's shim can",
                "measure it through containerd; the testbed drives command lines",
            )
        if not os.access(Path("/dev/kvm"), os.R_OK | os.W_OK):
            raise PrerequisiteError("kata-runtime needs /dev/kvm", "see ./invoke doctor on KVM")


CRUN = OciPeer("crun", Program("crun", "crun"))
RUNC = OciPeer("runc", Program("runc", "runc"))
YOUKI = OciPeer("youki", Program("youki"))
RUNSC = RunscPeer("runsc", Program("runsc", "runsc"))
KATA = KataPeer("kata", Program("kata-runtime"))
