"""What a store holds, as data for people and programs: its images, one of them in full, its history."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from runtime.errors import UsageError
from runtime.images import descriptors, oci
from runtime.images.descriptors import Descriptor, Manifest
from runtime.images.store import Store


class ListedImage(Struct, frozen=True):
    """An image under one name. ``size_bytes`` is the sum of its layers' tars; a layer that it shares with others counts
    in each. ``problem`` says why it cannot be used, if so."""

    reference: str
    id: str
    digest: str
    created: str
    platform: str
    layers: int
    size_bytes: int
    problem: str = ""


class Step(Struct, frozen=True):
    """One step of an image's history, oldest first. ``diff_id`` and ``size_bytes`` are those of its layer, if any."""

    created: str
    created_by: str
    diff_id: str = ""
    size_bytes: int = 0


class _HistoryEntry(Struct, frozen=True):
    created: str | None = None
    created_by: str | None = None
    empty_layer: bool | None = None


class _Configuration(Struct, frozen=True):
    """The members of an image configuration that listings show."""

    rootfs: oci.Rootfs
    created: str | None = None
    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    history: tuple[_HistoryEntry, ...] | None = None


def list_images(store: Store) -> list[ListedImage]:
    """Return all images by name."""
    return [_list_one(store, reference) for reference in store.references()]


def _list_one(store: Store, reference: str) -> ListedImage:
    named = store.manifest(reference)
    try:
        manifest, config = _documents(store, reference, named)
    except UsageError as error:
        return ListedImage(reference, "", named.digest, "", "", 0, 0, error.message)
    records = [store.record(diff_id) for diff_id in config.rootfs.diff_ids]
    missing = sum(record is None for record in records)
    platform = "/".join(filter(None, (config.os, config.architecture, config.variant)))
    return ListedImage(
        reference,
        manifest.config.digest,
        named.digest,
        config.created or "",
        platform,
        len(records),
        sum(record.size_bytes for record in records if record is not None),
        f"{missing} of its layers are missing" if missing else "",
    )


def _documents(store: Store, reference: str, named: Descriptor) -> tuple[Manifest, _Configuration]:
    text = store.layout.read(named.digest, f"manifest of {reference}")
    manifest = descriptors.parse_manifest(text, f"manifest of {reference}")
    what = f"configuration of {reference}"
    return manifest, descriptors.decode(store.layout.read(manifest.config.digest, what), _Configuration, what)


def inspect(store: Store, reference: str) -> dict[str, Any]:
    """Return all that the store has of an image: the documents as they are, and where each layer is. Raises UsageError
    where there is none, or a document is missing."""
    named = store.manifest(reference)
    manifest = store.layout.read(named.digest, f"manifest of {reference}")
    _, config = _documents(store, reference, named)
    parsed = descriptors.parse_manifest(manifest, f"manifest of {reference}")
    layers = []
    for descriptor, diff_id in zip(parsed.layers, config.rootfs.diff_ids, strict=False):
        record = store.record(diff_id)
        layer = store.layer(diff_id)
        layers.append(
            {
                "diff_id": diff_id,
                "path": str(layer.path) if layer else None,
                "size_bytes": record.size_bytes if record else None,
                "blob": msgspec.to_builtins(descriptor),
                "blob_is_stored": store.layout.has(descriptor.digest),
            }
        )
    text = store.layout.read(parsed.config.digest, f"configuration of {reference}")
    return {
        "reference": reference,
        "id": parsed.config.digest,
        "descriptor": msgspec.to_builtins(named),
        "manifest": msgspec.json.decode(manifest),
        "configuration": msgspec.json.decode(text),
        "layers": layers,
    }


def history(store: Store, reference: str) -> list[Step]:
    """Return the steps by which an image was made, oldest first. Where its maker wrote no history, a step stands for
    each layer. Raises UsageError where there is no such image, or a document is missing."""
    _, config = _documents(store, reference, store.manifest(reference))
    diff_ids = list(reversed(config.rootfs.diff_ids))
    steps = []
    for entry in config.history or ():
        diff_id = diff_ids.pop() if diff_ids and not entry.empty_layer else ""
        steps.append(_step(store, diff_id, entry.created or "", entry.created_by or ""))
    return [*steps, *(_step(store, diff_id, "", "") for diff_id in reversed(diff_ids))]


def _step(store: Store, diff_id: str, created: str, created_by: str) -> Step:
    record = store.record(diff_id) if diff_id else None
    by = created_by or (record.created_by if record else "")
    return Step(created, by, diff_id, record.size_bytes if record else 0)
