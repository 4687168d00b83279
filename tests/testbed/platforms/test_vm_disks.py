"""Guests' disks for real: shared or their own, ext4, past the page cache; snapshots, the way back, clones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import TestbedError, UsageError
from runtime.images.model import Image, ImageConfig, Layer
from runtime.spec import Link, Process, Resources, Spec
from testbed.lab import BRIDGE, Lab
from testbed.platforms.protocol import Instance
from testbed.platforms.vm import VmPlatform
from testbed.qemu import snapshots
from testbed.qemu.variants import Disk, Variant
from tests.testbed.platforms.answers import fetch

pytestmark = [pytest.mark.root, pytest.mark.vm]

TIMEOUT_S = 60.0
# With a query: note it on the disk and in memory. Always: what both hold, and what the root is.
_NOTE = """\
#!/bin/sh
printf 'Content-Type: text/plain\\n\\n'
if [ -n "$QUERY_STRING" ]; then echo "$QUERY_STRING" >/note; echo "$QUERY_STRING" >/dev/shm/note; sync; fi
cat /note /dev/shm/note
grep ' / ' /proc/mounts
"""


@pytest.fixture
def layer(layer: Path) -> Path:
    script = layer / "srv" / "cgi-bin" / "note"
    script.parent.mkdir(parents=True)
    script.write_text(_NOTE)
    script.chmod(0o755)
    for command in ("sync", "httpd"):
        (layer / "bin" / command).symlink_to("busybox")
    return layer


Platforms = Callable[[Disk], VmPlatform]


@pytest.fixture
def platforms(home: Path, run_name: str, cgroup_parent: str, scratch: Path, layer: Path) -> Iterator[Platforms]:
    """Make a platform with a kind of disk, prepared for the layer's image; nothing of it may be left at the end."""
    made: list[VmPlatform] = []

    def make(disk: Disk) -> VmPlatform:
        platform = VmPlatform(scratch, BRIDGE, run_name, Variant("vm-disk", disk=disk))
        made.append(platform)
        platform.prepare_images(
            [Image("test/busybox", f"sha256:{run_name}", ImageConfig(), (Layer("sha256:b", layer),))]
        )
        return platform

    try:
        yield make
        for platform in made:
            platform.close()
        assert [path for path in (home / "guest").iterdir() if path.name.startswith(".partial")] == []
    finally:
        for platform in made:
            platform.close()


def instance(layer: Path, link: Link, tmp_path: Path, name: str) -> Instance:
    process = Process(args=("httpd", "-f", "-p", "80", "-h", "/srv"), env=("PATH=/bin",))
    spec = Spec(process, (str(layer),), name, Resources(128 << 20, 1.0, 24), link=link)
    return Instance(name, 0, {"web": spec}, tmp_path / f"{name}.log")


def note(link: Link, text: str = "") -> list[str]:
    """Have the guest note ``text``, if any; what disk and memory hold then, and the line of its root's mount."""
    return fetch(f"http://{link.address.ip}/cgi-bin/note?{text}", TIMEOUT_S).splitlines()


@contextmanager
def running(platform: VmPlatform, one: Instance) -> Iterator[None]:
    platform.start(one)
    platform.started(one, TIMEOUT_S)
    try:
        yield
    finally:
        platform.stop(one)


def base_of(home: Path, run_name: str) -> tuple[Path, int, int]:
    """The disk that all clones share, when it was written to last, and how much of it is in use."""
    (path,) = (home / "guest" / "disks").glob(f"{run_name}*.ext4")
    return path, path.stat().st_mtime_ns, path.stat().st_blocks


def test_ext4_read_only_is_shared_past_the_page_cache(
    platforms: Platforms, home: Path, layer: Path, tmp_path: Path, run_name: str
) -> None:
    platform = platforms(Disk(cache="none", file_system="ext4"))
    facts = platform.facts()
    assert facts["root"] == "overlay on tmpfs, over ext4"
    assert facts["disk"] == {"format": "raw", "cache": "none", "file_system": "ext4", "io": "native"}
    before = base_of(home, run_name)
    with Lab() as lab:
        one = instance(layer, link := lab.link(0, 0), tmp_path, "a0")
        with running(platform, one):
            disk, memory, mount = note(link, "hello")
            (pid,) = platform.cgroup(one).pids()
            flags = open_flags(pid, before[0])
    assert (disk, memory) == ("hello", "hello")
    assert mount.split()[2] == "overlay"
    assert flags and all(flag & os.O_DIRECT for flag in flags)
    assert all(flag & os.O_ACCMODE == os.O_RDONLY for flag in flags)
    assert base_of(home, run_name) == before


