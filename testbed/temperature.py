"""The temperatures of a start: cold, pooled (all but the last step is done beforehand), restored (from saved state).

A figure of a warm start stands beside the cold one of the same kind, or it is set against nothing: much of what a warm
start saves has been spent before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from testbed.aliases import find_original

Temperature = Literal["cold", "pooled", "restored"]
TEMPERATURES: tuple[Temperature, ...] = ("cold", "pooled", "restored")


class Warm(Struct, frozen=True):
    """A platform's temperature, and the platform that is the same but starts ``cold``."""

    temperature: Temperature
    cold: str


WARM: Mapping[str, Warm] = MappingProxyType(
    {
        "container-pooled": Warm("pooled", "container"),
        "container-restored": Warm("restored", "container"),
        "vm-pooled": Warm("pooled", "vm"),
        "vm-restored": Warm("restored", "vm"),
    }
)


def find_temperature(platform: str) -> Temperature:
    """Return the temperature at which a platform, by its name, starts."""
    warm = WARM.get(find_original(platform))
    return warm.temperature if warm else "cold"


def find_cold(platform: str) -> str:
    """Return the platform that is the same but starts cold; empty for one that does, and for an unknown one."""
    warm = WARM.get(platform)
    return warm.cold if warm else ""


def list_missing_cold(platforms: Iterable[str]) -> tuple[str, ...]:
    """Return the platforms, each once, that start cold and would have to stand beside these and do not."""
    names = tuple(platforms)
    return tuple(dict.fromkeys(WARM[name].cold for name in names if name in WARM and WARM[name].cold not in names))
