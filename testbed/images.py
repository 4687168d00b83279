"""The images of a scenario's services, built from their Dockerfiles."""

from __future__ import annotations

from collections.abc import Callable

from runtime.home import store_root
from runtime.images.build import build
from runtime.images.model import Image
from runtime.images.store import Store
from testbed.scenario import Scenario


def build_images(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Image]:
    """The image of each service, built unless the store has all its layers, by the service's name."""
    store = Store(store_root() / "images")
    return {
        service.name: build(
            store,
            context=service.context,
            dockerfile=service.dockerfile,
            reference=f"{scenario.name}/{service.name}",
            progress=progress,
        )
        for service in scenario.services
    }
