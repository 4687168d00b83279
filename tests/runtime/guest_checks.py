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
from contextlib import suppress

_KERNEL_RECORDS = 40


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


def _kernel_said(since_s: float) -> str:
    """The last of what the kernel has logged since then, by CLOCK_MONOTONIC: whom it killed, and for what."""
    records: list[str] = []
    with suppress(OSError):
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            while True:  # a record a read, until there is none left (EAGAIN)
                head, _, text = os.read(log, 8192).decode(errors="replace").partition(";")
                if int(head.split(",")[2]) >= since_s * 1e6:
                    records.append(text.partition("\n")[0])
        finally:
            os.close(log)
    return "\n".join(records[-_KERNEL_RECORDS:])


def work_off(checks: Sequence[Callable[[], None]]) -> None:
    """Do the checks, and print a line for each: its name, how long it took, and ``ok``, or as JSON the traceback and
    what the kernel said meanwhile."""
    for check in checks:
        began = time.monotonic()
        try:
            check()
        except BaseException:
            outcome = json.dumps(f"{traceback.format_exc()}\nThe kernel: {_kernel_said(began) or 'nothing'}")
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
