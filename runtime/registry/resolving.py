"""Images for the FROM of a Dockerfile and the image of a service: those that are here, and else those of registries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from runtime.errors import UsageError

if TYPE_CHECKING:
    from runtime.images.model import Image
    from runtime.images.store import Store

Resolver: TypeAlias = "Callable[[str, str], Image | None]"


def registry_resolver(
    local: Resolver, store: Store, progress: Callable[[str], None], environment: Mapping[str, str]
) -> Resolver:
    """Return a function that gets an image by its name and platform ("" is this host's): from ``local``, or where that
    raises UsageError, from the registries that the settings of ``environment`` name, into ``store``.

    It raises UsageError, NotThereError and RegistryError as ``pull`` does; where no registry is named, what ``local``
    raised, with what to do about the registry.
    """

    def resolve(reference: str, platform: str) -> Image | None:
        try:
            return local(reference, platform)
        except UsageError as error:
            missing = error
        # Nobody who has all images already waits for these imports.
        from runtime.registry.client import Client
        from runtime.registry.errors import NoRegistryError
        from runtime.registry.pull import pull

        try:
            with Client(environment) as client:
                return pull(store, client, reference, progress, platform)
        except NoRegistryError as error:
            raise UsageError(missing.message, f"{missing.hint}; or {error.hint}") from error

    return resolve
