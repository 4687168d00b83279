"""Which registry has an image: ``TESTBED_REGISTRY``, and registries.conf as the container engines read it.

Of containers-registries.conf(5), version 2, this understands: ``unqualified-search-registries``, ``[aliases]``, and of
each ``[[registry]]`` its prefix, location, insecure, blocked and mirrors. Nothing is built in: a short name has no
registry until one of these gives it one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.files import read_bounded
from runtime.output import shortened
from runtime.registry import references
from runtime.registry.errors import NoRegistryError
from runtime.registry.references import Reference

VARIABLE = "TESTBED_REGISTRY"
_FILE_BYTES = 4 << 20
_SYSTEM = Path("/etc/containers")
# The namespace that several registries keep single names in.
_LIBRARY = "library"


class _Mirror(Struct, frozen=True, rename="kebab"):
    location: str
    insecure: bool = False
    pull_from_mirror: Literal["", "all", "digest-only", "tag-only"] = "all"


class _Registry(Struct, frozen=True, rename="kebab"):
    prefix: str = ""
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirror_by_digest_only: bool = False
    mirror: tuple[_Mirror, ...] = ()

    @property
    def key(self) -> str:
        return self.prefix or self.location


class _File(Struct, frozen=True, rename="kebab"):
    unqualified_search_registries: tuple[str, ...] = ()
    registry: tuple[_Registry, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)


class Source(Struct, frozen=True):
    """Where an image can be had: the host that is asked, and the reference there. ``plain`` permits HTTP without
    encryption; ``only_plain`` means that HTTPS need not be tried."""

    host: str
    reference: Reference
    plain: bool = False
    only_plain: bool = False


class Settings(Struct, frozen=True):
    """What the environment and the files say."""

    default: str = ""
    default_is_plain: bool = False
    searched: tuple[str, ...] = ()
    registries: tuple[_Registry, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    def candidates(self, reference: Reference) -> tuple[Reference, ...]:
        """Return the full references that ``reference`` may mean, to be tried in this order: itself if it names a host.

        Raises NoRegistryError for a short name without any.
        """
        if reference.host:
            return (reference,)
        alias = "" if self.default else self.aliases.get(reference.path, "")
        if alias:
            full = references.parse(alias)
            return (replace(full, tag=reference.tag, digest=reference.digest),)
        found = [one for where in filter(None, (self.default, *self.searched)) for one in _below(where, reference)]
        if not found:
            what = f"which registry has {str(reference)!r}? It is a short name, and none is configured"
            hint = f"name it as HOST/{reference}, or set {VARIABLE}=HOST, or unqualified-search-registries in"
            raise NoRegistryError(what, f"{hint} {_SYSTEM}/registries.conf")
        return tuple(found)

    def sources(self, reference: Reference) -> tuple[Source, ...]:
        """Return where a full reference is to be asked for: at the mirrors first, then at its location.

        Raises UsageError if it is blocked.
        """
        registry = self._registry(reference)
        if registry is None:
            is_plain = self.default_is_plain and reference.host == self.default.partition("/")[0]
            return (Source(reference.host, reference, is_plain, is_plain),)
        if registry.blocked:
            raise UsageError(f"{reference} is blocked by registries.conf ({shortened(registry.key)})")
        mirrors = [
            _moved(reference, registry.key, mirror.location, mirror.insecure)
            for mirror in registry.mirror
            if _serves(mirror, reference, registry.mirror_by_digest_only)
        ]
        return (*mirrors, _moved(reference, registry.key, registry.location, registry.insecure))

    def _registry(self, reference: Reference) -> _Registry | None:
        """Return the entry with the longest prefix of a reference."""
        fitting = [one for one in self.registries if one.key and _has_prefix(reference, one.key)]
        return max(fitting, key=lambda one: len(one.key), default=None)


def load(environment: Mapping[str, str]) -> Settings:
    """Return the settings of this user. Raises UsageError for a file or a variable that is malformed."""
    files = tuple(path for path in _paths(environment) if path.is_file())
    searched: tuple[str, ...] = ()
    registries: dict[str, _Registry] = {}
    aliases: dict[str, str] = {}
    for path in files:
        content = _read(path)
        searched = content.unqualified_search_registries or searched
        registries |= {registry.key: registry for registry in content.registry}
        aliases |= content.aliases
    default, is_plain = _default(environment.get(VARIABLE, ""))
    return Settings(default, is_plain, searched, tuple(registries.values()), aliases, files)


def _default(text: str) -> tuple[str, bool]:
    """Return the default registry with its prefix, and whether it is asked by plain HTTP."""
    plain = text.startswith("http://")
    where = text.removeprefix("http://").removeprefix("https://").rstrip("/")
    host, _, prefix = where.partition("/")
    if where and not (references.is_host(host) and (not prefix or references.is_path(prefix))):
        raise UsageError(f"{VARIABLE}={shortened(text)}: not a registry", "[http://]HOST[:PORT][/PATH]")
    return where, plain


def _paths(environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files in the order in which later ones override earlier ones."""
    if named := environment.get("CONTAINERS_REGISTRIES_CONF"):
        yield Path(named)
        return
    own = Path(environment.get("HOME") or "/root", ".config", "containers")
    yield next((path for path in (own / "registries.conf",) if path.is_file()), _SYSTEM / "registries.conf")
    for folder in (_SYSTEM, own):
        yield from sorted((folder / "registries.conf.d").glob("*.conf"))


