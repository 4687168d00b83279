"""A disk of several files, as a VMDK's text file has it: runs of sectors, each a file's, or of zeros.

The format is that of VMware's "Virtual Disk Format 5.0" (2011), the kind ``monolithicFlat``, whose extents are plain
files; VirtualBox reads these where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from msgspec import Struct

from runtime.errors import UsageError

SECTOR_BYTES = 512
_HEADS, _SECTORS, _MOST_CYLINDERS = 16, 63, 16383
_NOBODY = UUID(int=0)
_TEXT = """\
# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicFlat"
{extents}
ddb.virtualHWVersion = "4"
ddb.adapterType="lsilogic"
ddb.geometry.cylinders="{cylinders}"
ddb.geometry.heads="{heads}"
ddb.geometry.sectors="{sectors}"
ddb.uuid.image="{identity}"
ddb.uuid.parent="{nobody}"
ddb.uuid.modification="{nobody}"
ddb.uuid.parentmodification="{nobody}"
"""


class Extent(Struct, frozen=True):
    """A run of ``length`` bytes of a disk, whole sectors: a file's from its beginning on, which is only read, or of
    zeros without one."""

    length: int
    file: Path | None = None

    def line(self) -> str:
        """Return its line. Raises UsageError for parts of sectors, and for a path that such a line cannot hold."""
        sectors, rest = divmod(self.length, SECTOR_BYTES)
        if rest or not sectors:
            raise UsageError(f"a disk of {self.length} bytes: not whole sectors of {SECTOR_BYTES}")
        if self.file is None:
            return f"RW {sectors} ZERO"
        path = str(self.file)
        if '"' in path or not path.isprintable():
            raise UsageError(f"{path!r}: a VMDK cannot name it", "put the run's files elsewhere")
        return f'RDONLY {sectors} FLAT "{path}" 0'


def describe_disk(extents: Sequence[Extent], identity: UUID) -> str:
    """Return the text file of the disk that is made of ``extents`` one after the other. Raises UsageError as
    ``Extent.line``."""
    sectors = sum(one.length for one in extents) // SECTOR_BYTES
    return _TEXT.format(
        extents="\n".join(one.line() for one in extents),
        cylinders=min(max(sectors // (_HEADS * _SECTORS), 1), _MOST_CYLINDERS),
        heads=_HEADS,
        sectors=_SECTORS,
        identity=identity,
        nobody=_NOBODY,
    )
