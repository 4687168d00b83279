"""What is mounted in a service, decided: from the host, from a volume, or new and in memory.

There are three ways in which a service gets what its file mounts. An application that is up sees the host's own files,
and its volumes outlive it; machines are lent them (testbed.qemu.shares). In one that is measured each copy has the same
bytes: as a further layer of the image (testbed.services.contents), or, of what several services share and one writes,
in directories of the host that are made for the copy (testbed.services.copies). So no copy changes another's. A machine
that can be lent nothing has a layer in any case, and shares nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from runtime.config.types import Mount as OciMount
from runtime.errors import PrerequisiteError, UsageError
from runtime.home import is_sealed
from testbed.compose.model import Application, Content, FileMount, Mount, Service
from testbed.services.processes import INIT, INIT_TARGET

NO_PARTS: Mapping[Mount, Path] = MappingProxyType({})
_TMPFS = ("nosuid", "nodev", "noexec")  # as Docker mounts them
SECRET_MODE = 0o444


class Places(Struct, frozen=True):
    """Where an application's volumes and the files of its secrets and configs are on the host, a directory each. With
    ``copies`` it has copies, there, of what is bound of the host."""

    volumes: Path
    files: Path
    copies: Path | None = None

    def source(self, application: Application, mount: Mount) -> Path:
        """Return where a volume, or what is bound, is; of one with a ``subpath`` the whole."""
        bound = find_bound(application, mount)
        if bound is None:
            return self.volumes / name_volume(mount)
        return bound if self.copies is None else self.copies / quote(str(bound), safe="")

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


def list_mounts(
    service: Service, application: Application, places: Places, parts: Mapping[Mount, Path] = NO_PARTS
) -> tuple[OciMount, ...]:
    """Return all that is mounted in a service that sees the host's own files, in the order in which that is possible:
    a directory before what is mounted in it. ``parts`` are the sources of mounts that are parts of others."""
    mounts = [
        *(
            _bind_own(parts.get(mount) or places.source(application, mount), mount)
            for mount in service.mounts
            if mount.kind in ("bind", "volume")
        ),
        *list_tmpfs(service),
        *(
            _bind(places.file(service.name, number), one.target, "rbind", "ro")
            for number, (one, _) in enumerate(list_files(service, application))
        ),
        *([_bind(Path(INIT), INIT_TARGET, "rbind", "ro")] if service.init else []),
    ]
    return tuple(sorted(mounts, key=lambda mount: mount.destination.count("/")))


def _bind_own(source: Path, mount: Mount) -> OciMount:
    return _bind(source, mount.target, "rbind", mount.propagation or "rprivate", "ro" if mount.read_only else "rw")


def _bind(source: Path, target: str, *options: str) -> OciMount:
    return OciMount(target, "bind", str(source), options)


def find_bound(application: Application, mount: Mount) -> Path | None:
    """Return what of the host is mounted, by a bind or by a volume that is bound to it; None for a volume of its
    own."""
    if mount.kind == "bind":
        return Path(mount.source)
    return next((one.path for one in application.volumes if one.name == mount.source), None)


def name_volume(mount: Mount) -> str:
    """Return the name of a mount's volume; one without a name is its owner's, by where that mounts it. None that a
    file gives has an @."""
    return mount.source or f"{mount.owner}@{mount.target.strip('/').replace('/', '-')}"


def name_source(mount: Mount) -> str:
    """Return what a person calls what is mounted: a volume by its name, what is bound by its path."""
    return mount.source if mount.kind == "bind" else f"volume {name_volume(mount)}"


def find_shared(services: Sequence[Service]) -> Mapping[str, tuple[str, ...]]:
    """Return what more than one service mounts, volumes and what is bound, and one of them may write to, with those."""
    users: dict[str, list[str]] = {}
    written: set[str] = set()
    for service in services:
        mounted = [one for one in service.mounts if one.kind in ("volume", "bind")]
        for name in dict.fromkeys(map(name_source, mounted)):
            users.setdefault(name, []).append(service.name)
        written |= {name_source(one) for one in mounted if not one.read_only}
    return {name: tuple(of) for name, of in users.items() if len(of) > 1 and name in written}


def split_shared(service: Service, services: Sequence[Service]) -> tuple[Service, Service]:
    """Return a service with what it mounts for itself of the host, and with what it shares with others (find_shared);
    file systems in memory are in both."""
    shared = find_shared(services)
    common = tuple(one for one in service.mounts if one.kind in ("volume", "bind") and name_source(one) in shared)
    alone = tuple(one for one in service.mounts if one not in common)
    memory = tuple(one for one in service.mounts if one.kind == "tmpfs")
    bare = replace(service, secrets=(), configs=(), init=False)
    return replace(service, mounts=alone), replace(bare, mounts=(*common, *memory))


def describe_shared(services: Sequence[Service]) -> str:
    """Return what services share, and which of them, in words; empty for nothing."""
    return "; ".join(f"{name} ({', '.join(users)})" for name, users in find_shared(services).items())


def require_init(services: Sequence[Service]) -> None:
    """Raise PrerequisiteError when a service is to have an init and this host has none to copy."""
    named = [service.name for service in services if service.init and not is_sealed()]
    if named and not Path(INIT).is_file():
        raise PrerequisiteError(f"{', '.join(named)}: init: there is no {INIT}", "apt-get install tini")


# What files may say that no platform does yet, by the model's fields.
UNAPPLIED = ("tty", "stdin_open")


def list_unapplied(services: Sequence[Service]) -> tuple[str, ...]:
    """Return a line for each service of whose file something is not applied."""
    lines = []
    for service in services:
        names = [name for name in UNAPPLIED if getattr(service, name)]
        if names:
            lines.append(f"{service.name}: not applied: {', '.join(names)}")
    return tuple(lines)


def require_no_shared(services: Sequence[Service], where: str, why: str) -> None:
    """Raise UsageError for what several services share, which ``where`` cannot have, for the reason ``why``."""
    for name, users in find_shared(services).items():
        raise UsageError(
            f"{name} is shared by {' and '.join(users)}, which {where} cannot have: {why}",
            "bring it up as containers, or give each service a volume of its own",
        )
