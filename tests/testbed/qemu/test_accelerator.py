"""The accelerator is decided by what QEMU does, here with stand-ins that end, hang or boot as QEMU would."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError, UsageError
from testbed.qemu import accelerator
from testbed.qemu.accelerator import (
    CANDIDATES,
    KVM_DEVICE,
    ONE_BY_ONE,
    TIME_LIMIT_S,
    Attempt,
    Verdict,
    accelerator_options,
    check_accelerator,
    decide,
    kvm_limit_s,
    probe_command,
    reach_verdict,
    read_last_attempts,
    require_hardware,
    try_accelerator,
    try_accelerators,
)
from vm_images.guest import Guest
from vm_images.kernel import GuestKernel

pytestmark = pytest.mark.root
needs_device = pytest.mark.skipif(
    not os.access(KVM_DEVICE, os.R_OK | os.W_OK), reason=f"{KVM_DEVICE} cannot be opened, so nothing is probed"
)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    kernel = GuestKernel(tmp_path, "6.1", "linux-image", "6.1-1", True, ())
    return Guest(kernel, b"", (), "digest")


def program(folder: Path, script: str) -> Path:
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def booting(folder: Path, seconds: float, first: str = "") -> Path:
    """A QEMU that boots, ``first`` doing something else before."""
    return program(folder, f"{first}\nsleep {seconds}; echo 'testbed: first userspace'; exec sleep 60")


def kvm(boot_s: float | None, reason: str = "why") -> Attempt:
    return Attempt("kvm", reason, boot_s, "host-passthrough")


TRANSLATED = (Attempt("tcg", "multi", 2.0), Attempt("tcg-single", "single", 2.5))


@needs_device
def test_a_guest_that_gets_to_its_first_process_means_it_works(guest: Guest, tmp_path: Path) -> None:
    tried = try_accelerator(booting(tmp_path, 0.1), guest, "kvm")
    assert tried.boot_s is not None and 0.1 < tried.boot_s < 10
    assert tried.cpu == "host-passthrough"


@needs_device
def test_a_processor_that_kvm_refuses_is_replaced_by_all_it_offers(guest: Guest, tmp_path: Path) -> None:
    refuses = 'case "$*" in *"-cpu host"*) echo "kvm_buf_set_msrs: Assertion failed." >&2; exit 134;; esac'
    tried = try_accelerator(booting(tmp_path, 0, refuses), guest, "kvm")
    assert (tried.cpu, tried.boot_s is not None) == ("maximum", True)


@needs_device
def test_qemu_that_aborts_says_why(guest: Guest, tmp_path: Path) -> None:
    tried = try_accelerator(program(tmp_path, "echo 'kvm_buf_set_msrs: Assertion failed.' >&2; exit 134"), guest, "kvm")
    assert tried.boot_s is None
    assert "kvm_buf_set_msrs: Assertion failed." in tried.reason


@needs_device
def test_a_guest_that_hangs_is_given_up_after_the_time_limit(guest: Guest, tmp_path: Path) -> None:
    began_s = time.monotonic()
    hangs = program(tmp_path, "echo 'Linux version 6.1'; exec sleep 60")
    tried = try_accelerator(hangs, guest, "kvm", time_limit_s=0.3)
    assert time.monotonic() - began_s < 5
    assert tried.boot_s is None
    assert "/dev/kvm opens" in tried.reason and "0.3 s" in tried.reason and "Linux version 6.1" in tried.reason


def tried_by(*words: str) -> str:
    """A QEMU's script that writes to the file ``tried`` under which of these words it was called."""
    return "".join(f'case "$*" in *"{word}"*) echo {word} >> "$(dirname "$0")/tried";; esac\n' for word in words)


def of_a_new_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "_tried", {})


