"""What containers write: all of it is read, a part of it is stored, and the measuring process holds none of it."""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.output import HEAD_BYTES, TAIL_BYTES
from runtime.spec import Process, Spec, User
from testbed.lab import Lab
from testbed.platforms.container import ContainerPlatform
from testbed.platforms.output import ContainerOutput
from testbed.platforms.protocol import Instance
from tests.waiting import until

pytestmark = pytest.mark.root

GIB = 1 << 30


@pytest.fixture
def platform(cgroup_parent: str) -> Iterator[ContainerPlatform]:
    with Lab() as lab:
        platform = ContainerPlatform(cgroup_parent.rpartition("/")[2], lab)
        yield platform
        platform.close()


def instance(script: str, layer: Path, log: Path, uid: int = 0) -> Instance:
    process = Process(args=("sh", "-c", script), user=User(uid, uid))
    return Instance("writer", 0, {"writer": Spec(process, (str(layer),), "writer")}, log)


def run(platform: ContainerPlatform, one: Instance) -> str:
    """Run it to its end, as an application does: its exit status, and its log as it is then."""
    platform.start(one)
    until(lambda: not platform.alive(one), 120)
    ending = platform.ending(one)
    shown = one.log.read_text(errors="replace")
    platform.stop(one)
    assert one.log.read_text(errors="replace")[:100] == shown[:100]
    return ending


@pytest.mark.parametrize("byte", [b"\0", b"\n", b"x"], ids=["zeros", "empty lines", "one long line"])
def test_a_gibibyte_of_output_costs_neither_memory_nor_disk(
    byte: bytes, platform: ContainerPlatform, busybox_layer: Path, tmp_path: Path
) -> None:
    (busybox_layer / "much").write_bytes(byte * (GIB >> 6))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    script = "echo begin; i=0; while [ $i -lt 64 ]; do cat /much; i=$((i + 1)); done; echo; echo end; exit 7"
    one = instance(script, busybox_layer, tmp_path / "log")
    assert run(platform, one) == "exit status 7"
    text = one.log.read_bytes()
    assert text.startswith(b"begin\n") and text.endswith(b"\nend\n")
    assert len(text) <= HEAD_BYTES + TAIL_BYTES + 100
    match = re.search(rb"\n\[\.\.\. (\d+) bytes are not stored here \.\.\.\]\n", text)
    assert match and int(match[1]) == GIB + len("begin\n\nend\n") - len(text) + len(match[0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB


def test_the_log_is_not_the_containers_output(platform: ContainerPlatform, busybox_layer: Path, tmp_path: Path) -> None:
    (busybox_layer / "bin" / "truncate").symlink_to("busybox")
    script = "truncate -s 200G /proc/self/fd/1; dd if=/dev/zero of=/proc/self/fd/1 bs=1 seek=100G count=1; echo on"
    one = instance(script, busybox_layer, tmp_path / "log")
    run(platform, one)
    assert one.log.stat().st_size < 1000 and one.log.read_text().endswith("on\n")


def test_a_workload_that_is_not_root_may_open_its_output(
    platform: ContainerPlatform, busybox_layer: Path, tmp_path: Path
) -> None:
    one = instance("echo opened > /dev/stdout && echo error > /dev/stderr", busybox_layer, tmp_path / "log", uid=1000)
    assert run(platform, one) == "exit status 0"
    assert one.log.read_text() == "opened\nerror\n"


def test_a_full_disk_is_told_and_the_workload_goes_on(
    platform: ContainerPlatform, busybox_layer: Path, tmp_path: Path
) -> None:
    one = instance("dd if=/dev/zero bs=1048576 count=8; sleep 100", busybox_layer, Path("/dev/full"))
    platform.start(one)
    try:
        until(lambda: not platform.alive(one), 10)
        assert "No space left" in platform.ending(one)
    finally:
        platform.stop(one)


def test_a_line_is_there_soon_and_a_stream_of_lines_wakes_nobody_for_each(tmp_path: Path) -> None:
    output = ContainerOutput()
    one = Instance("one", 0, {"one": Spec(Process(args=("true",)), (), "one")}, tmp_path / "log")
    writing = output.open(one)
    try:
        os.write(writing, b"first\n")
        until(lambda: (tmp_path / "log").read_text() == "first\n", 5)
        used_s = time.thread_time() - time.process_time()
        for _ in range(1000):
            os.write(writing, b"line\n")
            time.sleep(0.0005)
        used_s += time.process_time() - time.thread_time()
        assert used_s < 0.5 * 0.1, "reading took a tenth of a processor"
        output.flush("one")
        assert (tmp_path / "log").read_text() == "first\n" + "line\n" * 1000
    finally:
        os.close(writing)
        output.end("one")
        output.close()
