"""Descriptors that a container gets from the caller, and those of it that others get: terminal, listener, pidfd."""

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

_MAX_PRESERVED = 90  # above them are the plan's own descriptors


def check_preserved(number: int, listening: int = 0) -> None:
    """Raise UsageError for more descriptors, with those of a service manager, than are passed on."""
    if number < 0 or listening + number > _MAX_PRESERVED:
        raise UsageError(f"--preserve-fds {number}: at most {_MAX_PRESERVED} are passed on")


def pass_on(descriptor: int, path: str, name: str) -> None:
    """Send a descriptor to who listens at the socket ``path``, with ``name`` as the message, and close ours.

    Raises UsageError.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.connect(path)
            socket.send_fds(channel, [name.encode()], [descriptor])
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"send {name} to the socket {path}: {why}") from error
    finally:
        os.close(descriptor)


def pass_listener(descriptor: int, config: Config, record: Record, pid: int, word: str) -> None:
    """Send the seccomp listener of the process ``pid``, with the state that the runtime-spec describes ("Container
    Process State"); ``word`` is the container's status."""
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
    """Write a process id where somebody waits for it; a link in its place is replaced, not followed. ``writer`` is who
    does it."""
    directory, name = os.path.split(path)
    return s.Replace(path, os.path.join(directory, f".{name[:200]}-{writer}"), str(pid).encode(), 0o644)


@contextmanager
def pid_file_refused(path: str) -> Iterator[None]:
    """Raise UsageError for the pid file that cannot be written."""
    try:
        yield
    except StepError as error:
        if not isinstance(error.failed, s.Replace):
            raise
        raise UsageError(f"write the pid file {path}: {os.strerror(error.errno)}") from error
