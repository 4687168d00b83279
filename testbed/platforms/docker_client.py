"""What is asked of docker's command line: whether its daemon can serve a run, an image of layers, a container."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

from runtime.errors import PrerequisiteError, TestbedError, in_words
from runtime.output import printable, shortened
from runtime.spec import CPU_PERIOD_USEC, Spec, configuration
from runtime.speed import scale
from runtime.unionfs.depth import effective
from runtime.unionfs.detached import Stack, overlay_by_options
from testbed.platforms.peers.plans import ENTRY, LAUNCHER
from testbed.platforms.peers.program import Program, ask, find

DOCKER = Program("docker", "docker.io")
# Marks what a run has with the daemon; its value is the run's mark.
LABEL = "testbed.run"
_COMMAND_S = 300.0
_START_IT = "start it, or set DOCKER_HOST: the testbed starts no daemon"


class Daemon(Struct, frozen=True):
    """The daemon that answers: its version, storage driver and default runtime, and the client that asked."""

    client: str
    version: str
    storage: str
    runtime: str


def find_daemon() -> Daemon:
    """Find docker's client, and ask the daemon what it is.

    Raises PrerequisiteError without a client, without an answer, or for a daemon whose containers are not here, or
    cannot be in a run's cgroup.
    """
    client = find(DOCKER)
    status, answer = ask((client.path, "info", "--format", "{{json .}}"), "docker info")
    told, said = _split(answer)
    names = ("ServerVersion", "Driver", "DefaultRuntime", "CgroupDriver", "Name")
    version, storage, runtime, driver, host = (str(told.get(name) or "") for name in names)
    if status or not version:
        raise PrerequisiteError(f"docker's daemon does not answer: {said or 'nothing'}", _START_IT)
    if host != socket.gethostname():
        where = shortened(printable(host))
        raise PrerequisiteError(f"docker's daemon is on another host, {where}", "set DOCKER_HOST to one that is here")
    if driver != "cgroupfs":
        raise PrerequisiteError(
            f"docker's daemon makes its cgroups by {shortened(printable(driver))}, so its containers cannot be in the"
            " run's",
            'use one with "exec-opts": ["native.cgroupdriver=cgroupfs"]',
        )
    return Daemon(client.path, *(shortened(printable(word)) for word in (version, storage, runtime)))


def _split(answer: str) -> tuple[Mapping[str, object], str]:
    """Return what docker told as JSON and the first line that it said besides. Without a daemon it tells empty
    members, and complains on the same line."""
    try:
        told, end = json.JSONDecoder().raw_decode(answer)
    except (ValueError, RecursionError):
        told, end = {}, 0
    if not isinstance(told, dict):
        told, end = {}, 0
    return told, shortened(printable(answer[end:].strip().partition("\n")[0]))


def run(words: Sequence[str], what: str, *, check: bool = True) -> str:
    """Run a docker command; return what it prints. Raises TestbedError, with what it says, when it fails."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=scale(_COMMAND_S), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"{what}: no end within {scale(_COMMAND_S):g} s") from error
    if done.returncode and check:
        said = "\n".join(shortened(printable(line)) for line in done.stderr.strip().splitlines()[-4:])
        raise TestbedError(f"{what}: exit status {done.returncode}", said)
    return done.stdout


def import_layers(client: str, layers: Sequence[str], reference: str, mark: str) -> None:
    """Import the layers, bottom first and merged, as one image. Raises TestbedError."""
    what = f"import the image {reference} into docker"
    try:
        mounted = overlay_by_options(Stack(tuple(reversed(effective(tuple(layers)))), None, "import"))
    except OSError as error:
        raise TestbedError(f"{what}: {in_words(error)}") from error
    script = 'tar --directory "$1" --xattrs --create . | "$2" import --change "LABEL $3" - "$4"'
    try:
        words = ("sh", "-c", script, "sh", f"/proc/{os.getpid()}/fd/{mounted}", client)
        run((*words, f"{LABEL}={mark}", reference), what)
    finally:
        os.close(mounted)


