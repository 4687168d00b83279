"""The checks: on this host, and as a user without privileges sees it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from testbed.doctor import Check, as_table, attempt, checks, command, parse_attempts, print_checks, space

PREREQUISITE_MISSING = 5


def namespaces() -> set[str]:
    return {f"{path.name} {os.readlink(path)}" for path in Path("/proc/self/ns").iterdir()}


@pytest.mark.root
def test_this_host_can_do_what_the_tests_beside_this_one_need() -> None:
    before = namespaces(), Path("/proc/self/mountinfo").read_text()
    found = {check.name: check for check in checks()}
    assert [name for name, check in found.items() if check.required and not check.ok] == []
    assert (namespaces(), Path("/proc/self/mountinfo").read_text()) == before, "a check left something"


@pytest.mark.root
def test_without_privileges_the_checks_say_what_the_kernel_refused() -> None:
    reader, writer = os.pipe()

    def as_nobody() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        refused = {check.name: [check.detail, check.fix] for check in checks() if not check.ok}
        os.write(writer, json.dumps(refused).encode())

    assert attempt(as_nobody) == ""
    os.close(writer)
    with open(reader) as answer:
        refused = json.load(answer)
    assert {"root", "overlay", "network"} <= set(refused)
    assert "Operation not permitted" in refused["overlay"][0]
    assert "root" in refused["overlay"][1]


def test_an_attempt_tells_why_it_failed_and_leaves_the_caller_alone() -> None:
    def fail() -> None:
        os.chdir("/proc")
        raise OSError("mount: Invalid argument\nand more")

    here = os.getcwd()
    assert attempt(fail) == "mount: Invalid argument"
    assert attempt(lambda: None) == ""
    assert os.getcwd() == here


def test_the_exit_code_depends_on_required_checks_only(capsys: pytest.CaptureFixture[str]) -> None:
    fine = Check("root", True, "user id 0", "run it as root")
    nice = Check("kvm", False, "/dev/kvm: no such file", "guests will be emulated", required=False)
    absent = Check("qemu", False, "qemu is not on the PATH", "install it")
    assert print_checks([fine, nice]) == 0
    assert print_checks([fine, nice, absent]) == PREREQUISITE_MISSING
    text = capsys.readouterr().out
    assert "-> install it" in text and "-> guests will be emulated" in text
    assert "-> run it as root" not in text

    print_checks([nice], as_json=True)
    assert json.loads(capsys.readouterr().out)[0] == {
        "name": "kvm",
        "ok": False,
        "detail": "/dev/kvm: no such file",
        "fix": "guests will be emulated",
        "required": False,
    }


def test_every_accelerator_that_was_tried_is_shown() -> None:
    (untried,) = parse_attempts(None, "")
    assert untried.ok and not untried.required
    tried = [("kvm", "it hangs", None), ("tcg", "booted in 2 s", 2.0), ("tcg-single", "booted in 3 s", 3.0)]
    text = json.dumps([{"accelerator": name, "reason": why, "boot_s": boot_s} for name, why, boot_s in tried])
    kvm, tcg, single = parse_attempts(text, "")
    assert (kvm.ok, kvm.required, kvm.detail) == (False, False, "it hangs")
    assert (tcg.ok, tcg.detail) == (True, "booted in 2 s; guests get this one")
    assert (single.ok, single.detail) == (True, "booted in 3 s")
    fast = text.replace('"it hangs", "boot_s": null', '"booted in 0.8 s", "boot_s": 0.8')
    assert parse_attempts(fast, "")[0].detail == "booted in 0.8 s; guests get this one"
    assert not parse_attempts(fast, "it may not open it")[0].ok


def test_an_absent_command_is_named() -> None:
    check = command("qemu", "qemu-system-none", "--version")
    assert not check.ok
    assert "qemu-system-none" in check.detail


def test_space_is_asked_for_where_the_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_HOME", "/proc/testbed")
    check = space()
    assert not check.ok
    assert "/proc/testbed" in check.detail and "TESTBED_HOME" in check.fix


def test_the_table_folds_at_the_terminals_width() -> None:
    found = [Check("libvirt", False, "word " * 60, "mend " * 40), Check("root", True, "user id 0", "never shown")]
    for columns in (30, 80, 200):
        lines = as_table(found, columns)
        assert max(map(len, lines)) <= max(columns, 37)
        text = " ".join(lines)
        assert text.count("word") == 60 and text.count("mend") == 40 and "never" not in text
    assert as_table([], 80) == []
