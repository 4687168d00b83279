"""Pass descriptors on: the caller's to a container, and a container's terminal, listener and pidfd to others."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from runtime.config.types import Config
from runtime.errors import UsageError
from runtime.launcher import StepError
from runtime.oci.state import Record, oci_state
from runtime.plan import steps as s

_MAX_PRESERVED = 90  # the plan's own descriptors have the numbers above these


def check_preserved(number: int, listening: int = 0) -> None:
    """Raise UsageError if ``number``, or its sum with the service manager's ``listening`` sockets, is out of range."""
    if number < 0 or listening + number > _MAX_PRESERVED:
        raise UsageError(f"--preserve-fds {number}: at most {_MAX_PRESERVED} are passed on")


def pass_on(descriptor: int, path: str, name: str) -> None:
    """Send a descriptor to the listener at the socket ``path``, with ``name`` as the message, and close our copy.

    Raises UsageError.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.connect(path)
            socket.send_fds(channel, [name.encode()], [descriptor])
    except (OSError, ValueError) as error:  # ValueError: the path has a NUL byte
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"send {name} to the socket {path}: {why}") from error
    finally:
        os.close(descriptor)


def pass_listener(descriptor: int, config: Config, record: Record, pid: int, word: str) -> None:
    """Send the seccomp listener of the process ``pid`` together with the state that the runtime-spec describes
    ("Container Process State"); ``word`` is the container's status."""
    assert config.linux.seccomp is not None
    state = {
        "ociVersion": config.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": config.linux.seccomp.listener_metadata,
        "state": oci_state(record, word),
    }
    pass_on(descriptor, config.linux.seccomp.listener_path, json.dumps(state))


def pid_file_step(path: str, pid: int, writer: int) -> s.Step:
    """Return the step that writes a process id to a pid file. It replaces a symbolic link instead of following it;
    ``writer`` is the pid of the process that performs the step."""
    directory, name = os.path.split(path)
    return s.Replace(path, os.path.join(directory, f".{name[:200]}-{writer}"), str(pid).encode(), 0o644)


@contextmanager
def pid_file_refused(path: str) -> Iterator[None]:
    """Raise UsageError when the pid file cannot be written."""
    try:
        yield
    except StepError as error:
        if not isinstance(error.failed, s.Replace):
            raise
        raise UsageError(f"write the pid file {path}: {os.strerror(error.errno)}") from error
