"""An ext4 file system of a directory tree, made without mounting anything: the same bits for the same tree.

mke2fs lays the files out in the order of their names. It would take over when they were last read and changed
here, cut modification times to seconds and leave the root directory its own, so debugfs puts these right.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from runtime.atomic import scratch
from runtime.errors import PrerequisiteError
from runtime.images.layers import walk

# Named one by one, so that /etc/mke2fs.conf decides nothing. With a journal: a disk that is copied while its guest
# runs must be consistent once that has been replayed.
_FEATURES = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize,metadata_csum"
)
_BLOCK_BYTES = 4096
_INODE_BYTES = 256
_JOURNAL_BYTES = 16 << 20
# What a guest may write on its clone of the disk: as much again, and this.
_ROOM_BYTES = 1 << 30
_SPARE_INODES = 65536
_LOST_AND_FOUND = "lost+found"


class _Entry(Struct, frozen=True):
    """A name below the root of the file system, which is ``/``, and its source's attributes."""

    path: str
    status: os.stat_result


def _entries(tree: Path) -> Iterator[_Entry]:
    yield _Entry("/", tree.lstat())
    for name, status in walk(tree):
        yield _Entry(f"/{name}", status)


def extra_time(time_ns: int) -> int:
    """Return the upper half of a time stamp: nanoseconds above two bits that extend the seconds of the lower half.

    Source: Documentation/filesystems/ext4/inodes.rst, "Inode Timestamps".
    """
    seconds, nanoseconds = divmod(time_ns, 10**9)
    signed = (seconds + (1 << 31)) % (1 << 32) - (1 << 31)
    return nanoseconds << 2 | (seconds - signed) >> 32 & 3


def _quoted(path: str) -> str:
    doubled = path.replace('"', '""')
    return f'"{doubled}"'


def inodes_below(listing: str) -> dict[str, int]:
    """Return the inode numbers by name in what debugfs prints for ``ls -p``: records
    ``/inode/mode/uid/gid/name/size/``, the names as they are, newlines too; none has a slash."""
    fields = listing.split("/")
    return {fields[i + 4]: int(fields[i]) for i in range(1, len(fields) - 6, 7)}


def _inodes(device: str, entries: Sequence[_Entry], environment: Mapping[str, str], target: Path) -> dict[str, int]:
    """Return the inode numbers of what has the end of a line in its path, which no command to debugfs can name."""
    inodes: dict[str, int] = {}
    listed: dict[str, dict[str, int]] = {}
    for entry in entries:
        if "\n" not in entry.path and "\r" not in entry.path:
            continue
        folder, _, name = entry.path.rpartition("/")
        if folder not in listed:
            where = f"<{inodes[folder]}>" if folder in inodes else _quoted(folder or "/")
            listed[folder] = inodes_below(_run(["debugfs", "-R", f"ls -p {where}", device], environment, target)[0])
        inodes[entry.path] = listed[folder][name]
    return inodes


def make_correction(entries: Sequence[_Entry], epoch_s: int, inodes: Mapping[str, int] | None = None) -> str:
    """Return the commands for debugfs: each file was last read and changed when it was modified, down to the
    nanosecond. The root gets its permissions too. ``inodes`` numbers those of which the path cannot be given."""
    commands = [f"set_inode_field / mode 0{entries[0].status.st_mode:o}"]
    for entry in entries:
        number = (inodes or {}).get(entry.path)
        name, time_ns = f"<{number}>" if number else _quoted(entry.path), entry.status.st_mtime_ns
        for field in ("atime", "ctime", "mtime"):
            commands.append(f"set_inode_field {name} {field} @{time_ns // 10**9 % (1 << 32)}")
            commands.append(f"set_inode_field {name} {field}_extra {extra_time(time_ns)}")
        commands.append(f"set_inode_field {name} crtime @{epoch_s}")
    return "\n".join(commands) + "\n"


