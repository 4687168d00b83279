"""LXC: a container described by a file of its own, started by a program that stays as its monitor
(lxc.container.conf(5))."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.cgroups.resources import settings
from runtime.config.default import DEFAULT_SHM_BYTES
from runtime.plan.steps import Step
from testbed.platforms.peers.entering import INSIDE, VARIABLE, EnteringPeer
from testbed.platforms.peers.peer import Place
from testbed.platforms.peers.plans import ENTRY, hide_second_version
from testbed.platforms.peers.program import Found, Program


class LxcPeer(EnteringPeer):
    """Containers of LXC, which makes the cgroups of workload and monitor with their limits by its own words."""

    name = "lxc"
    program = Program("lxc-start", "lxc")
    limits = splits = True

    def root_steps(self, place: Place) -> tuple[Step, ...]:
        return hide_second_version(place.hierarchies)

    def lay_out(self, place: Place) -> None:
        super().lay_out(place)
        (place.folder / "mounted").mkdir()
        (place.folder / "config").write_text("".join(f"{key} = {value}\n" for key, value in configure(place)))

    def command(self, place: Place, found: Found) -> tuple[str, ...]:
        where = ("--lxcpath", str(place.folder), "--rcfile", str(place.folder / "config"))
        return (found.path, "--name", place.name, *where, "--foreground")


def configure(place: Place) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of the container's file."""
    yield "lxc.uts.name", place.spec.hostname
    yield "lxc.rootfs.path", f"dir:{place.root}"
    yield "lxc.rootfs.mount", str(place.folder / "mounted")
    yield "lxc.net.0.type", "none"  # the one that it is started in
    yield "lxc.init.cmd", INSIDE
    yield "lxc.environment", VARIABLE
    yield "lxc.mount.auto", "proc:rw sys:ro"
    yield "lxc.mount.entry", f"{place.entry} {ENTRY[1:]} none rbind,create=dir 0 0"
    shared = f"nosuid,nodev,noexec,mode=1777,size={place.spec.shm_bytes or DEFAULT_SHM_BYTES}"
    yield "lxc.mount.entry", f"shm dev/shm tmpfs {shared},create=dir 0 0"
    yield "lxc.apparmor.profile", "unconfined"  # as the others' are; its own profile need not be loaded
    yield "lxc.autodev", "1"
    yield "lxc.console.path", "none"
    yield "lxc.tty.max", "0"
    yield "lxc.cgroup.dir.container", place.workload
    yield "lxc.cgroup.dir.monitor", place.overhead
    limits = place.config.linux.resources
    assert limits is not None
    for controller, file, value in settings(place.hierarchies, limits):
        version = "" if controller in place.hierarchies.v1 else "2"
        yield f"lxc.cgroup{version}.{file}", value
