"""Addresses that servers send us to: what they are compared by, which are refused, and how a person sees them."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

from runtime.errors import in_words
from runtime.output import shortened
from runtime.registry.errors import RegistryError

# Where engines keep the certificates of a registry's own authority (containers-certs.d(5)).
CERTIFICATES = ("/etc/containers/certs.d", "/etc/docker/certs.d")


def origin(url: str) -> tuple[str, str, int]:
    """Return the scheme, host and port of an address: what credentials are for (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or {"https": 443}.get(parts.scheme, 80)


def check_address(target: str, source: str) -> None:
    """Raise RegistryError unless a server at ``source`` may send us to ``target``: never from HTTPS to HTTP."""
    try:
        scheme, host, _ = origin(target)
    except ValueError:
        scheme = host = ""
    if not host or scheme not in ("http", "https") or not target.isascii() or not target.isprintable() or " " in target:
        raise RegistryError(f"{shown(source)}: sends us on to {shortened(target)!r}, which is not an address of HTTP")
    if scheme == "http" and urlsplit(source).scheme == "https":
        raise RegistryError(f"{shown(source)}: sends us on to {shown(target)}, which is not encrypted")


def shown(url: str) -> str:
    """Return an address for a person: without the query and the user, which may be secret."""
    parts = urlsplit(url)
    return shortened(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def explain(error: Exception, method: str, url: str) -> tuple[str, str]:
    """Return the message and the hint for a request that got no answer."""
    hint = ""
    if isinstance(error, ssl.SSLCertVerificationError):
        place = f"{CERTIFICATES[0]}/{urlsplit(url).netloc}/ca.crt"
        hint = f"add its authority's certificate to the system's, or as {place}"
    elif isinstance(error, ssl.SSLError):
        hint = "if it speaks plain HTTP, say so: --plain-http, or `insecure = true` in registries.conf"
    elif isinstance(error, ConnectionRefusedError | socket.gaierror):
        hint = "is that its address, and does it run? Proxies come from https_proxy, http_proxy and no_proxy"
    return f"{method} {shown(url)}: {words_of(error)}", hint


def words_of(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection ended without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended within the answer"
    return shortened(in_words(error) or type(error).__name__)
