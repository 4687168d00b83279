"""The ports that a service offers, in all forms of ``ports`` and ``expose``."""

from __future__ import annotations

import re

from msgspec import Struct

from testbed.compose import keys
from testbed.compose.keys import Notes
from testbed.compose.model import Port
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, require

MOST_PORTS = 65535
_SHORT = re.compile(
    r"(?:(?P<host>\[[0-9a-fA-F:.]+\]|[0-9]+(?:\.[0-9]+){3}):)?"
    r"(?::?(?P<published>[0-9]{0,5}(?:-[0-9]{1,5})?):)?(?P<target>[0-9]{1,5}(?:-[0-9]{1,5})?)(?:/(?P<protocol>[a-z]+))?"
)
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_EXPECTED = "[HOST:][PUBLISHED:]PORT[/tcp|/udp], such as 8080:80 or 3000-3005"
_PROTOCOLS = ("tcp", "udp", "sctp")


class PortText(Struct, frozen=True):
    """The parts of a port's short form, as they are written."""

    host_ip: str
    published: str
    target: str
    protocol: str = "tcp"


def split_port(text: str) -> PortText | None:
    """Return the parts of a port's short form; None if it is none."""
    match = _SHORT.fullmatch(text)
    if match is None:
        return None
    host = (match["host"] or "").strip("[]")
    return PortText(host, match["published"] or "", match["target"], match["protocol"] or "tcp")


def read_ports(value: Value, service: str, notes: Notes) -> tuple[Port, ...]:
    """Return what ``ports`` publishes; ranges are taken apart."""
    return _bounded(value, [port for item in value.items() for port in _read_port(item, service, notes)])


def read_exposed(value: Value) -> tuple[Port, ...]:
    """Return what ``expose`` names; ranges are taken apart."""
    ports: list[Port] = []
    for item in value.items():
        text = split_port(item.text("a port"))
        if text is None or text.published:
            item.report(f"is {quote(item.text('a port'))}", "a port or a range, such as 6379 or 8000-8010/udp")
            continue
        ports += [Port(target, text.protocol, exposed=True) for target in _expand(item, text.target)]
    return _bounded(value, ports)


def list_awaited(offers: tuple[Port, ...], ranges: frozenset[int]) -> tuple[int, ...]:
    """Return the TCP ports to wait for: those named one by one, for nobody listens on a whole range at once."""
    return tuple(dict.fromkeys(one.target for one in offers if one.protocol == "tcp" and one.target not in ranges))


def list_ranges(value: Value) -> frozenset[int]:
    """Return the ports that a list names by ranges."""
    return frozenset(
        target
        for item in (value.items() if value.is_list else ())
        if item.is_text and (text := split_port(item.text())) is not None and "-" in text.target
        for target in _expand(item, text.target)
    )


def _bounded(value: Value, ports: list[Port]) -> tuple[Port, ...]:
    if len(ports) > MOST_PORTS:
        value.report(f"has {len(ports)} ports", f"at most {MOST_PORTS}")
    return tuple(dict.fromkeys(ports[:MOST_PORTS]))


def _read_port(item: Value, service: str, notes: Notes) -> list[Port]:
    if item.is_mapping:
        fields = keys.PORT.read(item, notes, service, "ports.")
        target = require(fields, "target", item, "the port in the container")
        text = PortText(
            host_ip=fields["host_ip"].text() if "host_ip" in fields else "",
            published=fields["published"].text() if "published" in fields else "",
            target=target.text("a port") if not target.is_null else "",
            protocol=fields["protocol"].text() if "protocol" in fields else "tcp",
        )
        if not text.target:
            return []
        item = target
    else:
        written = item.text(_EXPECTED)
        short = split_port(written)
        if short is None:
            if written:
                item.report(f"is {quote(written)}", _EXPECTED)
            return []
        text = short
    if text.protocol not in _PROTOCOLS:
        item.report(f"has the protocol {quote(text.protocol)}", f"one of {', '.join(_PROTOCOLS)}")
    targets, published = _expand(item, text.target), _expand(item, text.published) if text.published else []
    if len(published) > 1 and len(targets) == 1:
        return [Port(targets[0], text.protocol, text.published, text.host_ip)]  # one of them
    if published and len(published) != len(targets):
        item.report(f"publishes {len(published)} ports of {len(targets)}", "ranges of the same length")
        return []
    return [
        Port(target, text.protocol, str(published[index]) if published else "", text.host_ip)
        for index, target in enumerate(targets)
    ]


def _expand(item: Value, text: str) -> list[int]:
    """Return the ports of a range."""
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65535:
        item.report(f"is {quote(text)}", "ports from 1 to 65535")
        return []
    return list(range(first, last + 1))
