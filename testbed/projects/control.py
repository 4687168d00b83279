"""Starts and stops projects: what `./invoke up` and `./invoke down` do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import json

from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.lease import STATE_ROOT, is_dead, leases
from runtime.processes import ProcessGone, open_pidfd, send_signal, wait_exit
from runtime.speed import scale
from testbed import leftovers
from testbed.duet.messages import Done, Failed, Inbox, Said, make_error
from testbed.duet.tree import ROOT, without_python_paths
from testbed.host.turn import find_turn
from testbed.platforms import registry
from testbed.projects.holder import Order
from testbed.projects.record import Project, Record, check_name, find
from testbed.projects.stopping import KILL_S, MOST_GRACE_S, write_grace
from testbed.qemu.variants import VARIANTS

Progress = Callable[[str], None]

HOLDER = ("-m", "testbed.projects.holder")
# Containers of ours, and machines that boot for whoever asks for them.
PLATFORMS = ("container", *(name for name, variant in VARIANTS.items() if variant.start == "cold"))
# In which a holder takes down what it has started, once its services have had their time to end.
_END_S = 60.0
_PAUSE_S = 0.02


def check_platform(name: str) -> str:
    """Return the platform as given. Raises UsageError for one that nothing is brought up on."""
    if name not in PLATFORMS:
        registry.check_names((name,))
        raise UsageError(f"--platform {name}: it is for measuring", f"one of {', '.join(PLATFORMS)}")
    return name


def bring_up(order: Order, progress: Progress, *, share: bool = False) -> Project:
    """Start the project that is ordered, wait until it is ready, and return it.

    It runs on when this process has ended. Raises UsageError when it is up already, or when a run is being measured on
    this host that it is not to ``share``; and what the holder failed with, when nothing of it is left.
    """
    check_name(order.project)
    check_platform(order.platform)
    if os.geteuid() != 0:
        raise PrerequisiteError("up needs root: namespaces, cgroups and QEMU", "run it with sudo")
    if (run := find_turn()) and not share:
        raise UsageError(
            f"the run {run} is being measured on this host: what is brought up would disturb it",
            "wait for its end, or do it all the same: --share",
        )
    there = find(order.project)
    if there is not None and not there.alive:
        progress(f"{order.project}: its holder was killed; removing what that left")
        leftovers.remove_run(there.directory.name)
    elif there is not None:
        raise UsageError(f"{order.project} is up already", "./invoke down ends it; --project gives another name")
    _start(order, progress)
    started = find(order.project)
    if started is None or started.record is None:
        raise TestbedError(f"{order.project} has ended already", "somebody has brought it down")
    return started


def _start(order: Order, progress: Progress) -> None:
    """Start the holder and wait for its news. Whoever interrupts meanwhile ends it."""
    holder = subprocess.Popen(
        [sys.executable, *HOLDER],
        cwd=ROOT,
        env=without_python_paths(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # the terminal's end is not its own
    )
    assert holder.stdin and holder.stdout
    try:
        holder.stdin.write(json.encode(order))
        holder.stdin.close()
        inbox = Inbox(holder.stdout)
        while True:
            for message in inbox.read():
                if isinstance(message, Said):
                    progress(message.line)
                elif isinstance(message, Failed):
                    holder.wait(scale(_END_S))
                    raise make_error(message)
                elif isinstance(message, Done):
                    return
    except (EOFError, BrokenPipeError) as error:
        raise TestbedError(
            f"bring {order.project} up: its holder ended with status {holder.wait()}", "what it said is above"
        ) from error
    except BaseException:
        if holder.poll() is None:
            holder.terminate()
            begun = find(order.project)
            record = begun.record if begun is not None else None
            holder.wait(scale(_END_S) if record is None else _limit_end_s(record, record.grace_s))
        raise
    finally:
        holder.stdout.close()


def _limit_end_s(record: Record, grace_s: float) -> float:
    """Return how long a holder may take to end, when each of its services has ``grace_s`` for that."""
    return len(record.members) * (grace_s + scale(KILL_S)) + scale(_END_S)


def bring_down(project: Project, grace_s: float | None = None, root: Path = STATE_ROOT) -> None:
    """Stop a project, also one whose holder was killed; each service has ``grace_s`` to end, or as long as is usual.

    Raises TestbedError when it is not gone after all its time.
    """
    if grace_s is not None and not 0 <= grace_s <= MOST_GRACE_S:  # false for a NaN, too
        raise UsageError(f"--timeout {grace_s:g}: not a time in which a service ends", f"0 to {MOST_GRACE_S:g} seconds")
    lease = project.directory.name
    if project.alive:
        record = project.record
        if record is None:
            raise UsageError(f"{project.name} is just being brought up", "wait for that, or interrupt it")
        try:
            holder = open_pidfd(record.holder, record.ticks)
        except ProcessGone:
            pass  # it has just ended
        else:
            try:
                if grace_s is not None:
                    write_grace(project.directory, grace_s)
                send_signal(holder, signal.SIGTERM)
                each_s = record.grace_s if grace_s is None else grace_s
                limit_s = _limit_end_s(record, each_s)
                if not wait_exit(holder, limit_s):
                    raise TestbedError(
                        f"{project.name}: its holder, process {record.holder}, has not ended within {limit_s:g} s",
                        f"kill -KILL {record.holder} and ./invoke clean",
                    )
            finally:
                os.close(holder)
    deadline_s = time.monotonic() + scale(_END_S)
    while lease in leases(root):
        if is_dead(lease, root):
            leftovers.remove_run(lease)
        elif time.monotonic() > deadline_s:
            raise TestbedError(f"{project.name}: something still holds {project.directory}", "./invoke ps says what")
        time.sleep(_PAUSE_S)
