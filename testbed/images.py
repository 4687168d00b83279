"""Builds what a run needs: the images of a scenario's services, from their Dockerfiles, and a guest kernel."""

from __future__ import annotations

from collections.abc import Callable

from runtime.home import store_root
from runtime.images.build import build
from runtime.images.model import Image
from runtime.images.store import Store
from testbed.scenario.model import Scenario
from vm_images.kernel import GuestKernel
from vm_images.minimal_kernel import build_minimal_kernel


def build_images(scenario: Scenario, progress: Callable[[str], None]) -> dict[str, Image]:
    """Build the image of each service, unless the store has all its layers, and return them by the service's name."""
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


def build_guest_kernel(progress: Callable[[str], None]) -> GuestKernel:
    """Build the minimal guest kernel, unless the store has that of these sources and options. Takes minutes."""
    return build_minimal_kernel(store_root() / "guest", progress)
