"""What COPY, ADD and WORKDIR make, file by file, beside what buildah makes of the same Dockerfile."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.builder.build import build
from runtime.builder.image_files import ImageFiles
from runtime.images.store import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("buildah"), reason="buildah is not installed"),
]

BASE = "FROM scratch AS base\n" + "".join(f"COPY busybox /bin/{name}\n" for name in ("sh", "mkdir", "ln", "echo"))
TEXT = f"""{BASE}ENV PATH=/bin
FROM base AS st
RUN mkdir -p /out/d && echo 1 > /out/d/f && ln -s d /out/ld && ln -s d/f /out/lf
FROM base
COPY a.txt /c1/
COPY a.txt /c2
COPY a.txt b.txt /c3/
COPY dir /c4
COPY dir /c5/
COPY dir/ /c6/in
COPY dlink /c7
COPY flink /c8
COPY flink /c9/
COPY d* /c10/
COPY . /c11/
COPY empty /c12
COPY dir/* /c13/
COPY --chmod=640 a.txt dir /c14/
COPY --chown=3:4 dir /c15
WORKDIR /w/x
COPY a.txt .
COPY a.txt ./b
COPY dir sub/
ADD t.tar /t1
ADD t.tar /t2/
ADD t.tar a.txt /t3/
ADD dir /t4
COPY --from=st /out /s1
COPY --from=st /out/ld /s2
COPY --from=st /out/lf /s3
COPY --from=st /out/lf /s4/
COPY --from=st /out/l* /s5/
COPY --from=st /out/d/f /out/ld /s6/
RUN ln -s /w/x /lw && ln -s /nowhere/y /ln
COPY a.txt /lw/via
COPY a.txt /ln/via
USER 5
COPY a.txt /u1
WORKDIR /w/u
"""
# What buildah's RUN leaves in an image.
LEFT = ("dev", "etc", "proc", "run", "sys")


@pytest.fixture
def filled(context: Path) -> Path:
    for name in ("a.txt", "b.txt", "dir/x", "dir/sub/y", ".hidden/h", "other/o"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(name)
    (context / "dir/link").symlink_to("x")
    (context / "dlink").symlink_to("dir")
    (context / "flink").symlink_to("a.txt")
    (context / "empty").mkdir()
    (context / "dir/sub").chmod(0o700)
    (context / "dir/x").chmod(0o751)
    shutil.copy("/bin/busybox", context / "busybox")
    with tarfile.open(context / "t.tar", "w") as archive:
        archive.add(context / "dir", ".")
    (context / "Dockerfile").write_text(TEXT)
    return context


def described(path: Path, name: str) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"{name} -> {os.readlink(path)} {status.st_uid}:{status.st_gid}"
    content = f"{path.read_bytes()[:40]!r}" if path.is_file() else ""
    return f"{name} {status.st_mode:o} {status.st_uid}:{status.st_gid} {content}"


@pytest.fixture
def theirs(filled: Path, tmp_path: Path) -> Iterator[list[str]]:
    """The files of the image that buildah makes."""
    storage = ("--root", str(tmp_path / "root"), "--runroot", str(tmp_path / "run"), "--storage-driver", "overlay")

    def buildah(*words: str) -> str:
        done = subprocess.run(["buildah", *storage, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
    buildah("build", "--quiet", "--isolation=chroot", "--network=host", *limits, "--tag", "compared", str(filled))
    container = buildah("from", "compared")
    root = Path(buildah("mount", container))
    try:
        yield sorted(described(path, str(path.relative_to(root))) for path in root.rglob("*"))
    finally:
        buildah("umount", container)
        buildah("rm", container)
        buildah("rmi", "--all", "--force")


def test_every_file_is_where_and_as_buildah_has_it(filled: Path, store: Store, theirs: list[str]) -> None:
    image = build(store, context=filled, dockerfile=filled / "Dockerfile", reference="x", progress=print)
    files = ImageFiles(image.layers, "it").entries(Path("/"))
    ours = sorted(described(entry.path, entry.name) for entry in files)
    assert ours == [line for line in theirs if not line.startswith(LEFT)]
    assert len(ours) > 100
