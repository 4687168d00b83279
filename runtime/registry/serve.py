"""The image store as a registry that can be read, on loopback: what a podman beside it pulls from.

An image is there under the path and tag of its name: ``clickme/web`` as ``/v2/clickme/web/manifests/latest``. The
interface is that of the distribution-spec 1.1 without pushing: manifests, blobs with ranges, tags, referrers.
"""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import msgspec

from runtime import __version__
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.images.descriptors import INDEX, Descriptor
from runtime.images.layout import COPY_BYTES
from runtime.images.store import Store
from runtime.registry import manifests
from runtime.registry.references import DIGEST, is_path, parse

ADDRESS = "127.0.0.1"
_IDLE_S = 60.0
_ROUTE = re.compile(
    r"/v2/(?P<path>[a-z0-9/._-]{1,255})/(?P<kind>manifests|blobs|tags|referrers)/(?P<what>[\w.:-]{1,200})"
)
_RANGE = re.compile(r"bytes=(\d{1,19})-(\d{0,19})")
# A page in a browser could have its own name lead here, and read what it gets.
_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def served_names(references: Mapping[str, Descriptor]) -> dict[str, dict[str, Descriptor]]:
    """Return manifests by path and tag: names that have a registry's host are there without it, and, where a path can
    hold the host, with it. Of two names with one path, the one without host counts."""
    found: dict[str, dict[str, Descriptor]] = {}
    for name, target in sorted(references.items()):
        with suppress(UsageError):
            reference = parse(name)
            places = [(not reference.host, reference.path), (True, f"{reference.host}/{reference.path}")]
            for is_its_own, path in places[: 2 if reference.host else 1]:
                if is_path(path) and reference.tag:
                    tags = found.setdefault(path, {})
                    if is_its_own or reference.tag not in tags:
                        tags[reference.tag] = target
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"testbed/{__version__}", ""
    disable_nagle_algorithm = True
    timeout = _IDLE_S
    server: _Server

    def do_GET(self) -> None:
        try:
            self._answer()
        except TestbedError as error:
            self._refuse(404, "BLOB_UNKNOWN", error.message)
        except (TimeoutError, ConnectionError):
            self.close_connection = True

    do_HEAD = do_GET

    def _answer(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")
        if (host[0] or host[2]) not in _HOSTS:
            self._refuse(403, "DENIED", "this registry is for its own host only")
            return
        address = urlsplit(self.path)
        if address.path in ("/v2", "/v2/"):
            self._send(b"{}", "application/json")
            return
        route = _ROUTE.fullmatch(address.path)
        tags = served_names(self.server.store.layout.references()).get(route["path"]) if route else None
        if route is None or tags is None:
            self._refuse(404, "NAME_UNKNOWN", "no image has that name")
        elif route["kind"] == "blobs":
            self._blob(route["what"])
        elif route["kind"] == "manifests":
            self._manifest(route["what"], tags)
        elif route["kind"] == "referrers":
            self._referrers(route["what"], tags, parse_qs(address.query).get("artifactType", [""])[0])
        else:
            self._send(msgspec.json.encode({"name": route["path"], "tags": sorted(tags)}), "application/json")

    def _manifest(self, target: str, tags: Mapping[str, Descriptor]) -> None:
        named = [one for tag, one in tags.items() if target in (tag, one.digest)]
        if not named:
            self._refuse(404, "MANIFEST_UNKNOWN", "no image has that tag or digest")
            return
        content = self.server.store.layout.read(named[0].digest, "manifest")
        self._send(content, named[0].media_type, {"Docker-Content-Digest": named[0].digest})

    def _referrers(self, digest: str, tags: Mapping[str, Descriptor], wanted: str) -> None:
        found = []
        for one in {target.digest: target for target in tags.values()}.values():
            said = manifests.referrer(self.server.store.layout.read(one.digest, "manifest"), one)
            if said and said[0].digest == digest and wanted in ("", said[1].artifact_type):
                found.append(said[1])
        filtered = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        self._send(msgspec.json.encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}), INDEX, filtered)

    def _blob(self, digest: str) -> None:
        store = self.server.store
        if not DIGEST.fullmatch(digest) or not store.has_blob(digest):
            self._refuse(404, "BLOB_UNKNOWN", "no image has that blob")
            return
        size = store.blob_size(digest)
        first, last, status = 0, size - 1, 200
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        if asked:
            first, last, status = int(asked[1]), min(int(asked[2] or last), last), 206
            if first > last:
                self._refuse(416, "SIZE_INVALID", f"it has {size} bytes", {"Content-Range": f"bytes */{size}"})
                return
        headers = {"Docker-Content-Digest": digest, "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self._begin(status, "application/octet-stream", last + 1 - first, headers)
        if self.command == "GET":
            with store.open_blob(digest) as file:
                self._copy(cast(io.BufferedReader, file), first, last + 1 - first)

    def _copy(self, file: io.BufferedReader, first: int, count: int) -> None:
        if isinstance(file.raw, io.FileIO):
            if count:
                self.connection.sendfile(file, first, count)
            return
        while first and (passed := file.read(min(first, COPY_BYTES))):  # it is made as it is read
            first -= len(passed)
        while count and (chunk := file.read(min(count, COPY_BYTES))):
            self.wfile.write(chunk)
            count -= len(chunk)

    def _send(
        self, content: bytes, media_type: str, headers: Mapping[str, str] | None = None, status: int = 200
    ) -> None:
        self._begin(status, media_type, len(content), headers or {})
        if self.command == "GET":
            self.wfile.write(content)

    def _begin(self, status: int, media_type: str, size: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        more = {"Content-Type": media_type, "Content-Length": str(size), "X-Content-Type-Options": "nosniff"}
        for name, value in {"Docker-Distribution-Api-Version": "registry/2.0", **more, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        content = msgspec.json.encode({"errors": [{"code": code, "message": message}]})
        self._send(content, "application/json", headers, status)

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, store: Store, port: int) -> None:
        self.store = store
        super().__init__((ADDRESS, port), _Handler)

    def server_bind(self) -> None:
        """Bind without the look for the host's own name that HTTPServer takes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is none of ours."""


@contextmanager
def serving(store: Store, port: int = 0) -> Iterator[str]:
    """Serve ``store`` on loopback within the context, and yield the host and port (0: a free one).

    Raises PrerequisiteError if the port is taken or may not be used.
    """
    try:
        server = _Server(store, port)
    except (OSError, OverflowError) as error:
        raise PrerequisiteError(f"serve images at {ADDRESS}:{port}: {error}", "give another --port, or none") from error
    with server:
        thread = Thread(target=server.serve_forever, args=(0.1,), name="registry", daemon=True)
        thread.start()
        try:
            yield f"{ADDRESS}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
