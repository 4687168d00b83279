"""Hooks are run as configured, and what they do wrong names them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import UsageError, WorkloadError
from tests.runtime.command_line import Runtime
from tests.waiting import until

pytestmark = pytest.mark.root


def shell(script: str, *arguments: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script, *arguments], **more}


def run_hooks(oci: Runtime, kind: str, *hooks: dict[str, Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a container with these hooks of one kind."""
    config = oci.config()
    config["hooks"] = {kind: list(hooks)}
    oci.configure(config)
    done = oci("run", "a", check=False, **options)
    assert not (oci.root / "a").exists()
    return done


def told(oci: Runtime, *hooks: dict[str, Any], kind: str = "prestart") -> str:
    """What is said of hooks that fail."""
    done = run_hooks(oci, kind, *hooks)
    assert done.returncode in (UsageError.exit_code, WorkloadError.exit_code)
    return done.stderr


def test_state_arguments_and_environment_arrive(oci: Runtime, tmp_path: Path) -> None:
    cat, env = f"cat > {tmp_path}/state", f"/usr/bin/env > {tmp_path}/env"
    script = f'{cat}; {env}; printf "%s\\n" "$0" "$@" > {tmp_path}/args'
    done = run_hooks(oci, "prestart", shell(script, "zero", "a b", "", env=["A=1=2", "B=", "A=3"]))
    assert done.returncode == 0, done.stderr
    state = json.loads((tmp_path / "state").read_text())
    assert state.pop("pid") > 1
    assert state == {
        "ociVersion": oci.state_version(), "id": "a", "status": "creating", "bundle": str(oci.bundle)
    }  # fmt: skip
    given = set((tmp_path / "env").read_text().splitlines())
    # what dash itself adds
    assert {line for line in given if not line.startswith(("PWD=", "OLDPWD=", "_=", "SHLVL="))} == {"A=3", "B="}
    assert (tmp_path / "args").read_text() == "zero\na b\n\n"


def test_without_an_environment_it_inherits_and_an_empty_one_is_empty(oci: Runtime, tmp_path: Path) -> None:
    """As with runc 1.1.5 and crun 1.8.1."""
    environment = {**os.environ, "INHERITED": "a b", "NO_TEXT": "\udcff"}
    script = f"/usr/bin/env > {tmp_path}/env"
    for hook, inherits in ((shell(script), True), (shell(script, env=[]), False)):
        assert run_hooks(oci, "prestart", hook, env=environment).returncode == 0
        assert (b"INHERITED=a b\n" in (tmp_path / "env").read_bytes()) is inherits
        assert (b"NO_TEXT=\xff\n" in (tmp_path / "env").read_bytes()) is inherits


def test_inside_it_has_the_environment_of_the_process(oci: Runtime) -> None:
    oci.shell("true", env=["GIVEN=yes", "PATH=/bin"])
    script = 'echo "$GIVEN $INHERITED" > /env'
    done = run_hooks(oci, "startContainer", shell(script), env={**os.environ, "INHERITED": "no"})
    assert done.returncode == 0, done.stderr
    assert (oci.bundle / "rootfs" / "env").read_text() == "yes \n"


def test_directory_umask_and_session(oci: Runtime) -> None:
    script = "umask > umask; cat /proc/$$/stat > stat; pwd > pwd"
    assert run_hooks(oci, "prestart", shell(script), umask=0o027).returncode == 0
    assert (oci.bundle / "umask").read_text() == "0027\n" and (oci.bundle / "pwd").read_text() == f"{oci.bundle}\n"
    assert oct((oci.bundle / "umask").stat().st_mode) == "0o100640"
    pid, _, _, _, group, session, *_ = (oci.bundle / "stat").read_text().split()
    assert pid == group == session


def test_the_first_argument_is_the_programs_name(oci: Runtime, tmp_path: Path) -> None:
    script = f"exec cp /proc/$$/cmdline {tmp_path}/cmdline"
    hooks = ({"path": "/bin/sh", "args": ["other-name", "-c", script]}, {"path": "/bin/true"})
    assert run_hooks(oci, "prestart", *hooks).returncode == 0
    assert "exit status 1" in told(oci, {"path": "/bin/false"})


