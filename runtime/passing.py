"""Descriptors that a container gets from the caller, and those of it that others get: terminal, listener, pidfd."""

from __future__ import annotations

import json
import os

from runtime.config.types import Config
from runtime.errors import UsageError
from runtime.state import Record, oci_state

_MAX_PRESERVED = 90  # above them are the plan's own descriptors


def check_preserved(number: int, listening: int = 0) -> None:
    """Raise UsageError for more descriptors, with those of a service manager, than are passed on."""
    if number < 0 or listening + number > _MAX_PRESERVED:
        raise UsageError(f"--preserve-fds {number}: at most {_MAX_PRESERVED} are passed on")


def passed_descriptors(preserve_fds: int) -> dict[int, int]:
    """The standard streams, and of the descriptors above them those that the caller left open for us to pass on."""
    open_ones = {int(name) for name in os.listdir("/proc/self/fd")}
    return {n: n for n in range(3 + preserve_fds) if n < 3 or (n in open_ones and _inherited(n))}


def _inherited(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:  # the one that listed the directory
        return False


def pass_on(descriptor: int, path: str, name: str) -> None:
    """Send a descriptor to who listens at the socket ``path``, and close ours. Raises UsageError."""
    from runtime.console import hand_over

    try:
        hand_over(descriptor, path, name)
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