def open_flags(pid: int, path: Path) -> list[int]:
    """The flags with which a process has a file open, from its /proc/PID/fdinfo."""
    descriptors = [fd for fd in Path(f"/proc/{pid}/fd").iterdir() if os.path.realpath(fd) == os.path.realpath(path)]
    texts = [Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text() for fd in descriptors]
    return [int(text.split("flags:", 1)[1].split()[0], 8) for text in texts]


def test_a_disk_of_its_own_goes_back_and_is_cloned(
    platforms: Platforms, home: Path, layer: Path, tmp_path: Path, run_name: str
) -> None:
    platform = platforms(Disk("qcow2", "writethrough", "ext4"))
    assert platform.facts()["root"] == "ext4, on a qcow2 clone of its own"
    before = base_of(home, run_name)
    with Lab() as lab:
        links = [lab.link(0, number) for number in range(2)]
        source, clone = (instance(layer, link, tmp_path, f"a{number}") for number, link in enumerate(links))
        with running(platform, source):
            disk, memory, mount = note(links[0], "first")
            assert (disk, memory) == ("first", "first")
            assert mount.split()[:3] == ["/dev/vda", "/", "ext4"]
            assert "rw" in mount.split()[3].split(",")

            pids = platform.cgroup(source).pids()
            platform.take_snapshot(source, "one")
            assert note(links[0], "second")[:2] == ["second", "second"]
            platform.revert(source, "one")
            assert note(links[0])[:2] == ["first", "first"], "disk and memory are as they were"
            assert platform.alive(source)
            assert platform.cgroup(source).pids() == pids, "it is the same QEMU, in its cgroup"
            with pytest.raises(UsageError, match="one of that name"):
                platform.take_snapshot(source, "one")
            with pytest.raises(UsageError, match=r"revert to snapshot two of a0: there is none\n.*it has: one"):
                platform.revert(source, "two")
            with pytest.raises(UsageError, match="letters, digits"):
                platform.take_snapshot(source, 'o"ne')

            platform.clone(source, clone)
            platform.started(clone, TIMEOUT_S)
            note(links[0], "source")
            assert cold_note(links[1]) == "first", "the clone has its source's disk, of when it was cloned"
            assert note(links[1], "clone")[0] == "clone"
            assert note(links[0])[0] == "source", "what the clone writes is its own"
            platform.stop(clone)
            assert note(links[0])[0] == "source", "the source goes on when the clone has gone"

            made = own_disks(home, "a0")
            with pytest.raises(UsageError, match="the name is in use"):
                platform.clone(source, source)
            assert len(own_disks(home, "a0") - made) == 1, "what the source goes on in, and no clone"
            assert note(links[0])[0] == "source"
    assert base_of(home, run_name) == before


def cold_note(link: Link) -> str:
    """What the disk of a guest that has noted nothing since its start holds; its memory holds nothing."""
    disk, mount = note(link)
    assert " / " in mount
    return disk


def own_disks(home: Path, name: str) -> set[Path]:
    """All that was made as a disk of the guest's own, and is there."""
    return set((home / "guest").glob(f".partial-*/*-{name}.qcow2"))


def test_a_start_that_fails_early_leaves_no_disk(
    platforms: Platforms, home: Path, layer: Path, tmp_path: Path, scratch: Path
) -> None:
    platform = platforms(Disk("qcow2", file_system="ext4"))
    (scratch / "vm-disk" / "1").touch()  # where its first start has its files
    with Lab() as lab, pytest.raises(TestbedError, match=r"start virtual machine a0: .*File exists"):
        platform.start(instance(layer, lab.link(0, 0), tmp_path, "a0"))
    assert own_disks(home, "a0") == set()


def test_a_shared_disk_cannot_be_snapshot_or_cloned(platforms: Platforms, layer: Path, tmp_path: Path) -> None:
    platform = platforms(Disk())
    with Lab() as lab:
        one = instance(layer, lab.link(0, 0), tmp_path, "a0")
        with running(platform, one):
            with pytest.raises(TestbedError, match=r"take snapshot one of a0: .*\n.*qcow2 disk of its own"):
                platform.take_snapshot(one, "one")
            with pytest.raises(TestbedError, match=r"clone the disk of a0: .*\n.*qcow2 disk of its own"):
                platform.clone(one, instance(layer, lab.link(0, 1), tmp_path, "a1"))
            assert platform.alive(one)


def test_a_file_system_that_cannot_be_written_is_no_disk_of_its_own() -> None:
    with pytest.raises(UsageError, match="erofs"):
        Disk("qcow2")
    assert replace(Disk(), format="qcow2", file_system="ext4").file_system == "ext4"


def test_what_is_asked_of_libvirt_is_escaped() -> None:
    assert "<name>a&lt;b</name>" in snapshots.snapshot_xml("a<b")
    assert 'file="/x/&quot;y&quot;"' in snapshots.freeze_xml(Path('/x/"y"'))
