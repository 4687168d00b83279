"""What the supervisor passes on; what it does besides is tested in a guest (test_vm_containers.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runtime.supervisor import Output


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_each_line_has_its_containers_name(pipe: tuple[int, int]) -> None:
    written: list[bytes] = []
    output = Output("web", pipe[0], written.append)
    os.write(pipe[1], b"testbed: redis: exec\nhalf")
    assert output.take()
    assert written == [b"web: testbed: redis: exec\n"]
    os.write(pipe[1], b" a line\n")
    assert output.take()
    assert written[1:] == [b"web: half a line\n"]


def test_the_rest_is_taken_without_waiting_for_more() -> None:
    written: list[bytes] = []
    read, write = os.pipe()
    output = Output("web", read, written.append)
    os.write(write, b"one\n" * 1000)
    output.rest()  # the writer is there still
    assert b"".join(written) == b"web: one\n" * 1000
    os.write(write, b"no newline")
    os.close(write)
    output.rest()
    assert written[-1] == b"web: no newline\n"
    os.close(read)


def test_a_line_without_an_end_is_passed_on_in_parts() -> None:
    written: list[bytes] = []
    read, write = os.pipe()
    output = Output("web", read, written.append)
    for _ in range(300):
        os.write(write, b"x" * 50_000)
        assert output.take()
    os.close(write)
    output.rest()
    os.close(read)
    lines = b"".join(written).splitlines()
    assert max(map(len, lines)) < 5000 and all(line.startswith(b"web: ") for line in lines)
    assert sum(len(line) - len(b"web: ") for line in lines) == 300 * 50_000
