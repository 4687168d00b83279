"""Hold what the commands share: the containers that an invocation is about, where its output goes, and how it ends."""

from __future__ import annotations

import json
import os
import sys
import time
from errno import EACCES, EAGAIN, EBADF, EDQUOT, EFBIG, EIO, ENOSPC, EPIPE
from pathlib import Path

from msgspec import Struct

from runtime.errors import TestbedError, UsageError, in_words
from runtime.launcher import StepError
from runtime.oci.caller import Caller
from runtime.oci.state import StateDir, default_root
from runtime.plan import steps as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

# These are symbolic links, but the system made them.
_STREAMS = ("/dev/stdout", "/dev/stderr")
_UNWRITTEN = (EACCES, EAGAIN, EBADF, EDQUOT, EFBIG, EIO, ENOSPC, EPIPE)


class Ending(Struct, frozen=True):
    """How an invocation ends: with the exit ``status`` or, if that is 0, with that of the client's last ``steps``. The
    client asks for ``more`` after them."""

    status: int = 0
    steps: tuple[s.Step, ...] = ()
    more: tuple[str, ...] = ()


class Invocation:
    """One command line and the caller that performs it."""

    def __init__(self, options: argparse.Namespace, caller: Caller) -> None:
        self.options, self.caller = options, caller
        self.log = ""
        self.began = time.monotonic()

    def open_log(self) -> None:
        """Have the client open the log, if one is wanted, before it does anything else. Raises UsageError."""
        log = self.options.log
        if not log:
            return
        path = log if log in _STREAMS else self.caller.path(log)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | (0 if log in _STREAMS else os.O_NOFOLLOW)
        try:
            self.caller.perform(s.Open(path, s.LOG_FD, flags))
        except StepError as error:
            why = "it is a link, which is not followed" if os.path.islink(path) else os.strerror(error.errno)
            raise UsageError(f"open the log {log}: {why}") from error
        self.log = path

    @property
    def root(self) -> Path:
        """Return the state's root."""
        if self.options.root:
            return Path(self.caller.path(self.options.root))
        return default_root(self.caller.environment)

    def container(self, name: str | None = None) -> StateDir:
        """Return the container with this name, or by default the one that the command line names."""
        return StateDir(self.root, self.options.id if name is None else name)

    def print(self, text: str) -> None:
        """Print the text on standard output."""
        self.caller.say(1, text)

    def warn(self, text: str) -> None:
        """Write a warning to the log, if there is one, because an engine may take our standard error for the
        container's; otherwise write it to standard error."""
        if self.log:
            self._write("warning", text)
        else:
            self._say(f"warning: {text}")

    def tell_error(self, error: Exception) -> None:
        """Print the error on standard error, and also log it if there is a log."""
        self._say(f"error: {in_words(error)}")
        if self.log:
            self._write("error", in_words(error))

    def debug(self, message: str) -> None:
        """With ``--debug``, write a message to the log or, without a log, to standard error."""
        if self.options.debug and self.log:
            self._write("debug", message)
        elif self.options.debug:
            self._say(f"debug: {message}")

    def _say(self, text: str) -> None:
        from runtime.output import printable

        self.caller.say(2, f"{printable(text)}\n")

    def _write(self, level: str, message: str) -> None:
        """Append one line to the log. A line that cannot be written is lost: the command's own outcome matters more."""
        from runtime.output import printable

        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"level": level, "msg": printable(message), "time": stamp})
        if self.options.log_format == "text":
            line = f'time="{stamp}" level={level} msg={json.dumps(printable(message))}'
        self.caller.later(s.WriteDescriptor(s.LOG_FD, f"{line}\n".encode(), tolerate=_UNWRITTEN))


def job(*words: str) -> tuple[str, ...]:
    """Return the command that runs a job in an interpreter in the client's own process tree (runtime.oci.jobs)."""
    here = os.path.dirname(os.path.abspath(__file__))
    return (sys.executable, "-I", "-S", f"{here}/interpreter.py", PACKAGES[0], "job", *words)


# The directory of the installed packages; interpreter.py sets it from its first argument.
PACKAGES = [""]


def run_job(caller: Caller, *words: str) -> None:
    """Run a job to its end. If it fails, raises TestbedError with the message that it printed."""
    done = caller.execute(job(*words))
    if done.status != 0:
        message, _, hint = done.errors.strip().partition("\n  ")
        raise TestbedError(message, hint)


def started_job(caller: Caller, given: dict[int, int], *words: str) -> int:
    """Start a job beside the container and return its process id; ``given`` maps its descriptor numbers to ours."""
    from runtime.launcher import Launch

    variables = tuple(f"{name}={value}" for name, value in caller.environment.items())
    plan = s.Plan((s.CloseOnExec(3 + len(given)), s.Exec(job(*words), variables)))
    with Launch(plan, given, caller) as launch:
        launch.next()
    return launch.pid
