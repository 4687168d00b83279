"""Images that mean harm to who builds on them: whatever their links, devices and names say, nothing outside changes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import UsageError, WorkloadError
from runtime.images.layers import walk
from runtime.images.model import Image
from runtime.images.rootfs import TEXT_LIMIT_BYTES
from runtime.images.store import Store

pytestmark = pytest.mark.root

Build = Callable[[str], Image]

# OUT is a directory of the host, IN one of the image. Each gives /link in the image.
_LINKS = {
    "absolute": "ln -s OUT /link",
    "relative": "ln -s ../../../../../../../../..OUT /link",
    "root": "ln -s / /root-link && ln -s root-linkOUT /link",
    "magic root": "ln -s /proc/self/root/proc/1/rootOUT /link",
    "magic directory": "ln -s /proc/self/cwdOUT /link",
    "descriptor": "ln -s /proc/self/fd/3 /link",
    "circle": "ln -s link /link",
    "pipe": "mkfifo /link",
    "device": "mknod /link c 1 3",
}
_USES = (
    "COPY file /link",
    "COPY file /link/",
    "COPY file /link/deep/file",
    "COPY dir /link",
    "COPY --chown=alice dir /link/file/..",
    "WORKDIR /link",
    "WORKDIR /link/deep/..",
    "RUN rm -rf /srv && mv /etc /old && ln -s OUT /etc && ln -s OUT /srv",
    "RUN for n in dev proc sys etc; do mv /$n /old-$n && ln -s OUT /$n; done; true",
    "RUN rm /link; ln -s OUT/file /link; echo changed > /x",
)


def seen(folder: Path) -> list[tuple[str, int, int, int, bytes]]:
    """All of a tree but for when it was read: what an attack could change."""
    return [
        (name, status.st_mode, status.st_mtime_ns, status.st_ctime_ns, content(folder / name, status))
        for name, status in walk(folder)
    ]


def content(path: Path, status: os.stat_result) -> bytes:
    return path.read_bytes() if stat.S_ISREG(status.st_mode) else b""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that has what a builder likes to remove, write or read."""
    folder = tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    for name in ("file", "hosts", "hostname", "resolv.conf", "x"):
        (folder / name).touch()
    (folder / "passwd").write_text("outsider:x:4242:4242::/:/bin/sh\n")
    (folder / "group").write_text("outsiders:x:4242:\n")
    (folder / "dir").mkdir()
    return folder


@pytest.mark.parametrize("use", _USES)
@pytest.mark.parametrize("link", _LINKS.values(), ids=_LINKS)
def test_no_instruction_leaves_the_root(build_text: Build, context: Path, outside: Path, link: str, use: str) -> None:
    (context / "file").write_text("from the context")
    (context / "dir/sub").mkdir(parents=True)
    (context / "dir/file").write_text("from the context")
    before = seen(outside)
    text = f"FROM tiny\nRUN {link}\n{use}\nRUN true\n".replace("OUT", str(outside))
    try:
        build_text(text)
    except (UsageError, WorkloadError) as error:
        assert "Dockerfile:3: " in error.message or "Dockerfile:4: " in error.message
    assert seen(outside) == before


def test_a_run_that_replaces_the_directory_of_bound_files_has_nothing_removed_outside(
    build_text: Build, store: Store, tiny: Image, outside: Path
) -> None:
    """Without an /etc of the image's the runtime's own can be moved away, mounts and all."""
    with store.building(print), store.scratch() as scratch:
        shutil.copytree(tiny.layers[0].path, scratch / "root", symlinks=True)
        shutil.rmtree(scratch / "root/etc")
        store.tag("bare", tiny.config, (store.add_layer(scratch / "root", "bare"),))
    before = seen(outside)
    image = build_text(f"FROM bare\nRUN mv /etc /old && ln -s {outside} /etc\n")
    assert seen(outside) == before
    assert os.readlink(image.layers[-1].path / "etc") == str(outside)


