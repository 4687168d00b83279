"""How checks are done inside a guest, where there is no pytest: one after the other, and a command of the runtime in a
process of its own. tests/runtime/check_guest.py boots the guest and reads what is printed."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence


def captured(act: Callable[[], int]) -> tuple[int, str]:
    """The exit status and the output of ``act``, done in a process forked from this one; it may execute a program."""
    with tempfile.TemporaryFile("w+") as output:
        pid = os.fork()
        if pid == 0:
            status = 99
            try:
                for descriptor in (1, 2):
                    os.dup2(output.fileno(), descriptor)
                status = act()
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        return status, output.read()


def work_off(checks: Sequence[Callable[[], None]]) -> None:
    """Do the checks, and print a line for each: its name, how long it took, and ``ok`` or the traceback as JSON."""
    for check in checks:
        began = time.monotonic()
        try:
            check()
        except BaseException:
            outcome = json.dumps(traceback.format_exc())
        else:
            outcome = "ok"
        print(f"check: {check.__name__}: {time.monotonic() - began:.1f} s: {outcome}", flush=True)


def be_init(act: Callable[[], None]) -> None:
    """Do ``act`` in a child, and reap whoever is orphaned, until it ends."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(0)
    while os.wait()[0] != child:
        continue
    fcntl.ioctl(1, 0x5409, 1)  # TCSBRK: what is in the serial port when PID 1 ends is lost
