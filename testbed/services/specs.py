"""Makes the Specs of the services of one copy of the application, the same for every platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.images.model import Image
from runtime.images.process import image_process
from runtime.spec import Link, Spec
from testbed.scenario.model import Scenario


def make_specs(scenario: Scenario, images: Mapping[str, Image], links: Sequence[Link]) -> tuple[Spec, ...]:
    """Return what each service of a copy of the application runs, in dependency order; ``links`` in the same order.

    Nothing here depends on the platform: it is the fairness of the comparison.
    """
    services = scenario.services
    hosts = tuple((service.name, str(link.address.ip)) for service, link in zip(services, links, strict=True))
    made = []
    for service, link in zip(services, links, strict=True):
        image = images[service.name]
        process = image_process(
            image, command=service.command, entrypoint=service.entrypoint, environment=dict(service.environment)
        )
        layers = tuple(str(layer.path) for layer in image.layers)
        made.append(
            Spec(
                process,
                layers,
                service.name,
                resources=service.resources,
                link=link,
                hosts=hosts,
                seccomp=service.seccomp,
            )
        )
    return tuple(made)
