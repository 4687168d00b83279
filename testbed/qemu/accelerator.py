"""Chooses the accelerator of guests by booting our own guest under each, for a /dev/kvm alone proves nothing.

The candidates are KVM and QEMU's translator (TCG) with a thread for each virtual processor or with one for all. KVM
is taken when the guest boots under it, and not slower than under the translator: a KVM that is itself emulated, on a
host without virtualisation, opens and works, but runs instruction by instruction.

The translators need nothing but QEMU, so their results are cached, with the time of the attempt. KVM needs the host's
modules, rights and, in a cloud, the hypervisor below: it is tried anew in each run, which takes 0.3 s where it works.
"""

from __future__ import annotations

import grp
import hashlib
import os
import re
import select
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.atomic import partial
from runtime.errors import PrerequisiteError, UsageError
from runtime.home import is_sealed
from runtime.lease import lease
from runtime.output import QUOTED_LINES, printable, shortened
from runtime.plan.steps import LogLine, Plan
from runtime.speed import factor, scale
from testbed.host.facts import EMULATOR
from testbed.qemu.account import NAME, find_emulator_account, make_guest_account
from testbed.qemu.emulator import read_qemu_version
from vm_images.guest import COMMAND_LINE, Guest
from vm_images.plans.guest import FIRST_USERSPACE

KVM_DEVICE = Path("/dev/kvm")
# In which a translated guest gets to its first process on an idle host; limits of time are made for it. All others
# here are multiplied by how slow the host is (runtime.speed).
_USUAL_BOOT_S = 3.0
# A boot that takes longer hangs; one that works is over when it is, however long it may take.
TIME_LIMIT_S = 120.0
# KVM is no use where it takes longer than the translator. It has twice as long as that, and so long at least.
_LEAST_KVM_LIMIT_S = 2.0
# A KVM that has worked before and does not now is tried again: nested ones do hang now and then.
_TRIES_OF_PROVEN_KVM = 3
# The candidates, the best first, with QEMU's -accel for each.
CANDIDATES = {"kvm": "kvm", "tcg": "tcg,thread=multi", "tcg-single": "tcg,thread=single"}
# What is never chosen for its speed: every instruction is translated by itself, entered and left, and the next looked
# up. It is for the machines that ask for it.
ONE_BY_ONE = "tcg-one-by-one"
_SINGLE_THREADED = ("tcg-single", ONE_BY_ONE)
# QEMU's switch for that became a property of the accelerator in this version.
_PROPERTY_SINCE = (8, 1)
AUTO = "auto"
# What a guest under KVM gets for a processor, the best first: libvirt's mode or model, and QEMU's -cpu for it.
KVM_CPUS = {"host-passthrough": "host", "maximum": "max", "qemu64": "qemu64"}
ON_EMULATED_HOST = " on an emulated host"
HARDWARE_HINT = "`bench --machine reference` has it, emulated; invoke doctor says what this host lacks"
_NAMES = {
    "kvm": "KVM",
    "tcg": "TCG, emulated",
    "tcg-single": "TCG with one thread, emulated",
    ONE_BY_ONE: "TCG instruction by instruction, emulated",
}
# Part of a cached verdict's key: to be raised when its form changes.
_FORMAT = 4
# The results of this process: all platforms of a run go by the same.
_tried: dict[tuple[Path, str], tuple[Attempt, ...]] = {}


class Attempt(Struct, frozen=True):
    """A boot of the guest under one accelerator: ``boot_s`` to its first process, None when it did not get there.

    ``cpu`` is libvirt's CPU mode, or a model: the host's own where the accelerator takes it, else all it can offer.
    ``at`` is when it was tried (UTC), ``console`` what the guest's console showed last when it did not get there.
    """

    accelerator: str
    reason: str
    boot_s: float | None = None
    cpu: str = "maximum"
    at: str = ""
    console: str = ""


class NoGuestBoots(PrerequisiteError):
    """The guest's kernel boots under no accelerator: ``attempts`` are all that were made."""

    def __init__(self, message: str, hint: str, attempts: Sequence[Attempt]) -> None:
        super().__init__(message, hint)
        self.attempts = tuple(attempts)


