"""A port for commands whose other end is the launcher's server, on the host, without a machine between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.launcher import STATIC_BINARY
from runtime.plan.encode import encode
from runtime.plan.steps import CheckExecutable, CloseOnExec, Exec, Plan, ServeCommands
from testbed.qemu.port import Port
from tests.waiting import until

PATH = "/bin:/usr/bin"


def shell(script: str, program: str = "sh") -> Plan:
    """Return the plan of a shell, or of another program that takes a script so."""
    exec_ = Exec((program, "-c", script), (f"PATH={PATH}",), PATH)
    return Plan((CloseOnExec(), CheckExecutable(program, PATH), exec_))


def _copy(read: Callable[[], bytes], write: Callable[[bytes], object]) -> None:
    with suppress(OSError):
        while data := read():
            while data:
                sent = write(data)
                data = data[sent if isinstance(sent, int) else len(data) :]


@contextmanager
def served_port(tmp_path: Path) -> Iterator[Port]:
    """Within, a port is served; a terminal is in place of the device that both ends have."""
    master, slave = os.openpty()
    tty.setraw(slave)
    plan = tmp_path / "plan"
    plan.write_bytes(encode(Plan((ServeCommands((os.ttyname(slave),)),))))
    one = Port(tmp_path / "port")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as qemu:
        qemu.connect(str(one.path))
        server = subprocess.Popen([STATIC_BINARY, str(plan)], start_new_session=True)
        copies = (
            (lambda: qemu.recv(4096), lambda data: os.write(master, data)),
            (lambda: os.read(master, 4096), qemu.sendall),
        )
        threads = [threading.Thread(target=_copy, args=pair, daemon=True) for pair in copies]
        for thread in threads:
            thread.start()
        try:
            until(lambda: one.connected)
            yield one
        finally:
            one.close()
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            os.close(slave)
            os.close(master)