def compute_size_bytes(entries: Sequence[_Entry]) -> int:
    """Return how large the file system is to be: twice what the files take, and room for a guest's own."""
    blocks = sum(-(-entry.status.st_size // _BLOCK_BYTES) + 1 for entry in entries)
    inodes_bytes = (len(entries) + _SPARE_INODES) * _INODE_BYTES
    return 2 * blocks * _BLOCK_BYTES + inodes_bytes + _JOURNAL_BYTES + _ROOM_BYTES


def _run(command: list[str], environment: Mapping[str, str], target: Path) -> tuple[str, str]:
    """Return what a tool says on its standard output and error."""
    try:
        # Bytes: names may have any, and reading text would change the ends of lines in them.
        done = subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
    except FileNotFoundError as error:
        raise PrerequisiteError(f"build disk {target}: {error}", "install e2fsprogs") from error
    except subprocess.CalledProcessError as error:
        output = (error.stderr + error.stdout).decode(errors="replace").strip()
        raise PrerequisiteError(f"build disk {target}: {command[0]}: {output}", "check the free space") from error
    return os.fsdecode(done.stdout), os.fsdecode(done.stderr)


def make_ext4(target: Path, tree: Path, volume: uuid.UUID, epoch_s: int) -> None:
    """Make the directory ``tree`` the ext4 file system ``target``, a new file, with room for more files.

    ``epoch_s``, in seconds since 1970, is when it was made. Raises PrerequisiteError without e2fsprogs or space.
    """
    entries = list(_entries(tree))
    root = entries[0].status
    options = f"hash_seed={volume},lazy_itable_init=0,lazy_journal_init=0,root_owner={root.st_uid}:{root.st_gid}"
    command = [
        *("mke2fs", "-q", "-t", "ext4", "-O", _FEATURES, "-b", str(_BLOCK_BYTES), "-I", str(_INODE_BYTES)),
        *("-m", "0", "-N", str(len(entries) + _SPARE_INODES), "-J", f"size={_JOURNAL_BYTES >> 20}"),
        *("-U", str(volume), "-E", options, "-d", str(tree), str(target), f"{compute_size_bytes(entries) >> 10}k"),
    ]
    _run(command, environment_at(epoch_s), target)
    # The layers do not have lost+found: fsck makes it when there is something to keep in it.
    surplus = () if any(entry.path == f"/{_LOST_AND_FOUND}" for entry in entries) else (_LOST_AND_FOUND,)
    _correct(target, entries, epoch_s, 0, surplus)


def environment_at(epoch_s: int) -> dict[str, str]:
    """Return the environment in which the tools take it to be this time, in seconds since 1970."""
    # By the first their libraries tell the time, by the second, which is newer, the tools of later releases.
    return {"E2FSPROGS_FAKE_TIME": str(epoch_s), "SOURCE_DATE_EPOCH": str(epoch_s), "LC_ALL": "C"}


def correct_times(target: Path, tree: Path, epoch_s: int, offset_bytes: int) -> None:
    """Make the times in a file system that mke2fs has made of ``tree`` those of ``make_correction``; it begins at
    ``offset_bytes`` of ``target``. Raises PrerequisiteError."""
    _correct(target, list(_entries(tree)), epoch_s, offset_bytes, ())


def _correct(target: Path, entries: Sequence[_Entry], epoch_s: int, offset_bytes: int, surplus: Sequence[str]) -> None:
    """Correct the attributes of ``entries``, and remove the empty directories ``surplus``."""
    environment = environment_at(epoch_s)
    device = f"{target}?offset={offset_bytes}" if offset_bytes else str(target)
    with scratch(target.with_suffix(".debugfs")) as commands:
        inodes = _inodes(device, entries, environment, target)
        removal = "".join(f"rmdir {name}\n" for name in surplus)
        commands.write_text(removal + make_correction(entries, epoch_s, inodes), errors="surrogateescape")
        # It goes on after a command that failed and ends well: the words on stderr, after its own name, tell.
        _, output = _run(["debugfs", "-w", "-f", str(commands), device], environment, target)
    if complaints := output.splitlines()[1:]:
        raise PrerequisiteError(f"build disk {target}: debugfs: {complaints[0]}", "report this version of e2fsprogs")
