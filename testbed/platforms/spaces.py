"""Which namespaces services can share on which platforms, with each other and with the host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from runtime.errors import UsageError
from testbed.compose.model import Service
from testbed.compose.sharing import HOST, NONE, find_lender
from testbed.services.sharing import KINDS

# What can be asked for: the model's fields, with what they say.
_OTHERS = ("network_mode: service", "pid: service", "ipc: service")
_WITHOUT = f"ipc: {NONE}"
_HOSTS = tuple(f"{key}: {HOST}" for key in KINDS)
# All services of a machine share its network, in vm-pod by nature; containers in one share what they share on a host.
_ABLE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        **dict.fromkeys(("container", "crun", "runc", "youki", "podman"), frozenset((*_OTHERS, *_HOSTS, _WITHOUT))),
        "docker": frozenset((*_OTHERS, *_HOSTS[1:], _WITHOUT)),  # its host's network is not the run's
        "vm-containers": frozenset((*_OTHERS, _WITHOUT)),
        "vm-pod": frozenset((_OTHERS[0], _WITHOUT)),
        **dict.fromkeys(("vm", "vm-micro"), frozenset((_WITHOUT,))),
    }
)


def _list_asked(service: Service) -> list[tuple[str, str]]:
    """Return what a service asks for of namespaces, as in _ABLE and as its file has it."""
    asked = []
    for key in KINDS:
        mode = getattr(service, key)
        if find_lender(service, key):
            asked.append((f"{key}: service", f"{service.name}.{key}: {mode}"))
        elif f"{key}: {mode}" in (*_HOSTS, _WITHOUT):
            asked.append((f"{key}: {mode}", f"{service.name}.{key}: {mode}"))
    return asked


def require_spaces(names: Iterable[str], services: Sequence[Service], machines: Iterable[str]) -> None:
    """Raise a UsageError that names each namespace which a service shares and one of these platforms cannot have it
    share. What is the host's is refused to ``machines`` elsewhere."""
    named, lines = tuple(names), []
    for what, asked in (one for service in services for one in _list_asked(service)):
        without = [name for name in named if what not in _ABLE.get(name, ())]
        if what in _HOSTS:
            without = [name for name in without if name not in machines]
        if without:
            lines.append(f"{asked}: not on {', '.join(without)}")
    if lines:
        hint = "take container, crun, runc, podman or docker; of machines vm-containers, and vm-pod for a network"
        raise UsageError("\n".join(lines), hint)


def require_apart_on_host(measures: Iterable[str], services: Sequence[Service]) -> None:
    """Raise a UsageError for a measure of several copies, which would listen at the same ports of the host's."""
    copied = [one for one in measures if one in ("density", "consolidation")]
    hosted = [one.name for one in services if one.network_mode == HOST]
    if copied and hosted:
        raise UsageError(
            f"{', '.join(hosted)}: network_mode: {HOST}: copies would listen at the same ports: {', '.join(copied)}",
            "--measures start,utilisation",
        )
