"""Which sources of ADD are not files of the context, and what they are called."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit


def is_remote(source: str) -> bool:
    """Return whether a source of ADD is the address of a file."""
    return source.lower().startswith(("http://", "https://"))


def is_repository(source: str) -> bool:
    """Return whether it is that of a git repository, as Docker recognises them."""
    address = source.partition("#")[0]
    return source.startswith(("git@", "git://", "ssh://")) or (is_remote(source) and address.endswith(".git"))


def remote_name(source: str) -> str:
    """Return the file name in an address; "" if it has none."""
    return unquote(urlsplit(source).path).rpartition("/")[2].replace("\0", "")
