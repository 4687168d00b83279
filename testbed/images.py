"""Builds what a run needs: the images of a scenario's services, from their Dockerfiles, and a guest kernel."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from runtime.errors import UsageError
from runtime.home import is_sealed, store_root
from runtime.images.base import base_reference, read_host
from runtime.images.build import build
from runtime.images.model import Image
from runtime.images.releases import RELEASES, choose_release
from runtime.images.store import Store
from testbed.compose.model import Application
from testbed.neighbours.image import REFERENCE as NEIGHBOUR_IMAGE
from testbed.neighbours.image import ensure_neighbour_image
from testbed.scenario.model import Scenario, Service
from testbed.services.contents import add_contents
from vm_images.kernel import GuestKernel
from vm_images.minimal_kernel import build_minimal_kernel


def image_name(scenario: str, service: str) -> str:
    """Return what the store calls the image of a scenario's service, or of the neighbour."""
    return service if service == NEIGHBOUR_IMAGE else f"{scenario}/{service}"


def build_images(
    scenario: Scenario, progress: Callable[[str], None], base: str = "", measures: Collection[str] = ()
) -> dict[str, Image]:
    """Build the image of each service, unless the store has all its layers, and return them by the service's name; for
    ``measures`` with neighbours also theirs, by its own.

    ``base`` is the release that they stand on, "" the host's. An image on another one has that in its name.
    """
    store = Store(store_root() / "images")
    beside = (NEIGHBOUR_IMAGE,) if "neighbours" in measures else ()
    if is_sealed():
        names = (*(service.name for service in scenario.services), *beside)
        return {name: store.get(image_name(scenario.name, name)) for name in names}
    tag = f":{base}" if base and base != choose_release("", read_host()).codename else ""
    images = {
        service.name: _build(store, service, f"{image_name(scenario.name, service.name)}{tag}", progress, base)
        for service in scenario.services
    }
    return images | {name: ensure_neighbour_image(store, progress) for name in beside}


def add_all_contents(
    services: Sequence[Service], application: Application, images: Mapping[str, Image], progress: Callable[[str], None]
) -> dict[str, Image]:
    """Return the images with what the services' files mount, each as a further layer. Raises UsageError."""
    store = Store(store_root() / "images")
    added = {
        service.name: add_contents(store, images[service.name], service, application, progress) for service in services
    }
    return {**images, **added}


def _build(store: Store, service: Service, reference: str, progress: Callable[[str], None], base: str) -> Image:
    """Build the image of a service. Raises UsageError for one that names an image instead."""
    made = service.build
    if made is None:
        raise UsageError(f"{service.name}: the image {service.image} is not in the store", "give the service a build")
    beyond = {"dockerfile_inline": made.inline, "target": made.target, "additional_contexts": made.contexts}
    if made.dockerfile is None or any(beyond.values()):
        keys = ", ".join(key for key, value in beyond.items() if value)
        raise UsageError(f"{service.name}: build.{keys}: the builder has no such thing", "a Dockerfile without it")
    return build(
        store,
        context=made.context,
        dockerfile=made.dockerfile,
        reference=reference,
        progress=progress,
        arguments=dict(made.args),
        base=base,
    )


def find_base(image: Image) -> Image | None:
    """Return the base image in the store that ``image`` stands on; None for one that was made from nothing."""
    store = Store(store_root() / "images")
    bases = (store.find(base_reference(codename)) for codename in RELEASES)
    return next((base for base in bases if base and base.layers == image.layers[: len(base.layers)]), None)


def build_guest_kernel(progress: Callable[[str], None]) -> GuestKernel:
    """Build the minimal guest kernel, unless the store has that of these sources and options. Takes minutes."""
    return build_minimal_kernel(store_root() / "guest", progress)
