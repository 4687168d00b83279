"""Finds an image by its name: in the store, in a registry, or else its substitute."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from runtime.builder.arguments import host_platform
from runtime.builder.build import default_resolver
from runtime.builder.stages import Resolver
from runtime.errors import UsageError
from runtime.images.model import Image
from runtime.images.store import Store
from runtime.registry.errors import RegistryError
from runtime.registry.resolving import registry_resolver
from testbed.substitutes.building import ensure_substitute
from testbed.substitutes.table import find_substitute, list_substitutes


def resolver(
    store: Store, progress: Callable[[str], None], base: str = "", environment: Mapping[str, str] = os.environ
) -> Resolver:
    """Return a function that gets an image by its name and platform ("" is this host's): from the store, from the
    registries that the settings of ``environment`` name, or else its substitute. Errors as ``registry_resolver``'s."""
    there = registry_resolver(default_resolver(store, progress, base), store, progress, environment)

    def resolve(reference: str, platform: str) -> Image | None:
        try:
            return there(reference, platform)
        except (UsageError, RegistryError):
            substitute = find_substitute(reference)
            if substitute is None or platform not in ("", host_platform()):
                raise
            return ensure_substitute(store, reference, substitute, progress, base)

    return resolve


def find_image(reference: str, resolve: Resolver) -> Image:
    """Return the image that a service names. Raises UsageError, or RegistryError, when it cannot be had."""
    try:
        image = resolve(reference, "")
    except UsageError as error:
        known = ", ".join(list_substitutes())
        what = f"the image {reference} cannot be had: {error.message}"
        raise UsageError(what, f"{error.hint}; without a registry there are substitutes of {known}") from error
    if image is None:
        raise UsageError(f"the image {reference} has no files", "an image that holds a program")
    return image
