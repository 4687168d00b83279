"""How the body of a task becomes a task: its errors become one message and an exit code."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Callable
from typing import Any

from invoke.exceptions import Exit

from runtime.errors import PrerequisiteError, TestbedError
from runtime.output import printable


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
            if isinstance(error, PermissionError) and os.geteuid() != 0:
                denied = PrerequisiteError(f"{error.filename or body.__name__}: {error.strerror}", "run it as root")
                raise Exit(f"error: {printable(str(denied))}", code=denied.exit_code) from error
            traceback.print_exc()
            raise Exit(f"internal error: {error}", code=1) from error
        if code:
            raise Exit(code=code)

    return run
