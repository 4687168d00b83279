"""Fixtures for the tests of registries: one that runs as long as a file's tests, clients, and what they push."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.images.descriptors import LAYER_GZIP, Descriptor, digest_of
from runtime.registry.access import Access
from runtime.registry.answers import Limits
from runtime.registry.client import Client
from runtime.registry.credentials import Credentials
from runtime.registry.repository import Repository
from runtime.registry.transport import Transport
from tests.runtime.registry.servers import debian_registry

# Patient with a busy host, and quick to try again.
LIMITS = Limits(head_s=20, stall_s=20, pause_s=0.001)

Open = Callable[..., Repository]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host and port of an empty docker-registry."""
    with debian_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


def client_of(folder: Path, text: str = "", **environment: str) -> Client:
    """A client with settings of its own and without credentials."""
    path = folder / "registries.conf"
    path.write_text(text)
    names = {"CONTAINERS_REGISTRIES_CONF": str(path), "REGISTRY_AUTH_FILE": "/none", **environment}
    return Client(names, plain_http=True, limits=LIMITS)


@pytest.fixture
def open_repository() -> Iterator[Open]:
    """A function that opens a repository of a host, by plain HTTP, with impatient limits or others."""
    opened: list[Transport] = []

    def open_one(host: str, path: str, limits: Limits = LIMITS, files: tuple[Path, ...] = ()) -> Repository:
        transport = Transport(limits)
        opened.append(transport)
        return Repository(Access(transport, host, Credentials(files), plain=True, only_plain=True), path)

    yield open_one
    for transport in opened:
        transport.close()


@pytest.fixture
def make_blob(tmp_path: Path) -> Callable[[int], tuple[Descriptor, Path]]:
    """A function that makes a file of random bytes, and its descriptor as a layer."""

    def make(size: int, seed: int = 0) -> tuple[Descriptor, Path]:
        content = random.Random(f"{size} {seed}").randbytes(size)
        path = tmp_path / f"blob-{size}-{seed}"
        path.write_bytes(content)
        return Descriptor(LAYER_GZIP, digest_of(content), size), path

    return make
