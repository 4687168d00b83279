"""Podman: an engine without a daemon, whose conmon stays beside each container (podman-run(1)).

Its storage and state are the run's own, and the container's root is the one that we mount (``--rootfs``), so it pulls,
unpacks and copies nothing.
"""

from __future__ import annotations

import json
import resource
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from runtime.output import printable, shortened
from runtime.plan.constants import MS_BIND
from runtime.plan.steps import Mount, Step
from runtime.spec import CPU_PERIOD_USEC, SHM
from testbed.platforms.peers.peer import Place, ProgramPeer
from testbed.platforms.peers.plans import hide_second_version
from testbed.platforms.peers.program import Found, Program, ask

# Where its files are seen by it alone, since it takes no long paths for some; every system has that directory.
_HERE = "/mnt"
_SECCOMP, _CONFIGURATION = "seccomp.json", "containers.conf"
# It would give hard limits that a process without CAP_SYS_RESOURCE may not.
_ENGINE = """[containers]
default_ulimits = []
default_capabilities = {}
init = false
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"""


class PodmanPeer(ProgramPeer):
    """Containers of podman, by whichever OCI runtime it is configured with."""

    name = "podman"
    program = Program("podman", "podman")
    detaches = True
    limits = True
    monitors = True
    said = MappingProxyType(
        {
            "walls": "as a container's of ours, by podman's own words",
            "storage": "none: the root is our mount (--rootfs)",
            "adds": "HOSTNAME to the environment, and the user's own group to its others",
            "conmon": "in the cgroup of podman's own processes (--cgroups=no-conmon)",
        }
    )

    def lay_out(self, place: Place) -> None:
        capabilities = [name.removeprefix("CAP_") for name in place.spec.process.capabilities]
        # Capabilities that are added by an option are effective for an unprivileged user, too, which ours are not.
        (place.folder / _CONFIGURATION).write_text(_ENGINE.format(json.dumps(capabilities)))
        seccomp = place.config.linux.seccomp
        if seccomp is not None:
            (place.folder / _SECCOMP).write_bytes(msgspec.json.encode(seccomp))

    def root_steps(self, place: Place) -> tuple[Step, ...]:
        return (*hide_second_version(place.hierarchies), Mount(str(place.shared), _HERE, "", MS_BIND))

    def environment(self, place: Place) -> tuple[str, ...]:
        return (*super().environment(place), f"CONTAINERS_CONF={place.folder / _CONFIGURATION}", "HOME=/root")

    def more_facts(self, found: Found) -> Mapping[str, object]:
        with tempfile.TemporaryDirectory(prefix="testbed-podman-", dir="/run") as here:
            words = (*_called(found, here), "info", "--format={{.Host.OCIRuntime.Name}} {{.Host.Conmon.Version}}")
            _, answer = ask(words, "podman info")
        runtime, _, conmon = shortened(printable(answer.strip())).partition(" ")
        return {"runtime": runtime, "conmon_version": conmon}

    def command(self, place: Place, found: Found) -> tuple[str, ...]:
        return (
            *_called(found, _HERE),
            *("run", "--detach", "--name", place.name, "--log-driver=passthrough", "--systemd=false", "--passwd=false"),
            *("--network=ns:/proc/self/ns/net", "--no-hosts"),
            *_namespaces(place),
            *("--cgroups=no-conmon", "--cgroup-parent", f"/{place.cgroup}"),
            *_limits(place),
            *_process(place),
            *_walls(place),
            "--rootfs",
            str(place.root),
            *place.spec.process.args,
        )

    def ending(self, place: Place, found: Found) -> tuple[tuple[str, ...], ...]:
        """Return its own removal, in a mount namespace where its files are at the same place as at the start."""
        bound = ("unshare", "--mount", "sh", "-c", f'mount --bind "$0" {_HERE} && exec "$@"', str(place.shared))
        return ((*bound, *_called(found, _HERE), "rm", "--force", "--time=0", place.name),)


def _called(found: Found, here: str) -> tuple[str, ...]:
    paths = (f"--root={here}/storage", f"--runroot={here}/run", f"--tmpdir={here}/tmp")
    return (found.path, *paths, f"--runtime-flag=root={here}/state", "--storage-driver=vfs", "--log-level=error")


def _namespaces(place: Place) -> tuple[str, ...]:
    """Return the words for the name of its own, and for the namespaces that it shares."""
    shared = dict(place.spec.shared)
    words = [] if "uts" in shared else ["--hostname", place.spec.hostname]
    if "cgroup" not in shared:
        words.append("--cgroupns=private")  # which on cgroup v1 it would not do by itself
    for kind, option in (("pid", "pid"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroupns")):
        if kind in shared:
            words.append(f"--{option}={f'ns:{shared[kind]}' if shared[kind] else 'host'}")
    if not place.spec.shm:
        words.append("--ipc=none")
    if place.spec.shm_bytes is not None:
        words.append(f"--shm-size={place.spec.shm_bytes}b")
    return (*words, *(("--volume", f"{place.lent}:{SHM}") if place.lent else ()))


def _limits(place: Place) -> tuple[str, ...]:
    limits = place.spec.resources
    quota = place.config.linux.resources.cpu if place.config.linux.resources else None
    words: tuple[str, ...] = (f"--pids-limit={limits.pids or -1}",)
    if limits.memory_bytes is not None:
        words += (f"--memory={limits.memory_bytes}b",)
    if quota is not None and quota.quota is not None:
        words += (f"--cpu-period={CPU_PERIOD_USEC}", f"--cpu-quota={quota.quota}")
    return words


def _process(place: Place) -> tuple[str, ...]:
    process = place.spec.process
    user = process.user
    variables = [word for entry in process.env for word in ("--env", entry)]
    ulimits = [f"--ulimit={one.type.removeprefix('RLIMIT_').lower()}={one.soft}:{one.hard}" for one in process.rlimits]
    if not any(one.type == "RLIMIT_NPROC" for one in process.rlimits):
        ulimits.append(f"--ulimit=nproc={_most_processes()}")
    groups = [f"--group-add={gid}" for gid in user.additional_gids]
    umask = [] if user.umask is None else [f"--umask={user.umask:04o}"]
    where = (f"--user={user.uid}:{user.gid}", f"--workdir={process.cwd}", "--http-proxy=false", "--entrypoint=")
    given = {entry.partition("=")[0] for entry in process.env}
    own = tuple(f"--unsetenv={name}" for name in ("container", "TERM") if name not in given)
    return (*where, *own, *variables, *ulimits, *groups, *umask)


def _most_processes() -> int:
    """Return the limit of processes that podman leaves itself, above which it would go without being asked."""
    hard, most = resource.getrlimit(resource.RLIMIT_NPROC)[1], int(Path("/proc/sys/kernel/pid_max").read_text())
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def _walls(place: Place) -> tuple[str, ...]:
    process = place.config.process
    assert process is not None
    filters = f"{place.folder / _SECCOMP}" if place.config.linux.seccomp is not None else "unconfined"
    privileges = ("--security-opt=no-new-privileges",) if process.no_new_privileges else ()
    masked = f"--security-opt=mask={':'.join(place.spec.masked_paths)}"
    return (masked, f"--security-opt=seccomp={filters}", "--security-opt=apparmor=unconfined", *privileges)