def test_what_worked_is_kept_until_qemu_changes_and_what_did_not_is_not(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    script = tried_by("thread=multi", "thread=single") + (
        'case "$*" in *thread=single*) exit 1;; esac; echo "testbed: first userspace"; exec sleep 60'
    )
    qemu, tried = program(tmp_path, script), tmp_path / "tried"
    of_a_new_run(monkeypatch)
    first = try_accelerators(tmp_path / "store", qemu, guest, "tcg")
    assert {one.accelerator for one in first} == set(CANDIDATES)
    assert try_accelerators(tmp_path / "store", qemu, guest, "tcg") == first, "once in a run"
    assert tried.read_text().split() == ["thread=multi", "thread=single"]
    of_a_new_run(monkeypatch)
    again = {one.accelerator: one for one in try_accelerators(tmp_path / "store", qemu, guest, "tcg")}
    assert again["tcg"] in first
    assert tried.read_text().split()[2:] == ["thread=single"]
    of_a_new_run(monkeypatch)
    os.utime(qemu, ns=(0, 0))
    try_accelerators(tmp_path / "store", qemu, guest, "tcg")
    assert tried.read_text().split()[3:] == ["thread=multi", "thread=single"]


def test_what_is_kept_may_be_damaged(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = booting(tmp_path, 0)
    (tmp_path / "store").mkdir()
    of_a_new_run(monkeypatch)
    try_accelerators(tmp_path / "store", qemu, guest, "tcg")
    (cached,) = (tmp_path / "store").glob("accelerators-*.json")
    for damaged in (b"", cached.read_bytes()[:40], b"[{}]", b"\xff", b"{}"):
        cached.write_bytes(damaged)
        of_a_new_run(monkeypatch)
        assert read_last_attempts(tmp_path / "store") == ()
        assert try_accelerators(tmp_path / "store", qemu, guest, "tcg")[1].boot_s is not None


@needs_device
def test_kvm_is_tried_anew_in_each_run(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KVM that fails once is not one that fails for ever, nor is one that worked one that works."""
    (tmp_path / "store").mkdir()
    works, tried = tmp_path / "works", tmp_path / "tried"
    script = tried_by("-accel kvm") + (
        f'case "$*" in *"-accel kvm"*) [ -e {works} ] || exit 1;; esac; echo "testbed: first userspace"; exec sleep 60'
    )
    qemu = program(tmp_path, script)

    def kvm() -> Attempt:
        of_a_new_run(monkeypatch)
        tried.unlink(missing_ok=True)
        return try_accelerators(tmp_path / "store", qemu, guest)[0]

    assert kvm().boot_s is None
    once = len(tried.read_text().splitlines())
    works.touch()
    assert kvm().boot_s is not None
    works.unlink()
    lost = kvm()
    assert lost.boot_s is None and "although KVM worked on" in lost.reason
    assert len(tried.read_text().splitlines()) == 3 * once, "one that is known to work is tried more than once"


def test_kvm_has_the_time_that_the_translator_takes() -> None:
    assert kvm_limit_s(TRANSLATED, "auto") == 4.0
    assert kvm_limit_s((Attempt("tcg", "", 20.0), Attempt("tcg-single", "")), "auto") == 40.0
    assert kvm_limit_s((Attempt("tcg", "", 0.1),), "auto") == 2.0, "but not less than a busy host needs"
    assert kvm_limit_s(TRANSLATED, "kvm") == kvm_limit_s((Attempt("tcg", ""),), "auto") == TIME_LIMIT_S


def test_limits_of_time_follow_the_measured_speed_of_the_host(
    slow_host: float, guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kvm_limit_s((Attempt("tcg", "", 0.1),), "auto") == 2.0 * slow_host
    assert kvm_limit_s(TRANSLATED, "kvm") == TIME_LIMIT_S * slow_host
    assert Verdict("kvm", "", 3.0).slowness == slow_host
    assert Verdict("tcg", "", 60.0).slowness == 20, "guests may be slower still"
    monkeypatch.setattr(accelerator, "TIME_LIMIT_S", 0.03)
    hangs = try_accelerator(program(tmp_path, "exec sleep 60"), guest, "tcg")
    assert "did not reach its first process in 0.3 s" in hangs.reason


def test_limits_of_time_follow_what_the_host_shows() -> None:
    assert Verdict("tcg", "", 2.0).slowness == Verdict("kvm", "", 0.3).slowness == Verdict("tcg", "").slowness == 1
    assert Verdict("tcg", "", 30.0).slowness == 10


def test_kvm_at_the_processors_speed_is_taken() -> None:
    decided = decide((kvm(0.6), *TRANSLATED), "")
    assert (decided.accelerator, decided.hardware, decided.cpu) == ("kvm", True, "host-passthrough")
    assert decided.label("vm-pod") == "vm-pod (KVM)"
    assert decided.label("vm", "vmware") == "vm (KVM, nested)"
    assert decided.label("vm", "qemu") == "vm (KVM on an emulated host)"


def test_a_kvm_without_hardware_is_recognised() -> None:
    """It boots, as an emulated KVM does, but later than under the translator."""
    decided = decide((kvm(9.0), *TRANSLATED), "")
    assert (decided.accelerator, decided.hardware) == ("tcg", False)
    assert decided.reason.startswith("KVM without hardware")
    forced = decide((kvm(9.0), *TRANSLATED), "", "kvm")
    assert (forced.accelerator, forced.hardware) == ("kvm", False)
    assert forced.label("vm") == "vm (KVM without hardware, emulated)"


def test_a_kvm_that_qemus_account_cannot_open_is_not_taken() -> None:
    decided = decide((kvm(0.6), *TRANSLATED), "libvirt-qemu may not open it")
    assert decided.accelerator == "tcg" and "may not open it" in decided.reason
    with pytest.raises(PrerequisiteError, match="may not open it"):
        decide((kvm(0.6), *TRANSLATED), "libvirt-qemu may not open it", "kvm")


def test_what_was_asked_for_is_taken_or_refused_with_the_reason() -> None:
    tried = (kvm(None, "it hangs"), *TRANSLATED)
    assert decide(tried, "").accelerator == "tcg"
    single = decide(tried, "", "tcg-single")
    assert single.label("vm") == "vm (TCG with one thread, emulated)"
    with pytest.raises(PrerequisiteError, match="it hangs") as raised:
        decide(tried, "", "kvm")
    assert raised.value.exit_code == 5
    with pytest.raises(PrerequisiteError, match="no guest boots"):
        decide((kvm(None), Attempt("tcg", "a"), Attempt("tcg-single", "b")), "")
    with pytest.raises(UsageError, match="unknown accelerator hvf"):
        check_accelerator("hvf")


def test_the_probe_has_the_guests_machine_and_command_line(tmp_path: Path) -> None:
    command = " ".join(probe_command(Path("/usr/bin/qemu"), tmp_path / "vmlinux", tmp_path / "initrd"))
    assert "-accel kvm -machine q35 -cpu max" in command
    assert "console=ttyS0" in command


def test_an_emulated_guest_is_always_called_so() -> None:
    assert Verdict("tcg", "no /dev/kvm").label("vm", "kvm") == "vm (TCG, emulated)"


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("7.2.22 (Debian 1:7.2)", ("tcg,thread=single", "-singlestep")),
        ("8.0.5", ("tcg,thread=single", "-singlestep")),
        ("8.1.0", ("tcg,thread=single,one-insn-per-tb=on",)),
        ("10.0.13 (testbed)", ("tcg,thread=single,one-insn-per-tb=on",)),
        ("of tomorrow", ("tcg,thread=single,one-insn-per-tb=on",)),
    ],
)
def test_single_instructions_are_asked_for_as_each_version_of_qemu_has_it(
    tmp_path: Path, version: str, options: tuple[str, ...]
) -> None:
    qemu = program(tmp_path, f"echo 'QEMU emulator version {version}'")
    assert accelerator_options(qemu, ONE_BY_ONE) == ("-accel", *options)
    assert accelerator_options(Path("/nowhere"), "tcg") == ("-accel", "tcg,thread=multi"), "no version is asked for"


def test_who_wants_single_instructions_has_nothing_else_tried(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    qemu = booting(tmp_path, 0, tried_by("-accel") + '[ "$1" = --version ] && { echo version 7.2; exit; }')
    of_a_new_run(monkeypatch)
    verdict = reach_verdict(tmp_path / "store", qemu, guest, ONE_BY_ONE)
    assert (verdict.accelerator, verdict.single_threaded, verdict.hardware) == (ONE_BY_ONE, True, False)
    assert verdict.label("vm") == "vm (TCG instruction by instruction, emulated)"
    assert len((tmp_path / "tried").read_text().splitlines()) == 1
    of_a_new_run(monkeypatch)
    assert ONE_BY_ONE not in {one.accelerator for one in try_accelerators(tmp_path / "store", qemu, guest)}
    with pytest.raises(UsageError, match="unknown accelerator"):
        check_accelerator(ONE_BY_ONE)


def test_what_needs_hardware_is_refused_where_guests_have_none(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    qemu = booting(tmp_path, 0, 'case "$*" in *"-accel kvm"*) echo no virtualisation; exit 1;; esac')
    of_a_new_run(monkeypatch)
    with pytest.raises(PrerequisiteError, match=r"^hardware-2006 needs .* in hardware: .*(KVM|kvm)") as raised:
        require_hardware(tmp_path / "store", qemu, guest, "hardware-2006")
    assert "--machine reference" in raised.value.hint
