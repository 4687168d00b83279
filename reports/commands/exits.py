"""How the body of a task becomes a task: its errors become one message and an exit code."""

from __future__ import annotations

import functools
import os
import select
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from invoke.exceptions import Exit

from runtime.errors import PrerequisiteError, TestbedError
from runtime.output import printable


def is_reader_gone() -> bool:
    """Whether standard output is a pipe whose reader has closed it."""
    watched = select.poll()
    watched.register(1, 0)
    return any(event & select.POLLERR for _, event in watched.poll(0))


def leave_reader() -> int:
    """Have what is still to be printed go nowhere; return the status that a shell gives a program ended by SIGPIPE."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    return 128 + signal.SIGPIPE


def reporting(body: Callable[..., int]) -> Callable[..., None]:
    """Turn a body that returns an exit code into a task body: errors become one message and their exit code."""

    @functools.wraps(body)
    def run(*arguments: Any, **keywords: Any) -> None:
        from runtime.streams import open_streams
        from testbed.interruption import Interrupted, raise_on_signals

        open_streams()
        try:
            with raise_on_signals():
                code = body(*arguments, **keywords)
        except TestbedError as error:
            raise Exit(f"error: {printable(str(error))}", code=error.exit_code) from error
        except Interrupted as interrupted:
            raise Exit(f"interrupted ({interrupted}); all that was started has been removed", code=130) from interrupted
        except Exception as error:
            if isinstance(error, BrokenPipeError) and is_reader_gone():
                raise Exit(code=leave_reader()) from error
            if isinstance(error, PermissionError) and os.geteuid() != 0:
                denied = PrerequisiteError(f"{error.filename or body.__name__}: {error.strerror}", "run it as root")
                raise Exit(f"error: {printable(str(denied))}", code=denied.exit_code) from error
            traceback.print_exc()
            raise Exit(f"internal error: {error}", code=1) from error
        if code:
            raise Exit(code=code)

    return run
