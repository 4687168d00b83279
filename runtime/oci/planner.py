"""Run the planner, an interpreter that stays for a while because its start takes longer than its work.

A client that finds no planner starts one (launcher/client/planner.c), which serves that call and then listens for
others. A planner keeps nothing of its first caller's and no state of any container, so killing it loses nothing. It
serves only its own user's clients, which are in the same namespaces and of the same version as the planner.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from runtime.errors import TestbedError, in_words
from runtime.oci.caller import Caller, CallerGone, receive_request
from runtime.oci.cli import serve
from runtime.planners import peer

_IDLE_S = 60.0
_LONGEST_IDLE_S = 86400.0
_SPARE_DESCRIPTORS = 16
# systemd passes sockets on from this descriptor on (sd_listen_fds(3)).
_FIRST_PASSED = 3


def idle_s(text: str) -> float:
    """Return for how many seconds an idle planner stays, from TESTBED_PLANNER: a number, or ``off`` for not at all."""
    if text == "off":
        return 0.0
    with suppress(ValueError):
        if 0 <= (seconds := float(text)) <= _LONGEST_IDLE_S:
            return seconds
    return _IDLE_S


def _is_waited_for() -> bool:
    """Tell whether conmon has adopted us: it adopts what its children leave, and when its container has ended it waits
    for all of them; podman 5 waits for conmon. The next client, which is podman's, starts a planner that stays."""
    try:
        with open(f"/proc/{os.getppid()}/comm", "rb") as name:
            return name.read() == b"conmon\n"
    except OSError:
        return False


def answer(connection: socket.socket, before_waiting: Callable[[], None] = lambda: None) -> None:
    """Serve one client to its end; its errors do not reach the planner. ``before_waiting`` is explained at Caller."""
    with connection:
        pid, user = peer(connection)
        if user != os.geteuid():
            return
        with suppress(CallerGone, TestbedError):
            if not _has_descriptors():
                return
            request = receive_request(connection, pid, before_waiting)
            if request is None:  # another planner asks whether we are still there
                return connection.sendall(b"\0")
            caller = Caller(connection, request, before_waiting)
            try:
                serve(caller)
            except CallerGone:
                raise
            except BaseException as error:
                _tell_fault(caller, error)


def _has_descriptors() -> bool:
    """Tell whether enough descriptors are left to serve a client; a client refused at once can do without us."""
    spare: list[int] = []
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        while len(spare) < _SPARE_DESCRIPTORS:
            spare.append(os.dup(0))
            if spare[0] < limit // 2:  # all or nearly all above it are free
                return True
        return True
    except OSError:
        return False
    finally:
        for descriptor in spare:
            os.close(descriptor)


def _tell_fault(caller: Caller, error: BaseException) -> None:
    """Report an internal error of ours with its place in the source, and end the client."""
    import traceback

    frame = traceback.extract_tb(error.__traceback__)[-1]
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, (TestbedError, OSError)):
        words = in_words(error)
    if not caller.ended:
        caller.say(2, f"error: internal: {words} ({os.path.basename(frame.filename)}:{frame.lineno})\n")
        caller.finish(1)


def main(arguments: Sequence[str]) -> int:
    """Serve the client at descriptor 3 and then those that connect (arguments: SECONDS NAME DIRECTORY...), or, when
    activated by systemd, those that connect to its socket (argument: SECONDS)."""
    seconds = idle_s(arguments[0])
    if len(arguments) == 1:
        if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
            print("error: planner: no socket was passed on (sd_listen_fds(3))", file=sys.stderr)
            return 1
        from runtime.oci.resident import stay

        stay(socket.socket(fileno=_FIRST_PASSED), seconds, lambda: True)
        return 0
    os.set_inheritable(_FIRST_PASSED, False)
    answer(socket.socket(fileno=_FIRST_PASSED))
    if not seconds or _is_waited_for():
        return 0
    from runtime.oci.resident import Socket, own_directory, stay  # the first client does not wait for these imports

    directory = own_directory(arguments[2:])
    if directory is None:
        return 0
    name = Socket(directory, arguments[1])
    if (listening := name.listen()) is not None:
        try:
            stay(listening, seconds, name.is_ours)
        finally:
            name.remove()
    return 0
