"""Fetch the file of a remote ADD, in bounded time and size, to a path on this host.

Whoever wrote the Dockerfile chose the address. So the request is made from a network namespace of its own, as a RUN has
it: what listens on the host's loopback is not reached, but for its proxies.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import urllib.error
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from pathlib import Path

from msgspec import Struct

from runtime import libc
from runtime.config.default import DEFAULT_PATH
from runtime.errors import UsageError, WorkloadError
from runtime.images.base import proxy_environment
from runtime.outgoing import loopback_services, outgoing
from runtime.plan.constants import CLONE_NEWNET
from runtime.speed import scale

MOST_BYTES = 16 << 30
# Between two pieces of the answer; a slow server has as long as its file takes.
SILENCE_S = 60
_CHECKSUM = re.compile(r"sha(256|384|512):[0-9a-f]+")
_CHUNK_BYTES = 1 << 20


class Download(Struct, frozen=True):
    """A file that was fetched: its ``path``, the ``sha256`` of its content, and ``modified_s`` as the server said, or
    0."""

    path: Path
    sha256: str
    modified_s: int


def check_checksum(text: str) -> str:
    """Return a checksum's hash algorithm. Raises ValueError for a text that is no checksum."""
    algorithm, _, digits = text.partition(":")
    if not _CHECKSUM.fullmatch(text) or len(digits) != 2 * hashlib.new(algorithm).digest_size:
        raise ValueError(f"--checksum={text[:80]} is not sha256: and its 64 hexadecimal digits")
    return algorithm


def fetch(source: str, target: Path, checksum: str = "") -> Download:
    """Write what ``source`` answers to ``target``. ``checksum`` is that of the content, or "".

    Raises WorkloadError when the server does not answer with the file, UsageError for a wrong checksum, and
    PrerequisiteError as ``outgoing`` does.
    """
    entered: Future[int] = Future()
    connected: Future[None] = Future()

    def inside() -> Download:
        try:
            libc.call("unshare", CLONE_NEWNET)  # of this thread alone
            entered.set_result(threading.get_native_id())
        except OSError as error:
            entered.set_exception(error)
        connected.result()
        return _fetch(source, target, checksum)

    with ThreadPoolExecutor(1, "fetch") as pool:
        fetched = pool.submit(inside)
        try:
            resolver = Path("/etc/resolv.conf").read_text(errors="replace") if Path("/etc/resolv.conf").exists() else ""
            services = loopback_services(proxy_environment(os.environ).values(), resolver)
            with outgoing(entered.result(), services, {"PATH": DEFAULT_PATH}):
                connected.set_result(None)
                return fetched.result()
        finally:
            if not connected.done():
                connected.set_exception(WorkloadError(f"ADD {source[:200]}: not connected"))


def _fetch(source: str, target: Path, checksum: str) -> Download:
    purpose = f"ADD {source[:200]}"
    # Of what urllib opens, only these: neither file: nor ftp:, also after a redirection.
    opener = urllib.request.OpenerDirector()
    handlers = ("ProxyHandler", "HTTPHandler", "HTTPSHandler", "HTTPRedirectHandler", "HTTPErrorProcessor")
    for name in (*handlers, "HTTPDefaultErrorHandler"):
        opener.add_handler(getattr(urllib.request, name)())
    hashes = {name: hashlib.new(name) for name in {"sha256", check_checksum(checksum) if checksum else "sha256"}}
    try:
        with opener.open(source, timeout=scale(SILENCE_S)) as answer, open(target, "xb") as file:
            size_bytes = 0
            while chunk := answer.read(_CHUNK_BYTES):
                size_bytes += len(chunk)
                if size_bytes > MOST_BYTES:
                    raise WorkloadError(f"{purpose}: the answer has more than {MOST_BYTES} bytes")
                for one in hashes.values():
                    one.update(chunk)
                file.write(chunk)
            promised = answer.headers.get("Content-Length")
            if promised is not None and promised != str(size_bytes):
                raise WorkloadError(f"{purpose}: {size_bytes} of {promised[:20]} bytes came", "try again")
            modified_s = _modified_s(answer.headers)
    except urllib.error.HTTPError as error:
        raise WorkloadError(f"{purpose}: the server answered {error.code} {error.reason}") from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise WorkloadError(f"{purpose}: {why}", "check the address, and the proxy of this host") from error
    if (
        checksum
        and (actual := f"{checksum.partition(':')[0]}:{hashes[checksum.partition(':')[0]].hexdigest()}") != checksum
    ):
        raise UsageError(f"{purpose}: its checksum is {actual}, not {checksum}")
    return Download(target, hashes["sha256"].hexdigest(), modified_s)


def _modified_s(headers: HTTPMessage) -> int:
    try:
        return max(0, int(parsedate_to_datetime(headers["Last-Modified"]).timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0
