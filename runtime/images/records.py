"""What the store notes of each unpacked layer, beside it: ``layers/<26 hex digits>.json``, written last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.atomic import partial, read_document
from runtime.images.descriptors import LAYER_TAR, Descriptor
from runtime.images.oci import EPOCH_S


class Record(Struct, frozen=True, omit_defaults=True):
    """An unpacked layer. ``size_bytes`` is its tar's length, ``newest_s`` the newest time in it.

    ``blob`` is the blob that it was unpacked from. A layer without one was made here: its tar is canonical, and is made
    again of its files whenever it is wanted. ``hides_below`` says that it hides all layers below it. ``boot`` is the
    boot of the host in which its files were written, until they are known to be on the disk.
    """

    diff_id: str
    size_bytes: int = 0
    created_by: str = ""
    newest_s: int = EPOCH_S
    blob: Descriptor | None = None
    hides_below: bool = False
    boot: str = ""

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor by which a manifest names the layer."""
        return self.blob or Descriptor(LAYER_TAR, self.diff_id, self.size_bytes)


def record_path(layer: Path) -> Path:
    """Return where the record of the layer at a path is."""
    return layer.with_name(layer.name + ".json")


def read_record(layer: Path) -> Record | None:
    """Return the record of the layer at a path, or None when it has none, or was perhaps not on the disk when the host
    went down: then it is of another boot, or empty. Raises PrerequisiteError when the record is damaged."""
    path = record_path(layer)
    try:
        if path.stat().st_size == 0:
            return None
    except FileNotFoundError:
        return None
    record = read_document(path, Record)
    return None if record is None or record.boot not in ("", current_boot()) else record


def write_record(layer: Path, record: Record) -> None:
    """Write the record of the layer at a path, which need not be on the disk. Raises OSError."""
    with partial(record_path(layer)) as temporary:
        temporary.write_bytes(_encode(record))


def settle_records(layers: Sequence[Path], sync: Callable[[], None]) -> None:
    """Note of layers that their files are on the disk, after ``sync`` has written all there. Raises OSError."""
    with ExitStack() as stack:
        for layer in layers:
            record = read_record(layer)
            if record is not None:
                stack.enter_context(partial(record_path(layer))).write_bytes(_encode(replace(record, boot="")))
        sync()


def _encode(record: Record) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=1)


@cache
def current_boot() -> str:
    """Return the kernel's name for this boot of the host (random(4): boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
