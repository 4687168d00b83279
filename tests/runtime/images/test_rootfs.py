"""Looking a path up through layers gives what an overlay mount of them shows."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.images.model import Layer
from runtime.images.rootfs import is_directory, lookup, read_text, resolve
from runtime.unionfs.lookup import OPAQUE_XATTR

pytestmark = pytest.mark.root


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Layer, ...]:
    found = []
    for name in ("bottom", "middle", "top"):
        path = tmp_path / name
        path.mkdir()
        found.append(Layer(f"sha256:{name}", path))
    bottom, middle, top = (layer.path for layer in found)
    for name in ("usr/bin", "run", "etc", "hidden/below", "gone", "merged"):
        (bottom / name).mkdir(parents=True)
    (bottom / "bin").symlink_to("usr/bin")
    (bottom / "var").mkdir()
    (bottom / "var/run").symlink_to("/run")
    (bottom / "usr/bin/tool").write_text("old tool")
    (bottom / "etc/file").write_text("bottom")
    (bottom / "gone/file").write_text("x")
    (bottom / "hidden/below/file").write_text("x")
    (bottom / "run/pid").write_text("7")
    (bottom / "loop").symlink_to("loop")
    (middle / "usr/bin").mkdir(parents=True)
    (middle / "usr/bin/tool").write_text("new tool")
    (middle / "hidden").mkdir()
    os.setxattr(middle / "hidden", OPAQUE_XATTR, b"y")
    (middle / "merged").mkdir(mode=0o700)
    os.mknod(top / "gone", stat.S_IFCHR, os.makedev(0, 0))
    return tuple(found)


def test_the_topmost_version_is_found(layers: tuple[Layer, ...]) -> None:
    assert read_text("/usr/bin/tool", layers) == "new tool"
    assert read_text("/usr/bin/tool", layers[:1]) == "old tool"
    assert read_text("/etc/file", layers) == "bottom"
    assert lookup("/merged", layers) == layers[1].path / "merged"


def test_links_are_followed_inside_the_image(layers: tuple[Layer, ...]) -> None:
    assert resolve("/bin/tool", layers) == "/usr/bin/tool"
    assert read_text("/bin/tool", layers) == "new tool"
    assert read_text("/var/run/pid", layers) == "7"
    assert resolve("/bin/../bin/new/name", layers) == "/usr/bin/new/name"
    assert is_directory("/bin", layers)


def test_whiteouts_and_opaque_directories_hide(layers: tuple[Layer, ...]) -> None:
    assert lookup("/gone", layers) is None
    assert lookup("/gone/file", layers) is None
    assert lookup("/hidden/below/file", layers) is None
    assert lookup("/hidden", layers) == layers[1].path / "hidden"
    assert read_text("/gone/file", layers[:2]) == "x"


def test_a_link_to_itself_is_an_error(layers: tuple[Layer, ...]) -> None:
    with pytest.raises(UsageError, match="more than 40 links"):
        lookup("/loop", layers)


def test_what_is_no_text_is_not_opened(layers: tuple[Layer, ...]) -> None:
    """An image's /etc/passwd is read by root, before anything confines it."""
    etc = layers[2].path / "etc"
    etc.mkdir()
    os.mkfifo(etc / "pipe")
    os.mknod(etc / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # zeros without end
    for name, target in (("magic", "/proc/self/environ"), ("out", "../" * 20 + "etc/passwd"), ("host", "/etc/passwd")):
        (etc / name).symlink_to(target)
    for name in ("pipe", "device", "magic", "out", "host", "."):
        assert read_text(f"/etc/{name}", layers) == "", name


def test_a_text_without_bounds_and_links_without_end_are_errors(layers: tuple[Layer, ...]) -> None:
    with (layers[0].path / "etc/long").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="read /etc/long of the image: it has more than"):
        read_text("/etc/long", layers)
    with pytest.raises(UsageError, match="/loop: more than 40 links in the image"):
        read_text("/loop", layers)


def test_what_is_not_there(layers: tuple[Layer, ...]) -> None:
    assert lookup("/nowhere/at/all", layers) is None
    assert read_text("/nowhere", layers) == ""
    assert not is_directory("/etc/file", layers)
