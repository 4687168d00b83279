"""One running gauge on a rung: a program that does what it is told, timed from outside by the host's clock."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from runtime.errors import WorkloadError
from runtime.images.merging import directories
from runtime.images.model import Image
from runtime.images.process import image_process
from runtime.spec import Link, Resources, Spec
from testbed.interruption import defer_signals
from testbed.platforms.protocol import Instance, Metered, Platform

SERVICE = "gauge"
PORT = 7078
# It ends so long after its start, whoever has forgotten it.
_LIFE_S = 600
_ANSWER_S = 30.0
_CONNECT_S = 1.0
_PAUSE_S = 0.0005
_LINE_BYTES = 64
# Room for a machine's kernel, too, which needs 80 MiB.
RESOURCES = Resources(memory_bytes=128 << 20, cpus=1.0, pids=64)


def make_instance(label: str, application: int, image: Image, link: Link, log: Path) -> Instance:
    """Return what to start for a gauge."""
    process = image_process(image, command=(str(link.address.ip), str(PORT), str(_LIFE_S)), environment={})
    layers = directories(image.layers)
    return Instance(label, application, {SERVICE: Spec(process, layers, SERVICE, resources=RESOURCES, link=link)}, log)


class Gauge:
    """A context manager: within it the gauge runs and answers. ``started_s`` is the time from the request until its
    program ran.

    Raises WorkloadError when it does not answer within ``timeout_s`` of its start.
    """

    def __init__(self, platform: Platform, instance: Instance, timeout_s: float) -> None:
        self._platform = platform
        self._timeout_s = timeout_s
        self._undo = ExitStack()
        self._connection: socket.socket | None = None
        self.instance = instance
        self.started_s = 0.0

    def __enter__(self) -> Gauge:
        with ExitStack() as undo:
            undo.callback(self._platform.stop, self.instance)
            with defer_signals():
                self._platform.start(self.instance)
            phases = self._platform.started(self.instance, self._timeout_s).of(SERVICE)
            self.started_s = (phases["first_process"] - phases["request"]) / 1e9
            self._connection = undo.enter_context(self._connect())
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _connect(self) -> socket.socket:
        link = self.instance.spec.link
        assert link is not None
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            try:
                return _open(str(link.address.ip))
            except OSError as error:
                problem = error.strerror or str(error)
            if not self._platform.alive(self.instance):
                raise self._failure(f"it has ended: {self._platform.ending(self.instance)}")
            if time.monotonic() > deadline_s:
                raise self._failure(problem)
            time.sleep(_PAUSE_S)

    def _failure(self, problem: str) -> WorkloadError:
        return WorkloadError(
            f"gauge {self.instance.name} on {self._platform.name} does not answer: {problem}",
            f"its console: {self.instance.log}",
        )

    def ask(self, command: str) -> int:
        """Have it do something; return how many nanoseconds passed until it had been done and said so.

        Raises WorkloadError when it answers anything but the command, as it does when the kernel refused it a child.
        """
        assert self._connection is not None
        try:
            return _exchange(self._connection, command)
        except OSError as error:
            raise self._failure(f"{command}: {error.strerror or error}") from error

    def read_memory_bytes(self) -> int | None:
        """Return what is charged to its cgroup, or what it has where that is not a process; None where nobody counts
        it."""
        with suppress(OSError):
            if isinstance(self._platform, Metered):
                return self._platform.meter(self.instance).memory_bytes()
            return self._platform.cgroup(self.instance).memory_bytes()
        return None


def _open(address: str) -> socket.socket:
    """Return a connection over which it has answered once: before that, what is connected to may be on its way out.
    Raises OSError."""
    with ExitStack() as undo:
        connection = undo.enter_context(socket.create_connection((address, PORT), timeout=_CONNECT_S))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_ANSWER_S)
        _exchange(connection, "ping")
        undo.pop_all()
    return connection


def _exchange(connection: socket.socket, command: str) -> int:
    """Say a command and wait for its echo; return the nanoseconds. Raises OSError, also for another answer."""
    line = f"{command}\n".encode()
    answer = b""
    began_ns = time.monotonic_ns()
    connection.sendall(line)
    while not answer.endswith(b"\n") and len(answer) < _LINE_BYTES:
        if not (piece := connection.recv(_LINE_BYTES)):
            raise ConnectionResetError("it closed the connection")
        answer += piece
    took_ns = time.monotonic_ns() - began_ns
    if answer != line:
        raise OSError(f"it answered {answer[:_LINE_BYTES]!r}")
    return took_ns
