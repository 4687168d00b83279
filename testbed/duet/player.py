"""The process that measures one platform of a run, trial by trial as the run tells it to.

    python -m testbed.duet.player

It has a lab, a lease and a platform of its own, and shares with the others of the run only the host and the moment. It
ends, with all that it has started, when its run does.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import IO

from msgspec import to_builtins

from runtime import libc
from runtime.errors import TestbedError, UsageError
from runtime.lease import CGROUP_ROOT, lease
from testbed.duet.messages import (
    PROTOCOL,
    Begin,
    Done,
    Ended,
    Go,
    Met,
    Part,
    Play,
    Ready,
    Said,
    describe_error,
    receive_order,
    send,
)
from testbed.host.noise import Watch
from testbed.images import build_images
from testbed.interruption import Interrupted, Undo, raise_on_signals
from testbed.manifest import image_record
from testbed.measures.context import RunContext
from testbed.measures.trials import run_trials
from testbed.request import NOT_AGAIN, Options, check_options, choose_machines
from testbed.results import RunFolder, Trial
from testbed.services.copies import mount_copies
from testbed.stage import describe_platform, set_stage

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class _Folder(RunFolder):
    """The run's folder as a player sees it: trials go to the run, which records them."""

    def __init__(self, path: Path, news: IO[bytes]) -> None:
        super().__init__(path, {})
        self._news = news

    def append(self, trial: Trial) -> None:
        send(self._news, Ended(trial))


def make_options(part: Part, folder: Path) -> Options:
    """Return what a run of this one platform would be asked for."""
    return Options(
        scenario=part.scenario,
        platforms=(part.platform,),
        accelerator=part.accelerator,
        measures=part.measures,
        trials=1,
        quick=part.quick,
        seed=part.seed,
        out=folder,
        scenarios=Path(part.scenarios),
        command=(),
        connect=part.connect,
        base=part.base,
        guest_kernel=part.guest_kernel,
        emulator_cpus=part.emulator_cpus,
        again=NOT_AGAIN,
    )


def play(orders: IO[bytes], news: IO[bytes]) -> None:
    """Prepare the platform, then measure what is ordered until there is nothing more. Raises what these raise."""
    part = receive_order(orders)
    if part is None:
        return
    if not isinstance(part, Part) or part.protocol != PROTOCOL:
        raise UsageError(f"this revision speaks the protocol {PROTOCOL} of players")

    def say(line: str) -> None:
        send(news, Said(line))

    with Undo() as undo:
        scratch = undo.enter_context(lease(part.lease))
        options = make_options(part, scratch)
        request = check_options(options, say)
        machines = choose_machines(options, options.platforms, say)
        images = build_images(request.scenario, say, options.base, request.measures)
        stage = set_stage(undo, part.lease, scratch, options.platforms, request, images, machines, options)
        record = describe_platform(part.platform, stage.platforms[part.platform])
        digests = {name: image_record(image) for name, image in images.items()}
        send(news, Ready(PROTOCOL, record, digests, to_builtins(request.settings)))
        begin = receive_order(orders)
        if not isinstance(begin, Begin):
            return
        undo.enter_context(stage.lab)

        def meet() -> None:
            send(news, Met())
            if not isinstance(receive_order(orders), Go):
                raise Interrupted(signal.SIGTERM)

        context = RunContext(
            request.scenario,
            request.settings,
            images,
            stage.platforms,
            stage.lab,
            _Folder(Path(begin.folder), news),
            options.seed,
            say,
            # The run's other players are below the same cgroup, or descend from the same process.
            Watch(CGROUP_ROOT, os.getppid()),
            meet,
            mount_copies(undo, part.lease, request.scenario, images),
        )
        while isinstance(order := receive_order(orders), Play):
            run_trials(context, order.planned)
            send(news, Done())


def main() -> None:
    """Play, with standard input and output as the pipes; what else is printed goes to standard error."""
    libc.call("prctl", _PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    orders, news = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    try:
        with raise_on_signals():
            play(orders, news)
    except (Interrupted, BrokenPipeError):
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, TestbedError):
            traceback.print_exc()
        send(news, describe_error(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
