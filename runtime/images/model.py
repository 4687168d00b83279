"""An image as frozen data: an OCI image configuration, and the layers that it names."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class Healthcheck(Struct, frozen=True):
    """How an image says whether its service is well: ``test`` begins with NONE, CMD or CMD-SHELL. Times are
    nanoseconds; 0 means the default of who runs it (Docker's image specification 1.2, "Healthcheck")."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


class ImageConfig(Struct, frozen=True):
    """The ``config`` object of an OCI image configuration, with the members that Docker adds to it.

    ``env`` holds ``NAME=value`` strings, ``exposed_ports`` strings such as ``8080/tcp``, and ``labels`` pairs. Docker's
    are ``healthcheck``, ``on_build`` (instructions for who builds on the image) and ``shell``.
    """

    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    exposed_ports: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()


class Layer(Struct, frozen=True):
    """One layer in the store.

    ``diff_id`` is ``sha256:`` and the hex digest of the layer's uncompressed tar; ``path`` is the extracted layer,
    which can be an overlay lowerdir (whiteouts are 0/0 character devices, opaque directories have
    ``trusted.overlay.opaque=y``).
    """

    diff_id: str
    path: Path


class History(Struct, frozen=True):
    """One step in the history of an image: the command, and whether it made no layer (metadata only)."""

    created_by: str
    empty_layer: bool


class Image(Struct, frozen=True):
    """An image in the store: ``id`` is the sha256 of its configuration, and ``layers`` are in order, bottom first."""

    reference: str
    id: str
    config: ImageConfig
    layers: tuple[Layer, ...]
    history: tuple[History, ...] = ()
