"""What is mounted in a service, decided: from the host, from a volume, or new and in memory.

There are two ways in which a service gets what its file mounts. An application that is up as containers sees the host's
own files, and its volumes outlive it. One that is measured, or that runs in virtual machines, gets the same bytes as a
further layer of its image (testbed.services.contents), so that both sides have them, and no copy changes another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from runtime.config.types import Mount as OciMount
from runtime.errors import PrerequisiteError, UsageError
from runtime.home import is_sealed
from testbed.compose.model import Application, Content, FileMount, Mount, Service
from testbed.services.processes import INIT, INIT_TARGET

_TMPFS = ("nosuid", "nodev", "noexec")  # as Docker mounts them
SECRET_MODE = 0o444


class Places(Struct, frozen=True):
    """Where an application's volumes and the files of its secrets and configs are on the host, a directory each."""

    volumes: Path
    files: Path

    def volume(self, application: Application, name: str) -> Path:
        """Return the directory of a volume: its own, or the host's that it is bound to."""
        bound = next((one.path for one in application.volumes if one.name == name), None)
        return bound or self.volumes / name

    def file(self, service: str, number: int) -> Path:
        """Return the file of a service's secret or config, counted from 0."""
        return self.files / service / str(number)


def list_files(service: Service, application: Application) -> tuple[tuple[FileMount, Content], ...]:
    """Return the secrets and configs of a service, each with its content."""
    secrets = {content.name: content for content in application.secrets}
    configs = {content.name: content for content in application.configs}
    return (
        *((one, secrets[one.source]) for one in service.secrets),
        *((one, configs[one.source]) for one in service.configs),
    )


def list_tmpfs(service: Service) -> tuple[OciMount, ...]:
    """Return the file systems in memory, which every platform mounts."""
    return tuple(_tmpfs(mount) for mount in service.mounts if mount.kind == "tmpfs")


def _tmpfs(mount: Mount) -> OciMount:
    options = [*_TMPFS, f"mode={mount.mode if mount.mode is not None else 0o1777:o}"]
    if mount.size_bytes is not None:
        options.append(f"size={mount.size_bytes}")
    return OciMount(mount.target, "tmpfs", "tmpfs", (*options, *(["ro"] if mount.read_only else [])))


def list_mounts(service: Service, application: Application, places: Places) -> tuple[OciMount, ...]:
    """Return all that is mounted in a service that sees the host's own files, in the order in which that is possible:
    a directory before what is mounted in it."""
    mounts = [
        *(_of_host(mount, application, places) for mount in service.mounts if mount.kind in ("bind", "volume")),
        *list_tmpfs(service),
        *(
            _bind(places.file(service.name, number), one.target, "rbind", "ro")
            for number, (one, _) in enumerate(list_files(service, application))
        ),
        *([_bind(Path(INIT), INIT_TARGET, "rbind", "ro")] if service.init else []),
    ]
    return tuple(sorted(mounts, key=lambda mount: mount.destination.count("/")))


def _of_host(mount: Mount, application: Application, places: Places) -> OciMount:
    source = Path(mount.source) if mount.kind == "bind" else places.volume(application, volume_name(mount))
    if mount.subpath:
        source = source / mount.subpath
    return _bind(source, mount.target, "rbind", mount.propagation or "rprivate", "ro" if mount.read_only else "rw")


def _bind(source: Path, target: str, *options: str) -> OciMount:
    return OciMount(target, "bind", str(source), options)


def volume_name(mount: Mount) -> str:
    """Return the name of a mount's volume; one without a name is its service's own, by where it is mounted."""
    return mount.source or mount.target.strip("/").replace("/", "-") or "root"


def find_shared(services: Sequence[Service]) -> Mapping[str, tuple[str, ...]]:
    """Return the named volumes that more than one service mounts, with those."""
    users: dict[str, list[str]] = {}
    for service in services:
        for name in dict.fromkeys(one.source for one in service.mounts if one.kind == "volume" and one.source):
            users.setdefault(name, []).append(service.name)
    return {name: tuple(of) for name, of in users.items() if len(of) > 1}


def require_init(services: Sequence[Service]) -> None:
    """Raise PrerequisiteError when a service is to have an init and this host has none to copy."""
    named = [service.name for service in services if service.init and not is_sealed()]
    if named and not Path(INIT).is_file():
        raise PrerequisiteError(f"{', '.join(named)}: init: there is no {INIT}", "apt-get install tini")


# What files may say that no platform does yet, by the model's fields.
_UNAPPLIED = ("tty", "stdin_open")


def list_unapplied(services: Sequence[Service]) -> tuple[str, ...]:
    """Return a line for each service of whose file something is not applied."""
    lines = []
    for service in services:
        names = [name for name in _UNAPPLIED if getattr(service, name)]
        if names:
            lines.append(f"{service.name}: not applied: {', '.join(names)}")
    return tuple(lines)


def require_no_shared(services: Sequence[Service], where: str) -> None:
    """Raise UsageError for a volume that several services share, which ``where`` cannot be."""
    for name, users in find_shared(services).items():
        raise UsageError(
            f"volume {name} is shared by {' and '.join(users)}, which {where} cannot",
            "bring it up as containers, or give each service a volume of its own",
        )
