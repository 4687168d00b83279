"""Which networks a service is in, who finds it there by which names, and whose namespaces it shares."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from testbed.compose import keys
from testbed.compose.keys import Notes
from testbed.compose.model import Attachment, Pairs
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value

# Which namespaces services may share with each other, by their keys, and how they say with whom.
SHARED = ("network_mode", "pid", "ipc")
SERVICE, CONTAINER = "service:", "container:"
# A host name, or several with dots between them (RFC 1123), and with the underscores that Docker takes.
HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?")
_NAMESPACES: Mapping[str, tuple[str, ...]] = {
    "pid": ("host",),
    "ipc": ("host", "none", "private", "shareable"),
    "uts": ("host",),
    "userns_mode": ("host",),
    "cgroup": ("host", "private"),
    "network_mode": ("host", "none", "bridge", "default"),
}
# What a service has anyway.
_USUAL = ("bridge", "default", "shareable")


def read_networks(value: Value, service: str, known: Mapping[str, object], notes: Notes) -> tuple[Attachment, ...]:
    """Return the networks of a service, by the names that the files have for them, of which ``known`` are all."""
    attachments = []
    items = [(item.text("a network"), item) for item in value.items()] if value.is_list else value.entries().items()
    for name, item in items:
        if name not in known and name != "default":
            item.report(f"{quote(name)} is no network of this file", f"one of {', '.join(known) or 'none'}")
        if value.is_list or item.is_null:
            attachments.append(Attachment(name))
            continue
        fields = keys.ATTACHMENT.read(item, notes, service, "networks.*.")
        aliases = tuple(read_host(one) for one in fields["aliases"].items()) if "aliases" in fields else ()
        address = fields["ipv4_address"].text("an address") if "ipv4_address" in fields else ""
        if address and not _is_address(address):
            fields["ipv4_address"].report(f"is {quote(address)}", "an IPv4 address")
        attachments.append(Attachment(name, aliases, address))
    return tuple(attachments)


def read_host(value: Value) -> str:
    """Return the name of a host."""
    name = value.text("a host's name")
    if name and not HOST.fullmatch(name):
        value.report(f"is {quote(name)}", "a host's name: letters, digits, '.', '_' and '-'")
        return ""
    return name


def read_links(value: Value) -> Pairs:
    """Return the services that a service finds by further names, as (service, name)."""
    pairs = []
    for item in value.items():
        service, _, alias = item.text("SERVICE or SERVICE:ALIAS").partition(":")
        pairs.append((service, alias or service))
    return tuple(pairs)


def read_namespace(value: Value, key: str) -> str:
    """Return whose namespace a service has, as the model has it, or ``container:NAME``."""
    text = value.text("whose namespace it is")
    if key in SHARED and text.startswith((SERVICE, CONTAINER)):
        return text
    if text not in _NAMESPACES[key]:
        shares = " or service:NAME" if key in SHARED else ""
        value.report(f"is {quote(text)}", f"one of {', '.join(_NAMESPACES[key])}{shares}")
        return ""
    return "" if text in _USUAL or (key, text) == ("cgroup", "private") else text


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
