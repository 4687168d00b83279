"""Which well-known image can be replaced by one that is built here, of the distribution's packages.

That is a fallback for hosts that reach no registry: another version, built otherwise, with the conventions of the
official image (entrypoint, variables, folders, ports) as Docker Hub's pages describe them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct

FOLDER = Path(__file__).with_name("images")
# What several of them copy, as the build context of this name.
SHARED = Path(__file__).with_name("shared")
# A reference's registry and namespace that mean Docker Hub's official images.
_OFFICIAL = re.compile(r"(?:(?:index\.)?docker\.io/)?(?:library/)?([a-z0-9]+)(?::([\w.-]+))?(?:@.+)?")
# The name of an image, and what of its tag chooses one of several folders.
_FLAVOURS: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {"php": (("apache", "php-apache"), ("fpm", "php-fpm"))}
)
_NAMES = ("mariadb", "memcached", "nginx", "node", "php", "postgres", "python", "rabbitmq", "redis", "ruby")
_PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        "mariadb": "mariadb-server",
        "memcached": "memcached",
        "nginx": "nginx",
        "node": "nodejs",
        "php": "php-cli",
        "php-apache": "libapache2-mod-php",
        "php-fpm": "php-fpm",
        "postgres": "postgresql",
        "python": "python3",
        "rabbitmq": "rabbitmq-server",
        "redis": "redis-server",
        "ruby": "ruby",
    }
)


class Substitute(Struct, frozen=True):
    """An image to be built in place of another: its ``name``, a folder of ``images``, and the builder's arguments."""

    name: str
    arguments: tuple[tuple[str, str], ...] = ()

    @property
    def context(self) -> Path:
        """The folder that it is built from."""
        return FOLDER / self.name

    @property
    def package(self) -> str:
        """The package that matters in it."""
        return _PACKAGES[self.name]

    @property
    def reference(self) -> str:
        """What the store calls it."""
        flavour = f"-{self.arguments[0][1].split()[0].replace('_', '-')}" if self.arguments else ""
        return f"testbed/substitute-{self.name}{flavour}"


def find_substitute(reference: str) -> Substitute | None:
    """Return what takes the place of an image, by its reference (``redis:7``, ``docker.io/library/php:8-apache``)."""
    match = _OFFICIAL.fullmatch(reference)
    if match is None or match[1] not in _NAMES:
        return None
    name, tag = match[1], match[2] or "latest"
    if name == "rabbitmq" and "management" in tag:
        return Substitute(name, (("PLUGINS", "rabbitmq_management rabbitmq_prometheus"),))
    return Substitute(next((folder for word, folder in _FLAVOURS.get(name, ()) if word in tag), name))


def list_substitutes() -> tuple[str, ...]:
    """Return the names of the images that can be replaced."""
    return _NAMES
