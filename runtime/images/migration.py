"""Bring a store of before the OCI image layout to it: ``references.json`` named configurations in ``images/``."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runtime.atomic import PARTIAL, read_document, remove
from runtime.images.descriptors import CONFIG, MANIFEST, Descriptor, Manifest, encode_manifest
from runtime.images.layout import Layout, hold
from runtime.images.oci import Document
from runtime.images.records import Record

OLD_INDEX = "references.json"


def migrate(root: Path, layout: Layout, record: Callable[[str], Record | None]) -> None:
    """Write manifests for all images of the old index, whose layers stay where they are, then remove it.

    An image whose layers are missing is left out: it was not there before, either. Killed at any point, it is done
    again. Raises PrerequisiteError for a damaged file, OSError.
    """
    old = root / OLD_INDEX
    layout.make()
    with hold(root / "migration", "", _silent), layout.writing(_silent):
        for reference, image_id in sorted((read_document(old, dict[str, str]) or {}).items()):
            path = root / "images" / f"{image_id.removeprefix('sha256:')}.json"
            document = read_document(path, Document)
            if document is None:
                continue
            records = [record(diff_id) for diff_id in document.rootfs.diff_ids]
            if None in records:
                continue
            layers = tuple(one.descriptor for one in records if one is not None)
            text = path.read_bytes()
            config = Descriptor(CONFIG, layout.add(text), len(text))
            manifest = encode_manifest(Manifest(config, layers))
            layout.point(reference, Descriptor(MANIFEST, layout.add(manifest), len(manifest)))
        away = layout.tmp / f"{PARTIAL}images-{os.getpid()}"  # before the index: no kill leaves them without it
        with suppress(FileNotFoundError):
            os.rename(root / "images", away)
        old.unlink(missing_ok=True)
        remove(away)
    (root / "migration").unlink(missing_ok=True)


def _silent(line: str) -> None:
    pass