def _read(path: Path) -> _File:
    try:
        content = msgspec.convert(tomllib.loads(read_bounded(path, _FILE_BYTES).decode()), _File)
        for registry in content.registry:
            _check(registry)
        for alias in content.aliases.values():
            if alias and not references.parse(alias).host:
                raise ValueError(f"the alias {shortened(alias)!r} names no host")
    except (ValueError, RecursionError, UsageError) as error:  # those of tomllib, msgspec and UTF-8 are ValueErrors
        why = error.message if isinstance(error, UsageError) else str(error)
        raise UsageError(f"read {path}: {shortened(why)}", "see containers-registries.conf(5)") from error
    return content


def _check(registry: _Registry) -> None:
    if not registry.key:
        raise ValueError("a [[registry]] has neither prefix nor location")
    for name in (registry.location, *(mirror.location for mirror in registry.mirror)):
        host, _, path = name.partition("/")
        if name and not (references.is_host(host) and (not path or references.is_path(path))):
            raise ValueError(f"the location {shortened(name)!r} is not HOST[:PORT][/PATH]")
    if registry.mirror and not registry.key:
        raise ValueError("a mirror of nothing")


def _below(where: str, reference: Reference) -> tuple[Reference, ...]:
    """Return what a short name may mean at a registry: itself, and a single name in its library."""
    host, _, prefix = where.partition("/")
    prefixes = [prefix] if "/" in reference.path else [prefix, f"{prefix}/{_LIBRARY}".lstrip("/")]
    return tuple(references.with_host(reference, host, one) for one in prefixes)


def _has_prefix(reference: Reference, prefix: str) -> bool:
    if prefix.startswith("*."):
        return reference.host.endswith(prefix[1:])
    full = str(reference)
    return full == prefix or (full.startswith(prefix) and full[len(prefix)] in "/:@")


def _moved(reference: Reference, prefix: str, location: str, insecure: bool) -> Source:
    """Return a reference with its prefix replaced by a location."""
    if not location:
        return Source(reference.host, reference, insecure)
    name = f"{reference.host}/{reference.path}"
    rest = f"/{reference.path}" if prefix.startswith("*.") else name[len(prefix) :]
    host, _, path = f"{location}{rest}".partition("/")
    if not references.is_path(path):
        raise UsageError(f"{reference}: {shortened(host)}/{shortened(path)}, where registries.conf has it, is no name")
    return Source(host, replace(reference, host=host, path=path), insecure)


def _serves(mirror: _Mirror, reference: Reference, by_digest_only: bool) -> bool:
    wanted = "digest-only" if by_digest_only else mirror.pull_from_mirror
    return wanted in ("", "all") or (wanted == "digest-only") == bool(reference.digest)
