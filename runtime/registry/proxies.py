"""Proxies from the environment: ``https_proxy``, ``http_proxy``, ``all_proxy`` and ``no_proxy``."""

from __future__ import annotations

from base64 import b64encode
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from msgspec import Struct

from runtime.errors import UsageError
from runtime.output import shortened


class Proxy(Struct, frozen=True):
    """A proxy that is asked by HTTP; ``authorization`` is the value of its header, or empty."""

    host: str
    port: int
    authorization: str = ""


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for an address, or None. This host's own addresses have none, whatever the environment says, as
    with the engines. Raises UsageError for a proxy that is not one of HTTP."""
    parts = urlsplit(url)
    proxies = getproxies_environment()
    found = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    if not found or _is_loopback(host) or proxy_bypass_environment(f"{host}:{parts.port}" if parts.port else host):
        return None
    return parse(found)


def parse(text: str) -> Proxy:
    """Return the proxy that ``[http://][USER[:PASSWORD]@]HOST[:PORT]`` names. Raises UsageError."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http":
        shown = shortened(f"{parts.scheme}://{host or ''}")
        raise UsageError(f"proxy {shown}: only proxies of HTTP are used", "http_proxy=http://HOST:PORT")
    user = ":".join(map(unquote, (parts.username or "", parts.password or "")))
    return Proxy(host, port, f"Basic {b64encode(user.encode()).decode()}" if parts.username else "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
