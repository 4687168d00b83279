"""Which accelerator guests get: KVM if our own guest boots under it, else TCG. A /dev/kvm alone proves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.atomic import partial
from runtime.errors import PrerequisiteError
from runtime.lease import lease
from runtime.plan.guest import FIRST_USERSPACE
from runtime.plan.steps import Message, Plan
from vm_images.guest import COMMAND_LINE, Guest

KVM_DEVICE = Path("/dev/kvm")
# Under a KVM that works the message comes within a second, under the emulator within three.
TIME_LIMIT_S = 10.0


@dataclass(frozen=True)
class Verdict:
    """The accelerator, ``kvm`` or ``tcg``, and the ``reason`` for it; ``boot_s`` is what KVM took, if it booted."""

    accelerator: str
    reason: str
    boot_s: float | None = None

    def label(self, platform: str) -> str:
        """How figures call the guests of ``platform`` under this accelerator."""
        return f"{platform} ({'KVM' if self.accelerator == 'kvm' else 'TCG, emulated'})"


# The probe's QEMU is in no cgroup of ours by which it could be found after us.
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")


def probe_command(qemu: Path, kernel: Path, initrd: Path) -> list[str]:
    """QEMU under KVM with a machine like a guest's, but neither disk nor network; the console is its output."""
    return [
        *(str(qemu), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-accel", "kvm", "-machine", "q35", "-cpu", "max", "-m", "256M", "-smp", "1"),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", COMMAND_LINE, "-serial", "stdio"),
    ]


def _read_until(process: subprocess.Popen[bytes], mark: bytes, deadline_s: float) -> tuple[bool, bytes]:
    """Read its output until ``mark``, its end, or the deadline (time.monotonic)."""
    assert process.stdout is not None
    output = b""
    while mark not in output:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline_s - time.monotonic()))
        data = os.read(process.stdout.fileno(), 65536) if ready else b""
        if not data:
            return False, output
        output += data
    return True, output


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing"


def probe_kvm(qemu: Path, guest: Guest, time_limit_s: float = TIME_LIMIT_S) -> Verdict:
    """Boot the guest's kernel under KVM as far as PID 1's first message. Takes at most ``time_limit_s``."""
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return Verdict("tcg", f"no {KVM_DEVICE}" if not KVM_DEVICE.exists() else f"no access to {KVM_DEVICE}")
    with lease(f"probe-{os.getpid()}") as scratch:
        initrd = scratch / "initrd"
        initrd.write_bytes(guest.initrd(Plan((Message(FIRST_USERSPACE),))))
        began_s = time.monotonic()
        process = subprocess.Popen(
            [*_ENDS_WITH_US, *probe_command(qemu, guest.kernel.image, initrd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            booted, output = _read_until(process, FIRST_USERSPACE.encode(), began_s + time_limit_s)
            took_s = time.monotonic() - began_s
            exited = process.poll() is not None or (not booted and took_s < time_limit_s)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    if booted:
        return Verdict("kvm", f"the guest kernel reached its first process under KVM in {took_s:.2f} s", took_s)
    if exited:
        return Verdict("tcg", f"QEMU ended under KVM before the guest's first process: {_last_line(output)}")
    return Verdict(
        "tcg",
        f"{KVM_DEVICE} opens, but under KVM the guest kernel did not reach its first process in "
        f"{time_limit_s:g} s (last console line: {_last_line(output)})",
    )


def _identity(qemu: Path, guest: Guest) -> str:
    """What the verdict depends on: QEMU's binary, the guest, the host's kernel and processor."""
    status = qemu.stat()
    cpu = re.search(r"^model name.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    parts = (str(qemu), status.st_mtime_ns, status.st_size, guest.digest, os.uname().release, cpu and cpu.group())
    device = KVM_DEVICE.stat().st_rdev if KVM_DEVICE.exists() else None
    access = os.access(KVM_DEVICE, os.R_OK | os.W_OK)
    return hashlib.sha256(repr((*parts, device, access)).encode()).hexdigest()


def verdict(guest_root: Path, qemu: Path, guest: Guest) -> Verdict:
    """The accelerator for this host, probed once and kept below ``guest_root``."""
    try:
        path = guest_root / f"accelerator-{_identity(qemu, guest)[:24]}.json"
    except OSError as error:
        raise PrerequisiteError(f"look at {qemu}: {error.strerror}", "install qemu-system-x86") from error
    if path.exists():
        return Verdict(**json.loads(path.read_text()))
    found = probe_kvm(qemu, guest)
    with partial(path) as unfinished:
        unfinished.write_text(json.dumps(asdict(found)) + "\n")
    return found
