"""The log of a command, as ``--log`` and ``--log-format`` ask for it: engines read the last error from it."""

from __future__ import annotations

import json
import os
import time

from msgspec import Struct

from runtime.errors import UsageError

# Links, but the system's own.
_STREAMS = ("/dev/stdout", "/dev/stderr")


class Log(Struct, frozen=True):
    """A descriptor that is appended to, and how: ``json`` or ``text``."""

    descriptor: int
    format: str

    def write(self, level: str, message: str) -> None:
        """Append one line. What cannot be written is lost: the command's own outcome matters more."""
        from runtime.output import printable  # its expressions cost a millisecond, and few commands log

        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"level": level, "msg": printable(message), "time": stamp})
        if self.format == "text":
            line = f'time="{stamp}" level={level} msg={json.dumps(printable(message))}'
        try:
            os.write(self.descriptor, f"{line}\n".encode())
        except OSError:
            return


def open_log(path: str, form: str) -> Log:
    """Open, or make, the log. A link is not followed, for its directory may be everybody's. Raises UsageError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return Log(os.open(path, flags | (0 if path in _STREAMS else os.O_NOFOLLOW), 0o644), form)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte
        link = os.path.islink(path) if "\0" not in path else False
        why = "it is a link, which is not followed" if link else getattr(error, "strerror", None) or error
        raise UsageError(f"open the log {path}: {why}") from error
