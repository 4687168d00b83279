"""The command ladder shell: be in a chroot, a jail, a sandbox, and see what is there and what is not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from runtime import container
from runtime.console import relay
from runtime.errors import PrerequisiteError, UsageError
from runtime.lease import lease
from runtime.output import shortened
from runtime.spec import Process, Resources, Spec, User
from testbed.images import build_images
from testbed.lab import Lab, link_of
from testbed.platforms.protocol import Instance
from testbed.platforms.rungs.needs import check_rung
from testbed.platforms.rungs.platform import RungPlatform
from testbed.rungs.model import Isolation, Rung
from testbed.rungs.read import find_rung, read_history
from testbed.scenario.model import load
from testbed.services.specs import make_specs

_SCENARIO = "idle"
_SHELL = ("busybox", "sh")
_WAIT = ("busybox", "sleep", "2147483647")
_START_S = 20.0
_MOST_SHOWN = 300


def open_shell(scenarios: Path, name: str, tell: Callable[[str], None]) -> int:
    """Open a shell on a rung, in the image of the scenario idle; return its exit status once it ends.

    At a terminal it has one of its own. Raises UsageError for a rung that is not made of walls, PrerequisiteError for
    what this host has not.
    """
    rung = find_rung(name)
    if rung.isolation is None:
        made = ", ".join(one.name for one in read_history().rungs if one.isolation is not None)
        raise UsageError(f"ladder shell {name}: it is no rung of containers that is made of walls", f"one of {made}")
    if os.geteuid() != 0:
        raise PrerequisiteError(f"ladder shell {name}: needs root", "run it with sudo")
    check_rung(rung)
    scenario = load(_SCENARIO, scenarios)
    images = build_images(scenario, tell)
    (whole, *_) = make_specs(scenario, images, [link_of(0, 0)])
    run = f"shell-{os.getpid()}"
    with lease(run) as scratch, ExitStack() as undo:
        lab = Lab()
        platform = RungPlatform(rung, run, scratch, lab)
        undo.callback(platform.close)
        platform.prepare(scenario, images)
        undo.enter_context(lab)
        one = Instance(f"a0-{name}", 0, {"shell": _choose_spec(whole, name)}, scratch / "log")
        platform.start(one)
        undo.callback(platform.stop, one)
        platform.started(one, _START_S)
        tell(shortened(describe(rung, rung.isolation), _MOST_SHOWN))
        # An interrupt is for what runs in the shell.
        undo.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.SIG_IGN))
        return _run(platform, one)


def _choose_spec(whole: Spec, name: str) -> Spec:
    """Return what waits while the shell runs beside it: as root, who has something to try, with the scenario's limits
    but those that a shell's children would meet."""
    env = (*(entry for entry in whole.process.env if not entry.startswith("PS1=")), f"PS1={name}:\\w\\$ ", "TERM=linux")
    process = Process(_WAIT, env, "/", User(), no_new_privileges=False)
    return replace(whole, process=process, hostname=name, resources=Resources(256 << 20, 1.0, 256))


def _run(platform: RungPlatform, one: Instance) -> int:
    if not os.isatty(0):
        return container.reap(platform.join(one, _SHELL, (0, 1, 2)).pid) or 0
    joined = platform.join(one, _SHELL, (), terminal=True)
    try:
        relay(joined.master)
    finally:
        os.close(joined.master)
    return container.reap(joined.pid) or 0


def describe(rung: Rung, isolation: Isolation) -> str:
    """Return in one line what a rung isolates and what it shares with the host."""
    kinds = isolation.namespaces
    asked = {
        "files (chroot)" if isolation.root == "chroot" else "files": isolation.root != "host",
        "processes": "pid" in kinds,
        "network (one address)" if isolation.network == "address" else "network": isolation.network != "host",
        "host name": "uts" in kinds,
        "shared memory": "ipc" in kinds,
        "users": "user" in kinds,
        "how long it has been up": "time" in kinds,
        "capabilities": isolation.capabilities != "all",
        "system calls": isolation.system_calls != "all",
        "devices": isolation.devices != "host",
        "settings of the kernel": isolation.masks,
        " and ".join(isolation.limits) or "resources": bool(isolation.limits),
        f"disk space ({isolation.quota} MiB)" if isolation.quota else "disk space": bool(isolation.quota),
    }
    apart, shared = (", ".join(name for name, has in asked.items() if has is side) for side in (True, False))
    return (
        f"{rung.name} ({rung.title}): isolated: {apart or 'nothing'}; not: {shared or 'nothing'}, and never the kernel"
    )