@pytest.mark.parametrize("link", ["absolute", "relative", "root", "magic root", "magic directory"])
@pytest.mark.parametrize("use", ["USER outsider", "USER 0:outsiders", "COPY --chown=outsider file /x"])
def test_no_account_is_read_from_outside(build_text: Build, context: Path, outside: Path, link: str, use: str) -> None:
    (context / "file").write_text("x")
    made = " && ".join(
        _LINKS[link]
        .replace("/link", f"/etc/{name}")
        .replace("OUT", f"{outside}/{name}")
        .replace("/root-link", f"/r-{name}")
        for name in ("passwd", "group")
    )
    made = made.replace("-s root-link", "-s /r-passwd", 1).replace("-s root-link", "-s /r-group", 1)
    with pytest.raises(UsageError, match=r"Dockerfile:3: .*'outsiders?' is not in the image's"):
        build_text(f"FROM tiny\nRUN rm /etc/passwd /etc/group && {made}\n{use}\n")


@pytest.mark.parametrize(
    "made", ["mkfifo /etc/passwd", "mknod /etc/passwd c 1 5", "ln -s passwd /etc/passwd", "ln -s /dev/zero /etc/passwd"]
)
def test_an_account_file_that_is_none_is_not_waited_for(build_text: Build, made: str) -> None:
    with pytest.raises(UsageError, match="Dockerfile:3: "):
        build_text(f"FROM tiny\nRUN rm /etc/passwd && {made}\nUSER alice\n")


def test_an_account_file_without_end_is_refused(build_text: Build) -> None:
    text = f"FROM tiny\nRUN dd if=/dev/zero of=/etc/passwd bs=1 count=1 seek={TEXT_LIMIT_BYTES}\nUSER alice\n"
    with pytest.raises(UsageError, match="Dockerfile:3: read /etc/passwd of the image: it has more than"):
        build_text(text)


def test_a_working_directory_in_a_descriptor_of_the_host_is_refused(build_text: Build) -> None:
    """CVE-2024-21626: a descriptor that the caller's shell left open leads out of the root."""
    leaked = os.open("/", os.O_RDONLY)
    held = os.dup2(leaked, 77, inheritable=True)
    try:
        with pytest.raises(WorkloadError, match="Dockerfile:3: RUN true: "):
            build_text(f"FROM tiny\nWORKDIR /proc/self/fd/{held}\nRUN true\n")
    finally:
        os.close(leaked)
        os.close(held)


@pytest.mark.no_cover
@pytest.mark.parametrize("copy", ["COPY circle /x", "COPY . /x", "COPY dir/ /x/"])
def test_links_in_circles_and_depth_in_a_context(
    build_text: Build, context: Path, request: pytest.FixtureRequest, copy: str
) -> None:
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", *map(str, context.parent.iterdir())]))
    (context / "circle").symlink_to("circle")
    deep = context / "dir"
    for _ in range(15):
        deep = deep / "/".join("d" * 100)
        deep.mkdir(parents=True)
    (deep / "circle").symlink_to(".")
    try:
        build_text(f"FROM tiny\n{copy}\n{copy}\n")
    except UsageError as error:
        assert "Dockerfile:2: COPY circle: " in error.message and copy == "COPY circle /x"


def test_copying_writes_through_no_hard_link(build_text: Build, context: Path) -> None:
    (context / "file").write_text("new")
    image = build_text("FROM tiny\nRUN echo old > /a && ln /a /b\nCOPY file /a\nRUN cat /a /b > /both\n")
    assert (image.layers[1].path / "b").read_text() == "old\n"
    assert (image.layers[-1].path / "both").read_text() == "newold\n"


def test_a_name_that_says_deleted_in_a_layer_is_refused_with_its_line(build_text: Build, context: Path) -> None:
    (context / ".wh.passwd").touch()
    with pytest.raises(UsageError, match=r"Dockerfile:2: /etc/\.wh\.passwd: in a layer's tar"):
        build_text("FROM tiny\nCOPY . /etc/\n")