class Verdict(Struct, frozen=True):
    """The accelerator and the ``reason`` for it; ``boot_s`` and ``cpu`` as in its attempt, ``attempts`` are all.

    ``hardware`` says whether guests run at the processor's own speed.
    """

    accelerator: str
    reason: str
    boot_s: float | None = None
    cpu: str = "maximum"
    hardware: bool = False
    attempts: tuple[Attempt, ...] = ()

    @property
    def single_threaded(self) -> bool:
        """Whether one thread of QEMU is all virtual processors."""
        return self.accelerator in _SINGLE_THREADED

    @property
    def slowness(self) -> float:
        """How many times longer this host takes than limits of time are made for, for a boot or for ordinary work."""
        return max(factor(), (self.boot_s or 0.0) / _USUAL_BOOT_S)

    def label(self, platform: str, hypervisor: str = "") -> str:
        """Return how figures call the guests of ``platform`` under this accelerator, on a host that itself has a
        ``hypervisor`` below."""
        below = ""
        if self.accelerator == "kvm" and not self.hardware:
            below = " without hardware, emulated"
        elif self.accelerator == "kvm" and hypervisor:
            below = ON_EMULATED_HOST if hypervisor == EMULATOR else ", nested"
        return f"{platform} ({_NAMES[self.accelerator]}{below})"


# The probe's QEMU is in no cgroup of ours by which it could be found after us.
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")


def check_accelerator(name: str) -> str:
    """Return the name as given. Raises UsageError for one that is no accelerator."""
    if name not in (AUTO, *CANDIDATES):
        raise UsageError(f"unknown accelerator {name}", f"known accelerators: {', '.join((AUTO, *CANDIDATES))}")
    return name


def accelerator_options(qemu: Path, accelerator: str) -> tuple[str, ...]:
    """Return the options by which QEMU is told an accelerator; the one that goes by single instructions has been
    another option before QEMU 8.1 (its release notes), so its version is asked for."""
    if accelerator != ONE_BY_ONE:
        return ("-accel", CANDIDATES[accelerator])
    version = re.search(r"version (\d+)\.(\d+)", read_qemu_version(qemu))
    if version is None or (int(version[1]), int(version[2])) >= _PROPERTY_SINCE:
        return ("-accel", f"{CANDIDATES['tcg-single']},one-insn-per-tb=on")
    return ("-accel", CANDIDATES["tcg-single"], "-singlestep")


