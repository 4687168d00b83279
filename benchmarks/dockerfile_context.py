"""The build context and the base image of `benchmarks/dockerfile_cases/`, as synthetic as these."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from runtime.builder.build import build
from runtime.images.model import Image
from runtime.images.store import Store

BASE = "base"
_TEXTS = (
    *("a.txt", "b.txt", "c.md", "with space.txt", "ünï.txt", ".dot", ".hidden/h", "other/o", "exec.sh"),
    *("dir/x", "dir/sub/y", "dir/.inside", "deep/a/b/c", "deep/a/d/c", "deep/ab/e/f", "deep/g", "odd/[odd].txt"),
    *("logs/a.log", "logs/b.log", "logs/keep.log", "tree/plain", "tree/sub/y", "modes/suid", "modes/none"),
)
_FOLDERS = ("empty", "dir/void", "modes/sticky", "modes/setgid")
_LINKS = {
    "dlink": "dir",
    "flink": "a.txt",
    "dir/link": "x",
    "tree/link": "plain",
    "tree/lost": "/nowhere",
    "tree/to": "sub",
}
_MODES = {
    **{"dir/sub": 0o700, "dir/x": 0o751, "exec.sh": 0o755, "modes/suid": 0o4755, "modes/none": 0o000},
    **{"modes/sticky": 0o1777, "modes/setgid": 0o2755},
}
_ACCOUNTS = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:100:Alice:/home/alice:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n",
    "group": "root:x:0:\nusers:x:100:\nstaff:x:50:alice\nbob:x:1001:\nalice:x:1000:\n",
}
# What a builder would make to mount over.
_MOUNTED = ("dev", "proc", "sys", "run", "tmp", "etc/hosts", "etc/resolv.conf", "etc/hostname")
_BASE = 'FROM scratch\nCOPY . /\nRUN ["/bin/busybox", "--install", "-s", "/bin"]\nENV PATH=/bin\nCMD ["sh"]\n'


def make_base(store: Store, folder: Path) -> Image:
    """Build the base image in an empty folder: busybox, three users, and what builders mount over."""
    for name in (*_MOUNTED, "bin"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch() if name.startswith("etc/") else path.mkdir()
    for name, text in _ACCOUNTS.items():
        (folder / "etc" / name).write_text(text)
    (folder / "tmp").chmod(0o1777)
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    dockerfile = folder.with_name(f"{folder.name}.Dockerfile")
    dockerfile.write_text(_BASE)
    return build(store, context=folder, dockerfile=dockerfile, reference=BASE, progress=lambda line: None)


def make_context(folder: Path) -> None:
    """Fill an empty folder with what the cases copy."""
    for name in _TEXTS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\n")
    for name in _FOLDERS:
        (folder / name).mkdir()
    for name, target in _LINKS.items():
        (folder / name).symlink_to(target)
    for name, mode in _MODES.items():
        (folder / name).chmod(mode)
    os.setxattr(folder / "exec.sh", "user.test", b"value")
    _make_archives(folder)


def _make_archives(folder: Path) -> None:
    with tarfile.open(folder / "t.tar", "w") as archive:
        archive.add(folder / "dir", ".")
    plain = (folder / "t.tar").read_bytes()
    (folder / "t.tar.gz").write_bytes(gzip.compress(plain, mtime=0))
    (folder / "t.tar.bz2").write_bytes(bz2.compress(plain))
    (folder / "t.tar.xz").write_bytes(lzma.compress(plain))
    zstd = subprocess.run(["zstd", "--quiet", "--stdout"], input=plain, capture_output=True, check=True)
    (folder / "t.tar.zst").write_bytes(zstd.stdout)
    (folder / "plain.gz").write_bytes(gzip.compress(b"no archive\n", mtime=0))
    (folder / "fake.tar").write_text("no archive\n")
    (folder / "named.txt").write_bytes(plain)
    _write_members(
        folder / "owned.tar", (_directory("./", 0o750), _directory("dir/", 0o711), _file("dir/x"), _file("f"))
    )
    linked = (_file("first"), _link("hard", tarfile.LNKTYPE, "first"), _link("soft", tarfile.SYMTYPE, "first"))
    _write_members(folder / "linked.tar", (*linked, _file("made/on/the/way"), _file("/absolute"), _file("./dotted")))
    _write_members(folder / "special.tar", (_link("fifo", tarfile.FIFOTYPE, ""), _file("setuid", 0o4755)))
    _write_members(folder / "empty.tar", ())


def _write_members(path: Path, members: tuple[tarfile.TarInfo, ...]) -> None:
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(member.name.encode().ljust(member.size, b".")))


def _directory(name: str, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, mode, 12, 34
    return member


def _file(name: str, mode: int = 0o640) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uid, member.gid = 20, mode, 12, 34
    return member


def _link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode, member.uid, member.gid = kind, target, 0o640, 12, 34
    return member
