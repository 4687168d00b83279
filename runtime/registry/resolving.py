"""Images for the FROM of a Dockerfile and the image of a service: from the store, or else from a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from runtime.images.model import Image
    from runtime.images.store import Store

Resolver: TypeAlias = "Callable[[str, str], Image | None]"


def registry_resolver(
    store: Store, progress: Callable[[str], None], environment: Mapping[str, str], *, plain_http: bool = False
) -> Resolver:
    """Return a function that gets an image by its name and platform ("" is this host's): from the store if that has it,
    or else from the registries that the settings of ``environment`` name.

    It raises UsageError, NotThereError and RegistryError as ``pull`` does.
    """

    def resolve(reference: str, platform: str) -> Image:
        found = store.find(reference) if platform == "" else None
        if found is not None:
            return found
        # Nobody who has all images already waits for these imports.
        from runtime.registry.client import Client
        from runtime.registry.pull import pull

        with Client(environment, plain_http=plain_http) as client:
            return pull(store, client, reference, progress, platform)

    return resolve
