"""Lend a RUN the certificates by which this host trusts servers, where the environment names a file of them.

Behind a proxy that answers in a server's place, no image knows who has signed the answer: pip, npm, curl and git are
then told so by variables that name a file. A RUN has the same variables and files, and the image keeps neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from runtime.config.types import Mount

# Of OpenSSL, curl, Python's requests, pip, Node.js and git, in this order.
VARIABLES = (
    *("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO"),
)
# Below the folder that every RUN has, for its resolv.conf.
FOLDER = "/etc/testbed-certificates"


class Lent(Struct, frozen=True):
    """The variables of a RUN, and the mounts of the files that they name."""

    variables: dict[str, str]
    mounts: tuple[Mount, ...]


def lend_certificates(environment: Mapping[str, str]) -> Lent:
    """Return what a RUN has of the files of certificates that ``environment`` names; what is no file is left out."""
    variables: dict[str, str] = {}
    places: dict[Path, str] = {}
    for name in VARIABLES:
        path = Path(environment.get(name, "")).resolve()
        if path.is_file():
            variables[name] = places.setdefault(path, f"{FOLDER}/{len(places)}.pem")
    return Lent(variables, tuple(Mount(place, "bind", str(path), ("bind", "ro")) for path, place in places.items()))
