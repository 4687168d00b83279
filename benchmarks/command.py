"""How every benchmark ends: an error that is meant for a person is its message, as the tasks print it, and an interrupt
is none."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from runtime.errors import TestbedError


def perform(main: Callable[[], None]) -> None:
    """Call ``main``; a TestbedError ends the process with its message on standard error and its exit code."""
    try:
        main()
    except TestbedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would kill the interpreter while it ends
        sys.exit(130)