def run_words(
    client: str,
    spec: Spec,
    name: str,
    mark: str,
    cgroup: str,
    entry: Path,
    image: str,
    variables: Mapping[str, str],
    containers: Mapping[str, str] = MappingProxyType({}),
    lends: bool = False,
) -> tuple[str, ...]:
    """Return the words that make and start a container in which our launcher, below ``entry``, is executed.
    ``containers`` and ``lends`` are as for ``space_words``."""
    process, user, limits = spec.process, spec.process.user, spec.resources
    words = [client, "run", "--detach", "--name", name, "--label", f"{LABEL}={mark}", "--log-driver=none"]
    words += [*space_words(spec, containers, lends), f"--cgroup-parent=/{cgroup}"]
    words += ["--volume", f"{entry}:{ENTRY}:ro", f"--workdir={process.cwd}", f"--user={user.uid}:{user.gid}"]
    words += [f"--group-add={gid}" for gid in user.additional_gids]
    words += [f"--ulimit={one.type.removeprefix('RLIMIT_').lower()}={one.soft}:{one.hard}" for one in process.rlimits]
    words += [f"--env={variable}={value}" for variable, value in variables.items()]
    words += [
        "--cap-drop=ALL",
        *(f"--cap-add={capability.removeprefix('CAP_')}" for capability in process.capabilities),
    ]
    words += [f"--security-opt=seccomp={entry.parent / 'seccomp.json' if spec.seccomp else 'unconfined'}"]
    words += ["--security-opt=apparmor=unconfined"]  # as all others are
    words += ["--security-opt=no-new-privileges"] if process.no_new_privileges else []
    words += [f"--pids-limit={limits.pids}"] if limits.pids is not None else []
    if limits.memory_bytes is not None:
        words += [f"--memory={limits.memory_bytes}b", f"--memory-swap={limits.memory_bytes}b"]
    cpu = configuration(spec).linux.resources
    if cpu is not None and cpu.cpu is not None and cpu.cpu.quota is not None:
        words += [f"--cpu-period={CPU_PERIOD_USEC}", f"--cpu-quota={cpu.cpu.quota}"]
    return (*words, "--entrypoint", f"{ENTRY}/{LAUNCHER}", image)


def space_words(spec: Spec, containers: Mapping[str, str], lends: bool) -> tuple[str, ...]:
    """Return the words on a container's network, names and other namespaces; ``containers`` are those of the services
    that it shares with. One that ``lends`` has IPC that others may join.

    In another's network it has that one's names; docker takes no others there.
    """
    shared = dict(spec.shared)
    theirs = {kind: f"container:{containers[of]}" if of else "host" for kind, of in shared.items()}
    network = theirs.get("network", "none")
    ipc = theirs.get("ipc", "shareable" if lends else "private") if spec.shm else "none"
    words = [f"--network={network}", f"--ipc={ipc}"]
    words += [f"--shm-size={spec.shm_bytes}b"] if spec.shm_bytes is not None else []
    words += [f"--{kind}={theirs[kind]}" for kind in ("pid", "uts") if kind in theirs]
    words += [f"--cgroupns={theirs.get('cgroup', 'private')}"]  # on cgroup v1 it would be the host's
    if network == "none":
        words += [f"--hostname={spec.hostname}"] if "uts" not in theirs else []
        words += [f"--add-host={other}:{address}" for other, address in spec.hosts]
    return tuple(words)


def mark_of(run_id: str) -> str:
    """Return how a run is marked with the daemon; its images' names have no capital letters."""
    return run_id.lower()


def remove_marked(client: str, mark: str) -> None:
    """Remove a run's containers and images from the daemon; what does not go, stays."""
    for kind, remove in (("ps", ("rm", "--force", "--volumes")), ("images", ("rmi", "--force"))):
        listed = run((client, kind, "--all", "--quiet", "--filter", f"label={LABEL}={mark}"), "docker", check=False)
        if found := listed.split():
            run((client, *remove, *dict.fromkeys(found)), "docker", check=False)


class Marked(Struct, frozen=True):
    """What a run has with the daemon: a container or an image by its name, and the run's mark."""

    what: str
    mark: str


def find_marked() -> tuple[Marked, ...]:
    """Return what runs have with docker's daemon; nothing where no daemon of this host answers."""
    try:
        client = find_daemon().client
    except PrerequisiteError:
        return ()
    marked = [
        Marked(f"container {name}", mark) for mark, name in _list(client, "ps", f'{{{{.Label "{LABEL}"}}}}', "Names")
    ]
    images = _list(client, "images", "{{.Repository}}", "Tag")
    return (*marked, *(Marked(f"image {name}:{tag}", name.rpartition("/")[2]) for name, tag in images))


def _list(client: str, kind: str, first: str, second: str) -> list[tuple[str, str]]:
    words = (client, kind, "--all", "--filter", f"label={LABEL}", "--format", f"{first} {{{{.{second}}}}}")
    try:
        status, answer = ask(words, f"docker {kind}")
    except PrerequisiteError:
        return []
    lines = [printable(line).split() for line in answer.splitlines()] if not status else []
    return [(line[0], line[1]) for line in lines if len(line) == 2]
