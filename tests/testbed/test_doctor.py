"""The checks: on this host, and as a user without privileges sees it."""

from __future__ import annotations

import calendar
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import checkpoint
from runtime.home import store_root
from testbed.doctor import (
    Check,
    attempt,
    check_accelerators,
    check_command,
    check_criu,
    check_space,
    format_table,
    judge_attempts,
    print_checks,
    run_checks,
)
from testbed.qemu.accelerator import CANDIDATES, Attempt
from vm_images.kernel import find_stored_guest_kernel

PREREQUISITE_MISSING = 5


_CHECKS = """
import os
from pathlib import Path
from testbed.doctor import run_checks

def here():
    return {path.name: os.readlink(path) for path in Path("/proc/self/ns").iterdir()}, mounts.read_text()

mounts = Path("/proc/self/mountinfo")
before = here()
print([check.name for check in run_checks() if check.required and not check.ok], here() == before)
"""


@pytest.mark.root
def test_this_host_can_do_what_the_tests_beside_this_one_need() -> None:
    """In a mount namespace of its own, for others may mount on this host meanwhile."""
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", _CHECKS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.stdout == "[] True\n", f"a check failed, or left something: {done.stderr}"


@pytest.mark.root
def test_without_privileges_the_checks_say_what_the_kernel_refused() -> None:
    reader, writer = os.pipe()

    def as_nobody() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        refused = {check.name: [check.detail, check.fix] for check in run_checks() if not check.ok}
        os.write(writer, json.dumps(refused).encode())

    assert attempt(as_nobody) == ""
    os.close(writer)
    with os.fdopen(reader) as answer:
        refused = json.load(answer)
    assert {"root", "overlay", "network"} <= set(refused)
    assert "Operation not permitted" in refused["overlay"][0]
    assert "root" in refused["overlay"][1]


def test_an_attempt_tells_why_it_failed_and_leaves_the_caller_alone() -> None:
    def fail() -> None:
        os.chdir("/proc")
        raise OSError("mount: Invalid argument\nand more")

    here = Path.cwd()
    assert attempt(fail) == "mount: Invalid argument"
    assert attempt(lambda: None) == ""
    assert Path.cwd() == here


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


def test_every_accelerator_that_was_tried_is_shown_with_when_that_was() -> None:
    (untried,) = judge_attempts((), "")
    assert untried.ok and not untried.required
    at = "2026-01-02 03:04 UTC"
    translated = Attempt("tcg", "booted in 2 s", 2.0, at=at), Attempt("tcg-single", "booted in 3 s", 3.0, at=at)
    kvm, tcg, single = judge_attempts((Attempt("kvm", "it hangs", at=at), *translated), "")
    assert (kvm.ok, kvm.required, kvm.detail) == (False, False, f"it hangs (tried {at})")
    assert (tcg.ok, tcg.detail) == (True, f"booted in 2 s (tried {at}); guests get this one")
    assert (single.ok, single.detail) == (True, f"booted in 3 s (tried {at})")
    fast = (Attempt("kvm", "booted in 0.8 s", 0.8, at=at), *translated)
    assert judge_attempts(fast, "")[0].detail == f"booted in 0.8 s (tried {at}); guests get this one"
    assert not judge_attempts(fast, "it may not open it")[0].ok
    *_, unknown = judge_attempts(translated, "")
    assert not unknown.ok and "tries it anew" in unknown.detail


@pytest.mark.root
@pytest.mark.vm
def test_as_root_a_guest_is_booted_to_find_out() -> None:
    if find_stored_guest_kernel(store_root() / "guest") is None:
        pytest.skip("no guest kernel has been fetched")
    results = {check.name: check for check in check_accelerators()}
    assert set(results) == {f"accelerator {name}" for name in CANDIDATES}
    tried_at = re.search(r"\(tried (.*) UTC\)", results["accelerator kvm"].detail)
    assert tried_at is not None
    age_s = time.time() - calendar.timegm(time.strptime(tried_at[1], "%Y-%m-%d %H:%M"))
    assert age_s < 600, "KVM's verdict is of this run"


def test_an_absent_command_is_named() -> None:
    check = check_command("qemu", "qemu-system-none", "--version")
    assert not check.ok
    assert "qemu-system-none" in check.detail


def test_without_criu_there_is_only_something_missing_that_few_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SYSTEM_PATH", "/nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    check = check_criu()
    assert not check.ok and not check.required and "criu is not installed" in check.detail


def test_space_is_asked_for_where_the_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_HOME", "/proc/testbed")
    check = check_space()
    assert not check.ok
    assert "/proc/testbed" in check.detail and "TESTBED_HOME" in check.fix


def test_the_table_folds_at_the_terminals_width() -> None:
    results = [Check("libvirt", False, "word " * 60, "mend " * 40), Check("root", True, "user id 0", "never shown")]
    for columns in (30, 80, 200):
        lines = format_table(results, columns)
        assert max(map(len, lines)) <= max(columns, 37)
        text = " ".join(lines)
        assert text.count("word") == 60 and text.count("mend") == 40 and "never" not in text
    assert format_table([], 80) == []
