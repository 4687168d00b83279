"""Commands that come to a project's holder: what it does for those who ask, and for those who ask badly."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import json

from runtime.errors import UsageError
from runtime.launcher import frames
from runtime.plan.steps import Plan
from runtime.spec import Process
from testbed.projects.commands import MOST_BYTES, CommandServer, Received, Refusal, Request
from testbed.qemu.port import COUNT, HEADER, NUMBERS, Port, pack
from tests.testbed.served_port import served_port, shell
from tests.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where a holder takes commands for one service, each a script for a shell."""
    with served_port(tmp_path) as port:

        def reach(wanted: Request) -> tuple[Port, Plan]:
            if wanted.service != "web":
                raise UsageError(f"there is no service {wanted.service}", "there is web")
            return port, shell(*wanted.process.args)

        with CommandServer(tmp_path / "commands", reach):
            yield tmp_path / "commands"
    assert not (tmp_path / "commands").exists()


def connect(path: Path, *words: str, service: str = "web") -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(path))
    connection.settimeout(20)
    if words:
        connection.sendall(pack(0, frames.START, json.encode(Request(service, Process(words)))))
    return connection


def await_end(connection: socket.socket) -> tuple[bytes, int, bytes]:
    """Return what a program wrote, and its last frame's kind and content."""
    received, written = Received(connection), b""
    while True:
        _, kind, content = received.next()
        if kind in (frames.ENDED, frames.FAILED):
            return written, kind, content
        if kind == frames.OUTPUT:
            written += content
            connection.sendall(pack(0, frames.TAKEN, COUNT.pack(len(content))))


def test_who_asks_gets_output_and_status(path: Path) -> None:
    with connect(path, "head -c 200000 /dev/zero; exit 3") as one, connect(path, "exit 4") as other:
        assert await_end(other) == (b"", frames.ENDED, NUMBERS.pack(4, 0))
        assert await_end(one) == (bytes(200000), frames.ENDED, NUMBERS.pack(3, 0))


def test_what_cannot_be_is_said(path: Path) -> None:
    with connect(path, "true", service="db") as one:
        assert json.decode(await_end(one)[2], type=Refusal) == Refusal("there is no service db", "there is web")
    with connect(path, "true", "nowhere") as one:
        assert json.decode(await_end(one)[2], type=Refusal).errno == 2
    for wrong, why in ((b"{}", "missing required field"), (b"{", "truncated")):
        with connect(path) as one:
            one.sendall(pack(0, frames.START, wrong))
            assert why in json.decode(await_end(one)[2], type=Refusal).message
    for wrong in (pack(0, frames.INPUT, b"x"), HEADER.pack(0, 1, MOST_BYTES + 1)):
        with connect(path) as one:
            one.sendall(wrong)
            assert one.recv(1) == b"", "it is not talked to"
    with connect(path, f"exit {'0' * frames.PLAN_BYTES}") as one:
        assert "more than the guest takes" in json.decode(await_end(one)[2], type=Refusal).message
    with connect(path, "exit 5") as one:
        assert await_end(one)[2] == NUMBERS.pack(5, 0)


def test_whoever_goes_takes_the_program_along(path: Path) -> None:
    with connect(path, "echo $$; exec sleep 100") as one:
        received = Received(one)
        while (frame := received.next())[1] != frames.OUTPUT:
            pass
        pid = int(frame[2])
        assert Path(f"/proc/{pid}").exists()
    until(lambda: not Path(f"/proc/{pid}").exists())
