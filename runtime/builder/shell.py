"""Open a shell in the state of a build: what a RUN would find, with the same network, user and variables."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack

from runtime.builder.running import Command, start_command
from runtime.builder.runs import Runs
from runtime.builder.stage import DEFAULT_SHELL, Stage
from runtime.images.store import Store
from runtime.images.user import resolve_user


def open_shell(store: Store, stage: Stage, where: str, progress: Callable[[str], None]) -> int:
    """Run the stage's shell on our standard input and output, and return its exit status; its changes are forgotten.

    Until it ends, the store is locked for other builds. Raises WorkloadError if the image has no shell.
    """
    program = (stage.config.shell or DEFAULT_SHELL)[0]
    command = Command((program,), resolve_user(stage.config.user, stage.layers), where, program)
    with store.building(progress), store.scratch() as scratch, Runs() as runs, ExitStack() as undo:
        # An interrupt is for what runs in the shell.
        undo.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.SIG_IGN))
        shell = start_command(stage, command, scratch, runs, undo, stdout=1, stdin=0)
        return shell.wait() or 0
