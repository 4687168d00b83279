"""A CD-ROM's file system (ISO 9660 with Rock Ridge) of a few files in its root directory, the same bits for the same
files: pycdlib writes it, and the times in it are fixed here."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

from pycdlib import PyCdlib
from pycdlib.dates import DirectoryRecordDate, VolumeDescriptorDate
from pycdlib.pycdlibexception import PyCdlibException

from runtime.errors import UsageError

SECTOR_BYTES = 2048
_FILE_MODE = 0o100555
# 1 January 2000, 00:00 UTC, as a directory record (ECMA-119, 9.1.5) and as a volume descriptor have it (8.4.26.1).
_RECORDED = bytes((100, 1, 1, 0, 0, 0, 0))
_STAMP = b"2000010100000000\0"
# Where the primary volume descriptor has the time of its modification (8.4.27).
_MODIFIED = 16 * SECTOR_BYTES + 830


def make_volume(label: str, files: Mapping[str, bytes]) -> bytes:
    """Return the volume named ``label`` with ``files`` by name; everybody may read and execute them.

    Raises UsageError for a label or a name that such a volume cannot have.
    """
    disc = PyCdlib()
    try:
        disc.new(interchange_level=3, vol_ident=label, app_ident_str=" ", rock_ridge="1.12")
        for number, (name, content) in enumerate(sorted(files.items())):
            _add(disc, f"/{number:08}.;1", name, content)
        _fix_times(disc)
        image = BytesIO()
        disc.write_fp(image)
    except PyCdlibException as error:
        raise UsageError(f"cannot make a volume {label!r} of {', '.join(map(repr, sorted(files)))}: {error}") from error
    # pycdlib takes the time of writing for the descriptor's modification.
    image.getbuffer()[_MODIFIED : _MODIFIED + len(_STAMP)] = _STAMP
    return image.getvalue()


def _add(disc: PyCdlib, plain_name: str, name: str, content: bytes) -> None:
    disc.add_fp(BytesIO(content), len(content), iso_path=plain_name, rr_name=name, file_mode=_FILE_MODE)


def _fix_times(disc: PyCdlib) -> None:
    """Let every time that pycdlib took from the clock, in the host's time zone, be the same one."""
    created = VolumeDescriptorDate()
    created.parse(_STAMP)
    disc.pvd.volume_creation_date = disc.pvd.volume_effective_date = created
    recorded = DirectoryRecordDate()
    recorded.parse(_RECORDED)
    for record in (disc.pvd.root_directory_record(), *disc.list_children(iso_path="/")):
        record.date = recorded
        for entries in (record.rock_ridge.dr_entries, record.rock_ridge.ce_entries) if record.rock_ridge else ():
            if entries is not None and entries.tf_record is not None:
                times = entries.tf_record
                times.access_time = times.modification_time = times.attribute_change_time = recorded
