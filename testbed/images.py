"""Builds what a run needs: the images of a scenario's services, from their Dockerfiles, and a guest kernel."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from runtime.builder.build import build
from runtime.builder.stages import Resolver
from runtime.errors import UsageError
from runtime.files import read_bounded
from runtime.home import is_sealed, store_root
from runtime.images.base import base_reference, read_host
from runtime.images.model import Image
from runtime.images.releases import RELEASES, choose_release
from runtime.images.store import Store, open_store
from testbed.compose.model import Application, Build
from testbed.neighbours.image import REFERENCE as NEIGHBOUR_IMAGE
from testbed.neighbours.image import ensure_neighbour_image
from testbed.scenario.model import Scenario, Service
from testbed.services.contents import add_contents, has_contents
from testbed.services.mounts import split_shared
from testbed.substitutes.resolving import find_image, resolver
from vm_images.kernel import GuestKernel
from vm_images.minimal_kernel import build_minimal_kernel

_MOST_SECRET_BYTES = 1 << 20
# An additional context that is an image (Compose specification, build.additional_contexts).
_IMAGE = "docker-image://"
# How the image of a program of ours is built: in this store, telling what is done.
Ensure = Callable[[Store, Callable[[str], None]], Image]


def image_name(scenario: str, service: str) -> str:
    """Return what the store calls the image of a scenario's service, or of a program beside it: those have a slash."""
    return service if "/" in service else f"{scenario}/{service}"


def build_images(
    scenario: Scenario,
    progress: Callable[[str], None],
    base: str = "",
    measures: Collection[str] = (),
    *,
    contents: bool = True,
    programs: Mapping[str, Ensure] = MappingProxyType({}),
) -> dict[str, Image]:
    """Build the image of each service, unless the store has all its layers, and return them by the service's name; of
    ``programs``, and for ``measures`` with neighbours of theirs, by their own.

    ``base`` is the release that they stand on, "" the host's. An image on another one has that in its name. With
    ``contents`` each has what its service's file mounts, and shares with no other, as a further layer
    (testbed.services.contents).
    """
    store = open_store()
    beside = {**programs, **({NEIGHBOUR_IMAGE: ensure_neighbour_image} if "neighbours" in measures else {})}
    if is_sealed():
        return {
            **{service.name: store.get(_name_sealed(scenario, service)) for service in scenario.services},
            **{name: store.get(name) for name in beside},
        }
    tag = f":{base}" if base and base != choose_release("", read_host()).codename else ""
    resolve = resolver(store, progress, base)
    built = {
        service.name: _build(
            store,
            service,
            scenario.application,
            f"{image_name(scenario.name, service.name)}{tag}",
            resolve,
            progress,
            base,
        )
        for service in scenario.services
        if service.build is not None
    }
    # What one service builds, another may name.
    named = {service.image: built[service.name] for service in scenario.services if service.name in built}
    images = {
        service.name: built.get(service.name) or named.get(service.image) or find_image(service.image, resolve)
        for service in scenario.services
    }
    for service in scenario.services if contents else ():
        alone, _ = split_shared(service, scenario.services)
        if has_contents(alone):
            name = _name_with_contents(scenario, service)
            images[service.name] = add_contents(
                store, name, images[service.name], alone, scenario.application, progress
            )
    return images | {name: ensure(store, progress) for name, ensure in beside.items()}


def _name_with_contents(scenario: Scenario, service: Service) -> str:
    """Return what the store calls the image of a service with the files that are mounted in it."""
    return f"{image_name(scenario.name, service.name)}:files"


def _name_sealed(scenario: Scenario, service: Service) -> str:
    """Return what a sealed store, which is made for one scenario's runs, calls the image of a service."""
    if has_contents(split_shared(service, scenario.services)[0]):
        return _name_with_contents(scenario, service)
    builders = [one.name for one in scenario.services if one.build is not None and one.image == service.image]
    if service.build is None and not builders:
        return service.image
    return image_name(scenario.name, service.name if service.build is not None else builders[0])


def _build(
    store: Store,
    service: Service,
    application: Application,
    reference: str,
    resolve: Resolver,
    progress: Callable[[str], None],
    base: str,
) -> Image:
    """Build the image of a service that has a build. Raises UsageError when it cannot be built."""
    made = service.build
    assert made is not None
    with _find_dockerfile(made, service.name) as dockerfile:
        return build(
            store,
            context=made.context,
            dockerfile=dockerfile,
            reference=reference,
            progress=progress,
            arguments=dict(made.args),
            base=base,
            target=made.target,
            resolve=resolve,
            contexts=_find_contexts(made, service.name),
            secrets=_read_secrets(made, application),
        )


def _find_contexts(made: Build, service: str) -> dict[str, Path | str]:
    """Return a build's additional contexts: folders, and references of images. Raises UsageError for another kind."""
    contexts: dict[str, Path | str] = {}
    for name, where in made.contexts:
        if not where.startswith((_IMAGE, "/")):
            what = f"{service}: build.additional_contexts.{name}: {where} is neither a folder nor an image"
            raise UsageError(what, f"a folder, or {_IMAGE}NAME")
        contexts[name] = where.removeprefix(_IMAGE) if where.startswith(_IMAGE) else Path(where)
    return contexts


def _read_secrets(made: Build, application: Application) -> dict[str, bytes]:
    """Return the secrets of a build by their ids. Raises UsageError for one that cannot be read."""
    contents = {one.name: one for one in application.secrets}
    return {
        Path(one.target).name: contents[one.source].text.encode()
        if (path := contents[one.source].path) is None
        else read_bounded(path, _MOST_SECRET_BYTES)
        for one in made.secrets
    }


@contextmanager
def _find_dockerfile(made: Build, service: str) -> Iterator[Path]:
    """Yield the Dockerfile of a build; one whose text is in the compose file gets a file for the time."""
    if made.dockerfile is not None:
        yield made.dockerfile
        return
    with tempfile.TemporaryDirectory(prefix="testbed-") as folder:
        path = Path(folder, f"dockerfile_inline of {service}")
        path.write_text(made.inline)
        yield path


def find_base(image: Image) -> Image | None:
    """Return the base image in the store that ``image`` stands on; None for one that was made from nothing."""
    store = open_store()
    bases = (store.find(base_reference(codename)) for codename in RELEASES)
    return next((base for base in bases if base and base.layers == image.layers[: len(base.layers)]), None)


def build_guest_kernel(progress: Callable[[str], None]) -> GuestKernel:
    """Build the minimal guest kernel, unless the store has that of these sources and options. Takes minutes."""
    return build_minimal_kernel(store_root() / "guest", progress)
