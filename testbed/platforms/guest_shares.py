"""Directories of the host in guests: what every platform of virtual machines has of that, where its kind can."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.cgroups import Cgroup
from runtime.errors import TestbedError
from runtime.spec import Spec
from testbed.platforms.guest_commands import GuestCommands
from testbed.platforms.protocol import Instance
from testbed.qemu.domain import Domain
from testbed.qemu.prepared import Prepared
from testbed.qemu.shares import (
    DRIVER,
    Lending,
    find_virtiofsd,
    list_exports,
    place_in_guest,
    read_version,
    start_lending,
)
from testbed.qemu.variants import Variant
from testbed.scenario.model import Scenario
from testbed.services.mounts import describe_shared, find_shared
from vm_images.guest import Guest


class GuestShares(GuestCommands):
    """The part of a platform of virtual machines that lends its guests directories of the host."""

    def __init__(self, variant: Variant) -> None:
        super().__init__(variant)
        self._prepared: Prepared | None = None
        self._sharing: frozenset[str] = frozenset()
        self._shared = ""

    def _ready(self) -> Prepared:
        if self._prepared is None:
            raise TestbedError("the virtual machine platform is used before it is prepared")
        return self._prepared

    def _note_sharing(self, scenario: Scenario) -> None:
        """Note what services share, and which do with others that are in other guests."""
        self._shared = describe_shared(scenario.services)
        if self._variant.guest_per == "service":
            self._sharing = frozenset(name for users in find_shared(scenario.services).values() for name in users)

    def _is_coherent(self, instance: Instance) -> bool:
        return not self._sharing.isdisjoint(instance.specs)

    def _share_facts(self) -> Mapping[str, object]:
        """Return what the manifest records of what services share."""
        if not self._shared:
            return {}
        cache = "none in the guests" if self._sharing else "the guest's"
        program = read_version(find_virtiofsd())
        return {"shares": f"{DRIVER}: {self._shared}", "share_cache": cache, "share_server": program}

    def _guest(self, instance: Instance) -> Guest:
        """Return the guest of an instance: one that is lent something has the modules for that."""
        prepared = self._ready()
        return prepared.sharing if list_exports(instance.specs) else prepared.guest

    def _place(self, instance: Instance) -> dict[str, Spec]:
        """Return what an instance's services run as it is in their guest."""
        exports = list_exports(instance.specs)
        return {service: place_in_guest(spec, exports) for service, spec in instance.specs.items()}

    def _share_socket(self, instance: Instance, folder: Path) -> Path | None:
        return folder / "shares" if list_exports(instance.specs) else None

    def _lend(self, instance: Instance, domain: Domain, cgroup: Cgroup, undo: ExitStack) -> Lending | None:
        """Start what lends an instance what it mounts of the host, if anything."""
        if domain.share_socket is None:
            return None
        exports, coherent = list_exports(instance.specs), self._is_coherent(instance)
        lending = start_lending(exports, domain.share_socket, cgroup, coherent=coherent)
        undo.callback(lending.end)
        return lending


@contextmanager
def quoting(lending: Lending | None) -> Iterator[None]:
    """Within, an error says what virtiofsd has said."""
    try:
        yield
    except TestbedError as error:
        if lending is not None and (words := lending.read_words()):
            error.hint = "\n".join(filter(None, (error.hint, f"virtiofsd said: {words}")))
        raise