def probe_command(qemu: Path, kernel: Path, initrd: Path, accelerator: str = "kvm", cpu: str = "max") -> list[str]:
    """Return the command of a QEMU with a machine like a guest's, but neither disk nor network; the console is its
    output."""
    return [
        *(str(qemu), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *accelerator_options(qemu, accelerator),
        *("-machine", "q35", "-cpu", cpu, "-m", "256M", "-smp", "1"),
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


def _last_lines(output: bytes, count: int = QUOTED_LINES) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(shortened(printable(line)) for line in lines[-count:])


def _last_line(output: bytes) -> str:
    return _last_lines(output, 1) or "nothing"


def _boot(command: list[str], time_limit_s: float) -> tuple[float | None, bool, bytes]:
    """Run QEMU as far as the guest's first process: seconds it took (None: never), whether QEMU ended, its output."""
    began_s = time.monotonic()
    process = subprocess.Popen(
        [*_ENDS_WITH_US, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
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
    return took_s if booted else None, exited, output


def try_accelerator(qemu: Path, guest: Guest, accelerator: str, time_limit_s: float | None = None) -> Attempt:
    """Boot the guest's kernel under one accelerator as far as PID 1's first message.

    A boot may take ``time_limit_s``, by default longer than any takes that works.

    KVM is given the host's processor first; where QEMU ends over that, it is tried again with less.
    """
    name = _NAMES[accelerator].partition(",")[0]
    at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if accelerator == "kvm" and not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        reason = f"no {KVM_DEVICE}" if not KVM_DEVICE.exists() else f"no access to {KVM_DEVICE}"
        return Attempt(accelerator, reason, at=at)
    if time_limit_s is None:
        time_limit_s = scale(TIME_LIMIT_S)
    modes = KVM_CPUS if accelerator == "kvm" else {"maximum": "max"}
    with lease(f"probe-{os.getpid()}") as scratch:
        initrd = scratch / "initrd"
        initrd.write_bytes(guest.initrd(Plan((LogLine(FIRST_USERSPACE),))))
        for mode, cpu in modes.items():
            command = probe_command(qemu, guest.kernel.image, initrd, accelerator, cpu)
            boot_s, exited, output = _boot(command, time_limit_s)
            if boot_s is not None:
                reason = f"the guest kernel reached its first process under {name} in {boot_s:.2f} s"
                return Attempt(accelerator, reason, boot_s, mode, at)
            if not exited:
                break
    if exited:
        reason = f"QEMU ended under {name} before the guest's first process: {_last_line(output)}"
        return Attempt(accelerator, reason, at=at, console=_last_lines(output))
    opens = f"{KVM_DEVICE} opens, but under" if accelerator == "kvm" else "under"
    return Attempt(
        accelerator,
        f"{opens} {name} the guest kernel did not reach its first process in {time_limit_s:.4g} s "
        f"(last console line: {_last_line(output)})",
        at=at,
        console=_last_lines(output),
    )


def at_hardware_speed(kvm: Attempt, attempts: Sequence[Attempt]) -> bool:
    """Return whether KVM boots the guest no slower than QEMU translates it, which on hardware takes a fraction of
    that."""
    translated_s = min((one.boot_s for one in attempts if one.accelerator != "kvm" and one.boot_s), default=None)
    return kvm.boot_s is not None and (translated_s is None or kvm.boot_s <= translated_s)


def decide(attempts: Sequence[Attempt], closed: str, wanted: str = AUTO) -> Verdict:
    """Return the accelerator from what was tried: ``wanted``, or the best that runs as fast as it should.

    ``closed`` says why QEMU's account cannot open KVM; empty when it can. Raises PrerequisiteError for a wanted one
    that does not work.
    """
    by_name = {one.accelerator: one for one in attempts}
    kvm = by_name.get("kvm", Attempt("kvm", "not tried"))
    hardware = at_hardware_speed(kvm, attempts)
    reason = kvm.reason
    if kvm.boot_s is not None and not hardware:
        reason = f"KVM without hardware: {reason}, later than QEMU's translator"
    if kvm.boot_s is not None and closed:
        reason = f"{reason}; {closed}"
    if wanted == "kvm" and (kvm.boot_s is None or closed):
        raise PrerequisiteError(f"no guest can run under KVM: {reason}", "leave --accel away, or see `invoke doctor`")
    if wanted == "kvm" or (wanted == AUTO and hardware and not closed):
        return Verdict("kvm", reason, kvm.boot_s, kvm.cpu, hardware, tuple(attempts))
    for name in ("tcg", "tcg-single") if wanted == AUTO else (wanted,):
        chosen = by_name[name]
        if chosen.boot_s is not None:
            why = reason if wanted == AUTO else f"asked for; {chosen.reason}"
            return Verdict(name, why, chosen.boot_s, chosen.cpu, False, tuple(attempts))
    tried = "; ".join(one.reason for one in attempts)
    raise NoGuestBoots(f"no guest boots: {tried}", "reinstall qemu-system-x86", attempts)


def explain_closed_kvm() -> str:
    """Return why QEMU cannot open KVM, as a member of its account's groups; empty when it can, or when there is
    none."""
    try:
        status = KVM_DEVICE.stat()
    except FileNotFoundError:
        return ""
    account = make_guest_account(find_emulator_account(), "", 0)
    if account.may(status, 6):
        return ""
    mode, group = stat.filemode(status.st_mode), _group_name(account.gids[0])
    return (
        f"QEMU, in the groups of {NAME}, may not open {KVM_DEVICE} ({mode}): chgrp {group} {KVM_DEVICE}; "
        f"chmod 660 {KVM_DEVICE}"
    )


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _identity(qemu: Path, guest: Guest) -> str:
    """Return what the translators' attempts depend on: QEMU's binary, the guest, the host's kernel and processor."""
    status = qemu.stat()
    cpu = re.search(r"^model name.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    parts = (str(qemu), status.st_mtime_ns, status.st_size, guest.digest, os.uname().release, cpu and cpu.group())
    return hashlib.sha256(repr((_FORMAT, *parts)).encode()).hexdigest()


def _read(path: Path) -> Mapping[str, Attempt]:
    """Return the attempts in a cached file, by accelerator; none when it is absent or damaged: it is made anew then."""
    try:
        attempts = msgspec.json.decode(path.read_bytes(), type=tuple[Attempt, ...])
    except (OSError, msgspec.MsgspecError):
        return {}
    return {one.accelerator: one for one in attempts}


def read_last_attempts(guest_root: Path) -> tuple[Attempt, ...]:
    """Return what was tried last on this host, as far as that is cached below ``guest_root`` and can be read."""
    files = sorted(guest_root.glob("accelerators-*.json"), key=lambda path: path.stat().st_mtime)
    return tuple(_read(files[-1]).values()) if files else ()


def kvm_limit_s(translated: Sequence[Attempt], wanted: str) -> float:
    """Return how long a boot under KVM may take: as long as any when it is ``wanted``, or there is none to compare it
    with."""
    fastest_s = min((one.boot_s for one in translated if one.boot_s), default=None)
    if wanted == "kvm" or fastest_s is None:
        return scale(TIME_LIMIT_S)
    return max(scale(_LEAST_KVM_LIMIT_S), 2 * fastest_s)


def _try_kvm(qemu: Path, guest: Guest, limit_s: float, tries: int) -> Attempt:
    for _ in range(tries):
        tried = try_accelerator(qemu, guest, "kvm", limit_s)
        if tried.boot_s is not None:
            break
    return tried


def _list_translators(wanted: str) -> tuple[str, ...]:
    """Return the translators that matter to who has ``wanted`` an accelerator. In a sealed store's machine, which has
    what it is given and whose time is dear, none does beside KVM."""
    if wanted == ONE_BY_ONE:
        return (ONE_BY_ONE,)
    return () if wanted == "kvm" and is_sealed() else tuple(name for name in CANDIDATES if name != "kvm")


def try_accelerators(guest_root: Path, qemu: Path, guest: Guest, wanted: str = AUTO) -> tuple[Attempt, ...]:
    """Return every candidate that matters to who has ``wanted`` one: as it was tried before and worked, or tried now.

    What worked is cached below ``guest_root``. KVM is tried once in a process, and no cached attempt replaces that.
    """
    try:
        path = guest_root / f"accelerators-{_identity(qemu, guest)[:24]}.json"
    except OSError as error:
        raise PrerequisiteError(f"look at {qemu}: {error.strerror}", "install qemu-system-x86") from error
    if (path, wanted) in _tried:
        return _tried[path, wanted]
    cached = _read(path)
    translated = tuple(
        cached[name] if name in cached and cached[name].boot_s is not None else try_accelerator(qemu, guest, name)
        for name in _list_translators(wanted)
    )
    if wanted in (AUTO, "kvm"):
        worked = "kvm" in cached and cached["kvm"].boot_s is not None
        kvm = _try_kvm(qemu, guest, kvm_limit_s(translated, wanted), _TRIES_OF_PROVEN_KVM if worked else 1)
        if kvm.boot_s is None and worked:
            kvm = replace(kvm, reason=f"{kvm.reason}, although KVM worked on {cached['kvm'].at}")
    else:
        kvm = Attempt("kvm", f"not tried: {wanted} was asked for")
    tried = (kvm, *translated)
    holds = [one for one in ({**cached, **{one.accelerator: one for one in tried if one.boot_s is not None}}).values()]
    with partial(path) as unfinished:
        unfinished.write_bytes(msgspec.json.encode(holds) + b"\n")
    _tried[path, wanted] = tried
    return tried


def reach_verdict(guest_root: Path, qemu: Path, guest: Guest, wanted: str = AUTO) -> Verdict:
    """Return the accelerator for this host. Raises PrerequisiteError when the ``wanted`` one, or none, works."""
    return decide(try_accelerators(guest_root, qemu, guest, wanted), explain_closed_kvm(), wanted)


def require_hardware(guest_root: Path, qemu: Path, guest: Guest, platform: str) -> Verdict:
    """Return KVM's verdict, for a ``platform`` that is nothing without hardware virtualisation. Raises
    PrerequisiteError where guests do not run on that."""
    verdict = reach_verdict(guest_root, qemu, guest, "kvm" if is_sealed() else AUTO)
    if verdict.accelerator != "kvm":
        raise PrerequisiteError(f"{platform} needs virtualisation in hardware: {verdict.reason}", HARDWARE_HINT)
    return verdict
