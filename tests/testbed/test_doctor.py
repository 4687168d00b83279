"""The checks: on this host, and as a user without privileges sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import checkpoint
from testbed.checks import Check
from testbed.doctor import attempt, check_command, check_criu, check_space, format_table, print_checks, run_checks

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
