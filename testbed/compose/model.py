"""The model of an application that compose files describe: its services and what they share, as frozen data.

It holds what can change a measure. Paths are absolute, times are seconds, sizes are bytes, variables are replaced, and
what one key can say in several forms has one. How files become this is in ``application``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from msgspec import Struct

from runtime.spec import Resources

Pairs = tuple[tuple[str, str], ...]
MountKind = Literal["bind", "volume", "tmpfs", "image"]
Condition = Literal["service_started", "service_healthy", "service_completed_successfully"]

# Docker's defaults (Dockerfile reference, HEALTHCHECK; Compose specification, stop_grace_period).
CHECK_INTERVAL_S, CHECK_TIMEOUT_S, CHECK_RETRIES, CHECK_START_INTERVAL_S = 30.0, 30.0, 3, 5.0
STOP_GRACE_S = 10.0


class Port(Struct, frozen=True):
    """A port that a service offers: ``target`` is in the container, ``published`` on the host ("" for any, or a range
    such as ``8000-8010`` to choose from) at ``host_ip`` ("" for all addresses). ``exposed``: to other services only."""

    target: int
    protocol: str = "tcp"
    published: str = ""
    host_ip: str = ""
    exposed: bool = False


class Mount(Struct, frozen=True):
    """What is mounted at ``target``, an absolute path in the container.

    ``source`` is the absolute path on the host (bind), the name of one of the application's volumes ("" for one that
    has none, of the service ``owner``), or an image; ``subpath`` is a part of a volume or image. ``create`` makes the
    host's path, a directory, when it is missing; ``copy`` fills a new volume with what the image has there. ``mode``
    and ``size_bytes`` are a tmpfs's.
    """

    kind: MountKind
    target: str
    source: str = ""
    read_only: bool = False
    subpath: str = ""
    create: bool = True
    copy: bool = True
    propagation: str = ""
    owner: str = ""
    size_bytes: int | None = None
    mode: int | None = None


class FileMount(Struct, frozen=True):
    """A secret or config, by its name ``source``, as a file at the absolute path ``target``: whose it is ("" for root)
    and its permissions (None for 0444)."""

    source: str
    target: str
    uid: str = ""
    gid: str = ""
    mode: int | None = None


class Healthcheck(Struct, frozen=True):
    """How a service's health is checked; ``test`` is the command's words, None the image's own check.

    ``disabled``: there is none, even if the image has one. ``retries`` failures in a row make it unhealthy, which do
    not count in the first ``start_period_s``, where it is asked every ``start_interval_s``.
    """

    test: tuple[str, ...] | None = None
    interval_s: float = CHECK_INTERVAL_S
    timeout_s: float = CHECK_TIMEOUT_S
    retries: int = CHECK_RETRIES
    start_period_s: float = 0.0
    start_interval_s: float = CHECK_START_INTERVAL_S
    disabled: bool = False


class Dependency(Struct, frozen=True):
    """A ``service`` that is started first, and what is waited for then; one that is not ``required`` may be missing."""

    service: str
    condition: Condition = "service_started"
    required: bool = True


class Ulimit(Struct, frozen=True):
    """A resource limit of processes, by the name that setrlimit(2) has after ``RLIMIT_``, in small letters; -1 is
    unlimited."""

    name: str
    soft: int
    hard: int


class HostDevice(Struct, frozen=True):
    """A device of the host, by its path there (``source``) and in the container, with what may be done: r, w, m."""

    source: str
    target: str
    access: str = "rwm"


class Attachment(Struct, frozen=True):
    """A network that a service is in, by the application's name for it, the other names that it has there, and the
    address that it asks for ("" for any)."""

    network: str
    aliases: tuple[str, ...] = ()
    address: str = ""


class Build(Struct, frozen=True):
    """How an image is built: ``dockerfile`` None means the text ``inline``; ``target`` "" is the last stage.

    ``contexts`` are further contexts by name: absolute paths, or references as the file has them.
    """

    context: Path
    dockerfile: Path | None
    inline: str = ""
    target: str = ""
    args: Pairs = ()
    contexts: Pairs = ()
    secrets: tuple[FileMount, ...] = ()


class Service(Struct, frozen=True):
    """One service: where its image comes from (``build``, or ``image`` as its file names it) and how it is run.

    ``command`` and ``entrypoint`` replace the image's own unless None; "" and None mean the image's own, or Docker's
    usual. ``ports`` are the TCP ports that it listens on, for readiness; ``offers`` has all of them, with protocols,
    ranges taken apart and what is published. ``restart``, Compose's word, says when it is started again after its end.
    ``hosts`` are further names with addresses; ``links`` names other services are to be found by, with the service.
    ``seccomp``: it runs under the default filter of system calls. ``network_mode`` and the namespaces ``pid``, ``ipc``,
    ``uts`` and ``cgroup`` are "" (its own), ``host``, or, of the first three, ``service:NAME``; a network can be
    ``none``, and IPC ``none`` (without shared memory) or ``private`` (that nobody may share). Users are the host's.
    ``only_containers`` says, of each key that no virtual machine can honour, why.
    """

    name: str
    resources: Resources
    build: Build | None = None
    image: str = ""
    environment: Pairs = ()
    depends_on: tuple[Dependency, ...] = ()
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    ports: tuple[int, ...] = ()
    seccomp: bool = True
    offers: tuple[Port, ...] = ()
    healthcheck: Healthcheck | None = None
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[FileMount, ...] = ()
    configs: tuple[FileMount, ...] = ()
    user: str = ""
    groups: tuple[str, ...] = ()
    working_dir: str = ""
    hostname: str = ""
    domainname: str = ""
    stop_signal: str = ""
    stop_grace_s: float = STOP_GRACE_S
    restart: str = "no"
    init: bool = False
    tty: bool = False
    stdin_open: bool = False
    read_only: bool = False
    privileged: bool = False
    no_new_privileges: bool | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Pairs = ()
    shm_bytes: int | None = None
    devices: tuple[HostDevice, ...] = ()
    networks: tuple[Attachment, ...] = ()
    links: Pairs = ()
    hosts: Pairs = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    network_mode: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroup: str = ""
    only_containers: Pairs = ()


class Volume(Struct, frozen=True):
    """A named volume; ``path`` is a directory of the host that it is bound to (driver_opts device), or None."""

    name: str
    path: Path | None = None


class Network(Struct, frozen=True):
    """A network that some services share; an ``internal`` one leads nowhere else."""

    name: str
    internal: bool = False


class Content(Struct, frozen=True):
    """A secret or a config: the file that it is read from or, with ``path`` None, its text."""

    name: str
    path: Path | None = None
    text: str = ""


class Application(Struct, frozen=True):
    """What compose files say, merged: services in the order in which they can be started, and what they share.

    ``notes`` are lines for the user: what was read over, assumed or taken from the environment. ``variables`` are those
    that the files use, with the values that they had.
    """

    services: tuple[Service, ...]
    volumes: tuple[Volume, ...] = ()
    networks: tuple[Network, ...] = ()
    secrets: tuple[Content, ...] = ()
    configs: tuple[Content, ...] = ()
    notes: tuple[str, ...] = ()
    variables: Pairs = ()
