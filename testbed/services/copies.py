"""What services of a measured copy of the application share: directories of the host that are the copy's own.

They begin with the bytes that they have in an application that is up: a volume with what the image has there, what is
bound as it is on the host. They go with the copy, and what is bound stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from msgspec import Struct

from runtime.atomic import remove, scratch
from runtime.errors import UsageError, in_words
from runtime.home import store_root
from runtime.images.model import Image
from testbed.compose.model import Service
from testbed.scenario.model import Scenario
from testbed.services.contents import copy_source
from testbed.services.filling import prepare_places
from testbed.services.mounts import Places, find_bound, find_shared, split_shared
from testbed.services.specs import Mounts, mount_nothing


class Copies(Struct, frozen=True):
    """The directories of a run's copies, below ``folder``."""

    folder: Path
    scenario: Scenario
    images: Mapping[str, Image]

    @contextmanager
    def give(self, label: str) -> Iterator[Mounts]:
        """Yield what is mounted in the services of the copy called ``label``, which is there until the end.

        Raises UsageError for what cannot be copied, PrerequisiteError when the host refuses.
        """
        services, application = self.scenario.services, self.scenario.application
        own = self.folder / label
        places = Places(own / "volumes", own / "files", own / "bound")
        common = [split_shared(service, services)[1] for service in services]
        try:
            for service in common:
                self._copy(service, places)
            with prepare_places(places, common, application, self.images) as mounts:
                yield mounts
        finally:
            remove(own)

    def _copy(self, service: Service, places: Places) -> None:
        application = self.scenario.application
        for mount in service.mounts:
            source, target = find_bound(application, mount), places.source(application, mount)
            if source is None or target.exists() or not source.exists():
                continue
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                copy_source(source, target, service.name)
            except OSError as error:
                raise UsageError(f"{service.name}: copy {source} for {mount.target}: {in_words(error)}") from error


def mount_copies(
    undo: ExitStack, run_id: str, scenario: Scenario, images: Mapping[str, Image]
) -> Callable[[str], AbstractContextManager[Mounts]]:
    """Return what gives each copy of a run, by its label, what its services share, until ``undo``.

    It lies in the store, beside the volumes of projects: the run's own directory is memory on most hosts.
    """
    if not find_shared(scenario.services):
        return mount_nothing
    folder = undo.enter_context(scratch(store_root() / "volumes" / run_id))
    return Copies(folder, scenario, images).give