def test_in_order_until_the_first_failure(oci: Runtime, tmp_path: Path) -> None:
    hooks = [shell(f"echo {n} >> {tmp_path}/order; exit {int(n == 1)}") for n in range(3)]
    assert "createRuntime hook 1 (/bin/sh): exit status 1" in told(oci, *hooks, kind="createRuntime")
    assert (tmp_path / "order").read_text().split() == ["0", "1"]


def test_at_the_end_failures_are_warnings_and_the_rest_runs(oci: Runtime, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    done = run_hooks(
        oci, "poststop", {"path": "/nonexistent"}, shell("exit 3"), {"path": str(tmp_path / "plain")},
        shell(f"touch {tmp_path}/last"),
    )  # fmt: skip
    assert (tmp_path / "last").exists() and done.returncode == 0
    warnings = done.stderr.splitlines()
    assert [text.partition(" (")[0] for text in warnings] == [f"warning: poststop hook {n}" for n in range(3)]


def test_the_error_ends_with_the_last_lines_of_both_outputs(oci: Runtime) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo why >&2; exit 4"
    lines = told(oci, shell(script)).splitlines()
    assert "exit status 4" in lines[0]
    assert lines[1:] == [*(f"  | line {n}" for n in range(1991, 2000)), "  | why"]


@pytest.mark.parametrize(("signal", "named"), [("KILL", "SIGKILL"), ("40", "signal 40")])
def test_a_signal_is_named(oci: Runtime, signal: str, named: str) -> None:
    assert f"killed by {named}" in told(oci, shell(f"kill -{signal} $$"))


def test_a_timeout_kills_the_whole_group(oci: Runtime, tmp_path: Path) -> None:
    script = f"echo begun; sleep 60 & echo $! > {tmp_path}/pid; wait"
    began = time.monotonic()
    assert "not done after 1 s, killed\n  | begun" in told(oci, shell(script, timeout=1))
    assert time.monotonic() - began < 10
    pid = int((tmp_path / "pid").read_text())
    until(lambda: gone(pid))


def gone(pid: int) -> bool:
    """Whether a process that is not our child has ended, or is a zombie of its new parent."""
    try:
        return b") Z " in Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_daemon_left_behind_does_not_hold_us_up(oci: Runtime, tmp_path: Path) -> None:
    began = time.monotonic()
    assert run_hooks(oci, "prestart", shell(f"sleep 60 & echo $! > {tmp_path}/pid", timeout=30)).returncode == 0
    assert time.monotonic() - began < 10
    daemon = int((tmp_path / "pid").read_text())
    os.kill(daemon, 9)  # fails when success killed it already


def test_what_cannot_be_started(oci: Runtime, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("text")
    assert "No such file" in told(oci, {"path": "/nonexistent"})
    assert "Permission denied" in told(oci, {"path": str(tmp_path / "plain")})
    assert "NUL byte" in told(oci, {"path": "/bin/true", "args": ["true", "\0"]})


@pytest.mark.parametrize(
    "hook",
    [{"path": "bin/true"}, {"path": "/bin/true", "timeout": 0}, {"path": "/bin/true", "env": ["A"]}],
    ids=["relative", "timeout", "environment"],
)
def test_what_is_malformed(oci: Runtime, hook: dict[str, Any]) -> None:
    true = {"path": "/bin/true"}
    said = told(oci, true, true, hook)
    assert "prestart hook 2" in said or "hooks.prestart[2]" in said


def test_it_has_its_streams_and_no_other_descriptor(oci: Runtime, tmp_path: Path) -> None:
    script = (
        "import os, sys; names = os.listdir('/proc/self/fd'); open(sys.argv[1], 'w').write(' '.join(sorted(names)))"
    )
    hook = {"path": "/usr/bin/python3", "args": ["python3", "-c", script, str(tmp_path / "descriptors")]}
    with Path(os.devnull).open() as other:
        assert run_hooks(oci, "prestart", hook, pass_fds=[other.fileno()]).returncode == 0
    assert (tmp_path / "descriptors").read_text() == "0 1 2 3"  # the last is the directory's
