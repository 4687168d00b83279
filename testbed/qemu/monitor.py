"""QEMU's own control protocol, through libvirt: for what libvirt has no call of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.errors import TestbedError
from testbed.host.libvirt_library import load_libvirt

_PAUSE_S = 0.001


def ask(domain: Any, command: str, arguments: Mapping[str, object] | None = None, files: Sequence[int] = ()) -> Any:
    """Perform a command of the QEMU Machine Protocol on a running virDomain and return its answer.

    Open ``files`` go along, as ``getfd`` needs. Raises TestbedError with what QEMU said.
    """
    libvirt = load_libvirt()
    import libvirt_qemu

    text = json.dumps({"execute": command, "arguments": dict(arguments or {})})
    try:
        if files:
            answer, _ = libvirt_qemu.qemuMonitorCommandWithFiles(domain, text, list(files), 0)
        else:
            answer = libvirt_qemu.qemuMonitorCommand(domain, text, 0)
    except libvirt.libvirtError as error:
        raise TestbedError(f"ask QEMU of {domain.name()} to {command}: {error}") from error
    reply = json.loads(answer)
    if "error" in reply:
        raise TestbedError(f"ask QEMU of {domain.name()} to {command}: {reply['error'].get('desc', reply['error'])}")
    return reply["return"]


def await_migration(domain: Any, timeout_s: float) -> None:
    """Wait until a migration, out or in, has ended. Raises TestbedError when it failed or took too long."""
    deadline_s = time.monotonic() + timeout_s
    while (state := ask(domain, "query-migrate")).get("status") != "completed":
        if state.get("status") in ("failed", "cancelled"):
            reason = state.get("error-desc", "QEMU gives no reason; its log may")
            raise TestbedError(f"move the state of {domain.name()}: {reason}")
        if time.monotonic() > deadline_s:
            raise TestbedError(f"move the state of {domain.name()}: not done within {timeout_s:g} s")
        time.sleep(_PAUSE_S)
