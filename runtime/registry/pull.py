"""Pull an image into the store: its layers side by side, each unpacked while it is downloaded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import suppress

from runtime.errors import UsageError
from runtime.images.descriptors import DOCUMENT_LIMIT_BYTES, Descriptor, Manifest, Platform, decode
from runtime.images.ingest import Ingest, ingesting
from runtime.images.model import Image
from runtime.images.oci import Document, architecture
from runtime.images.store import Store
from runtime.images.unpack import Limits
from runtime.registry.client import Client, Found
from runtime.registry.download import CHUNK_BYTES, Download
from runtime.registry.references import parse

_AHEAD_CHUNKS = 16


def pull(
    store: Store,
    client: Client,
    name: str,
    progress: Callable[[str], None],
    platform: str = "",
    limits: Limits = Limits(),  # noqa: B008
) -> Image:
    """Bring the image called ``name`` into the store and return it. What the store has already is not downloaded.

    It gets its full name there, and ``name`` as a further one. ``platform`` is ``os/architecture[/variant]``, by
    default this host's; ``limits`` are those of each layer. Raises UsageError for a wrong name and for an image that
    is damaged or exceeds the limits, NotThereError and RegistryError; only whole layers stay in the store then.
    """
    found = client.find(name, platform)
    manifest = found.received.document
    assert isinstance(manifest, Manifest)
    reference = str(found.reference)
    progress(f"pulling {reference} from {found.repositories[0]}")
    with ingesting(store, progress, limits) as ingest:
        config = _fetch_configuration(ingest, found, manifest, reference)
        _check_platform(ingest, manifest, reference, platform)
        missing = {
            (layer, diff_id): None
            for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True)
            if not ingest.has_layer(layer, diff_id)
        }
        _fetch_layers(ingest, client, found, list(missing), progress)
        image = ingest.image(reference, found.received.content, found.received.descriptor.media_type)
        asked = str(parse(name))
        if asked != reference:
            store.alias(reference, asked)
    return image


def _fetch_configuration(ingest: Ingest, found: Found, manifest: Manifest, reference: str) -> Document:
    if manifest.config.size > DOCUMENT_LIMIT_BYTES:
        raise UsageError(f"{reference}: its configuration has more than {DOCUMENT_LIMIT_BYTES} bytes")
    ingest.blob(manifest.config, _chunks(_download(found, manifest.config)))
    config = ingest.configuration(manifest, reference)
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        what = f"{reference}: {len(manifest.layers)} layers, and its configuration names {len(config.rootfs.diff_ids)}"
        raise UsageError(what)
    return config


def _check_platform(ingest: Ingest, manifest: Manifest, reference: str, platform: str) -> None:
    """Raise UsageError for an image that says that it is for something else: one that is in no list was not chosen."""
    text = ingest.store.layout.read(manifest.config.digest, reference)
    built = decode(text, Platform, f"configuration of {reference}")
    wanted = platform or f"linux/{architecture()}"
    if built.architecture and [built.os, built.architecture] != wanted.split("/")[:2]:
        raise UsageError(f"{reference}: it is for {built}, and {wanted} is wanted", "choose another tag, or --platform")


def _fetch_layers(
    ingest: Ingest, client: Client, found: Found, layers: list[tuple[Descriptor, str]], progress: Callable[[str], None]
) -> None:
    """Fetch layers, the largest first, a few at a time. The first failure ends all."""

    def fetch(layer: Descriptor, diff_id: str) -> None:
        chunks = read_ahead(_chunks(_download(found, layer)))
        ingest.layer(layer, diff_id, chunks)

    layers.sort(key=lambda one: -one[0].size)
    with client.working() as pool:
        pending = {pool.submit(fetch, *one): one[0] for one in layers}
        while pending:
            done, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in done:
                layer = pending.pop(future)
                future.result()
                progress(f"{layer.digest[:19]}: {layer.size} bytes")


def _download(found: Found, descriptor: Descriptor) -> Download:
    first, *others = found.repositories
    return first.blob(descriptor, others, check=False)


def _chunks(download: Download) -> Iterator[bytes]:
    with download:
        yield from iter(lambda: download.read(CHUNK_BYTES), b"")


def read_ahead(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield chunks that a thread reads meanwhile, a few of them ahead. What it raises is raised here.

    When the reader stops early, the thread ends after the chunk that it waits for.
    """
    ready: queue.Queue[bytes | BaseException | None] = queue.Queue(_AHEAD_CHUNKS)
    stopped = threading.Event()

    def read() -> None:
        try:
            for chunk in chunks:
                ready.put(chunk)
                if stopped.is_set():
                    return
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=read, name="read ahead", daemon=True).start()
    try:
        while (found := ready.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        stopped.set()
        with suppress(queue.Empty):
            while True:
                ready.get_nowait()
