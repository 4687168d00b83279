"""What is asked of an application whose files do not say how it is measured: where it answers, and when it is ready."""

from __future__ import annotations

import re
from collections.abc import Sequence

from msgspec import Struct

from testbed.compose.model import Port, Service

# What HTTP servers of images and frameworks listen on.
_HTTP = frozenset((80, 3000, 3001, 4000, 4200, 5000, 5173, 5601, 8000, 8001, 8008, 8080, 8081, 8088, 8888, 9000, 9090))
# What other protocols' servers listen on (IANA's registry of ports, and the projects' own documentation).
_OTHERS = frozenset(
    (
        *(21, 22, 25, 53, 110, 143, 389, 445, 465, 587, 636, 993, 995, 1025, 1433, 1521, 1883, 2181, 3306, 5432, 5672),
        *(6379, 6380, 7687, 8883, 9042, 9092, 11211, 26257, 27017),
    )
)
_LOCAL = re.compile(
    r"(?:\bhttp://|(?<![\w/.:])(?=[^\s/]+:[0-9]+/))(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])"
    r"(?::([0-9]{1,5}))?(/[!#%&*+,./0-9:;=?@A-Z_a-z~-]{0,1000})?"
)


class Front(Struct, frozen=True):
    """Where an application is asked: the service, its port and path ("" for a port that is only connected to), and how
    that was found."""

    service: str
    port: int
    path: str
    reason: str


def find_front(services: Sequence[Service]) -> Front | None:
    """Return where an application is asked: at the HTTP address that a service's healthcheck asks itself, if the
    service publishes that port, otherwise at a published port; None when nothing is published or exposed.

    Of several services come first those that no other depends on, then those that listen where HTTP servers do, then
    the one that the files name first.
    """
    needed = {one.service for service in services for one in service.depends_on}
    offered = [(service, port) for service in services for port in service.offers if port.protocol == "tcp"]
    if not offered:
        return None

    def rank(one: tuple[Service, Port]) -> tuple[bool, bool, bool]:
        service, port = one
        return port.exposed, service.name in needed, port.target not in _HTTP

    service, port = min(offered, key=rank)
    how = "exposed" if port.exposed else "published"
    asked = _find_checked(service)
    if asked is not None and any(one.target == asked[0] for one in service.offers):
        return Front(service.name, asked[0], asked[1], "what its healthcheck asks")
    path = "" if port.target in _OTHERS else "/"
    return Front(service.name, port.target, path, f"the first port that is {how}")


def describe_front(front: Front | None) -> str:
    """Return what is asked of an application that does not say so, for the user."""
    if front is None:
        return "no service publishes a port, so nothing is asked of it"
    if not front.path:
        return (
            f"ready when {front.service} takes a connection at port {front.port}, {front.reason}, which is not HTTP's"
        )
    where = f"http://{front.service}:{front.port}{front.path} ({front.reason})"
    return f"ready with the first answer of {where}, which the load asks for, too"


def _find_checked(service: Service) -> tuple[int, str] | None:
    """Return the port and path that a service's healthcheck asks over HTTP."""
    test = service.healthcheck.test if service.healthcheck is not None else None
    match = _LOCAL.search(" ".join(test or ()))
    if match is None:
        return None
    return int(match[1] or 80), (match[2] or "/").rstrip(";&")
