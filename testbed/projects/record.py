"""The record of an application that was started to be used: what is on disk of it, and whether somebody still holds it.

A project is one running application, as Compose calls it. It has the lease that its name gives, so no two of one name
run at a time, and its record lies in that lease's directory: what removes a dead run removes it, too. The process that
holds the lease (testbed.projects.holder) writes the record, everybody else reads it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from msgspec import Struct, json

from runtime.atomic import read_document, replace_file
from runtime.cgroups import Cgroup
from runtime.description import from_json, to_json
from runtime.errors import PrerequisiteError, UsageError
from runtime.lease import STATE_ROOT, cgroup_name, is_dead, is_held, leases
from runtime.spec import Spec
from testbed.yamltree.problems import quote

_PREFIX = "up-"
_RECORD, _SPECS, _LOGS, HOLDER_LOG = "project.json", "specs.json", "logs", "holder.log"
# Compose specification, "Name top-level element".
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
# The socket of a machine's monitor has the lease's name in its path, which is short (testbed.bench.SCENARIO_LETTERS).
_LEASE_LETTERS, _DIGEST_LETTERS = 28, 6

State = Literal["waiting", "starting", "running", "exited"]
Health = Literal["", "starting", "healthy", "unhealthy"]


class Published(Struct, frozen=True):
    """A port of a service that can be reached at ``address`` and ``host_port`` of the host; ``http``: a browser can."""

    service: str
    port: int
    address: str
    host_port: int
    http: bool = False

    def __str__(self) -> str:
        where = f"{self.address}:{self.host_port}"
        return f"http://{where}/" if self.http else where


class Member(Struct, frozen=True):
    """A service of a project: the ``instance`` that runs it and its ``address`` in the project's own network.

    ``pid`` and ``ticks`` (its start, in clock ticks after boot) are its first process's, 0 where that is not the host's
    to see, as in a virtual machine. ``exit_status`` is None unless it has ended and that is known.
    """

    name: str
    instance: str
    address: str
    ports: tuple[int, ...] = ()
    state: State = "waiting"
    health: Health = ""
    pid: int = 0
    ticks: int = 0
    since_s: float = 0.0
    exit_status: int | None = None


class Record(Struct, frozen=True):
    """A project as its holder wrote it last. ``holder`` and ``ticks`` are that process's number and start, times are in
    seconds since 1970; ``ready_s`` is None until the application was ready. A service has at most ``grace_s`` to end.
    """

    name: str
    scenario: str
    platform: str
    label: str
    holder: int
    ticks: int
    started_s: float
    ready_s: float | None = None
    members: tuple[Member, ...] = ()
    published: tuple[Published, ...] = ()
    grace_s: float = 10.0

    def member(self, service: str) -> Member:
        """Return a service. Raises UsageError with those that there are."""
        for one in self.members:
            if one.name == service:
                return one
        names = ", ".join(one.name for one in self.members)
        raise UsageError(f"{self.name} has no service {quote(service)}", f"it has {names}")


class Project(Struct, frozen=True):
    """A project on this host: its lease's ``directory``, its record (None before there is one), and whether its holder
    is ``alive``."""

    name: str
    directory: Path
    record: Record | None
    alive: bool

    def log_path(self, instance: str) -> Path:
        """Return the file with what an instance wrote."""
        return self.directory / _LOGS / f"{instance}.log"

    def specs(self) -> Mapping[str, Spec]:
        """Return what each service runs."""
        try:
            return from_json((self.directory / _SPECS).read_text())[0]
        except (OSError, ValueError) as error:
            raise PrerequisiteError(
                f"read {self.directory / _SPECS}: {error}", "./invoke down, and up again"
            ) from error

    def memory_bytes(self, member: Member) -> int | None:
        """Return what is charged to a service's instance: a container's processes, or QEMU. None when it is gone."""
        with suppress(OSError, ValueError):
            return Cgroup(cgroup_name(self.directory.name, member.instance)).memory_bytes()
        return None


def check_name(name: str) -> str:
    """Return a project's name as given. Raises UsageError for one that Compose would not take."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--project {quote(name)} is no project's name",
            "at most 40 of a to z, 0 to 9, '-' and '_', a letter or digit first",
        )
    return name


def lease_name(project: str) -> str:
    """Return the name of a project's lease: the project's own, unless that is too long for a socket's path."""
    if len(project) > _LEASE_LETTERS:
        digest = hashlib.sha256(project.encode()).hexdigest()[:_DIGEST_LETTERS]
        project = f"{project[: _LEASE_LETTERS - _DIGEST_LETTERS - 1]}-{digest}"
    return f"{_PREFIX}{project}"


def write(directory: Path, record: Record) -> None:
    """Write a project's record, whole or not at all. Raises OSError."""
    replace_file(directory / _RECORD, json.encode(record))


def write_specs(directory: Path, specs: Mapping[str, Spec]) -> None:
    """Write what a project's services run, for those who start a further process beside them."""
    replace_file(directory / _SPECS, to_json(specs).encode())


def make_logs(directory: Path) -> Path:
    """Make the folder of a project's logs."""
    folder = directory / _LOGS
    folder.mkdir(exist_ok=True)
    return folder


def _read(lease: str, root: Path) -> Project | None:
    """Return the project that has a lease; None when it has just gone."""
    try:
        held = is_held(lease, root)
        if not held and not is_dead(lease, root):
            return None
    except PermissionError as error:
        raise PrerequisiteError(f"look at {root / lease}: {error.strerror}", "run it as root") from error
    record = read_document(root / lease / _RECORD, Record)
    name = record.name if record else lease.removeprefix(_PREFIX)
    return Project(name, root / lease, record, held)


def list_projects(root: Path = STATE_ROOT) -> tuple[Project, ...]:
    """Return the projects of this host, those whose holder was killed too, by name. Raises PrerequisiteError for one
    that this user may not look at."""
    read = (_read(lease, root) for lease in leases(root) if lease.startswith(_PREFIX))
    return tuple(sorted(filter(None, read), key=lambda project: project.name))


def find(name: str, root: Path = STATE_ROOT) -> Project | None:
    """Return the project of that name, if there is one."""
    lease = lease_name(check_name(name))
    return _read(lease, root) if lease in leases(root) else None


def choose(name: str, root: Path = STATE_ROOT) -> Project:
    """Return the project of that name or, without a name, the only one that there is. Raises UsageError otherwise."""
    projects: Mapping[str, Project] = MappingProxyType({one.name: one for one in list_projects(root)})
    if not projects:
        raise UsageError(f"{name or 'nothing'} is up on this host: no project at all", "./invoke up SCENARIO")
    if name in projects:
        return projects[name]
    names = ", ".join(projects)
    if name:
        raise UsageError(f"no project {quote(name)} is up on this host", f"there is {names}")
    if len(projects) > 1:
        raise UsageError(f"several projects are up on this host: {names}", "name one with --project")
    return next(iter(projects.values()))
