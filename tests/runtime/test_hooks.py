"""Hooks are run as configured, and what they do wrong names them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from msgspec import Struct

from runtime.errors import UsageError, WorkloadError
from runtime.oci.hooks import Surroundings, run_hook, run_hooks

STATE: dict[str, object] = {"ociVersion": "1.2.0", "id": "one", "status": "created", "pid": 7, "bundle": "/b"}


class Configured(Struct, frozen=True):
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] | None = None
    timeout: float | None = None


def shell(script: str, *arguments: str, env: tuple[str, ...] | None = None, timeout: float | None = None) -> Configured:
    return Configured("/bin/sh", ("sh", "-c", script, *arguments), env, timeout)


def test_state_arguments_and_environment_arrive(tmp_path: Path) -> None:
    cat, env = f"cat > {tmp_path}/state", f"/usr/bin/env > {tmp_path}/env"
    script = f'{cat}; {env}; printf "%s\\n" "$0" "$@" > {tmp_path}/args'
    run_hooks("prestart", [shell(script, "zero", "a b", "", env=("A=1=2", "B=", "A=3"))], STATE)
    assert json.loads((tmp_path / "state").read_text()) == STATE
    given = set((tmp_path / "env").read_text().splitlines())
    # what dash itself adds
    assert {line for line in given if not line.startswith(("PWD=", "OLDPWD=", "_=", "SHLVL="))} == {"A=3", "B="}
    assert (tmp_path / "args").read_text() == "zero\na b\n\n"


def test_without_an_environment_it_inherits_and_an_empty_one_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with runc 1.1.5 and crun 1.8.1."""
    monkeypatch.setenv("INHERITED", "a b")
    monkeypatch.setenv("NO_TEXT", "\udcff")
    script = f"/usr/bin/env > {tmp_path}/env"
    for env, inherits in ((None, True), ((), False)):
        run_hook("prestart", 0, shell(script, env=env), STATE)
        assert (b"INHERITED=a b\n" in (tmp_path / "env").read_bytes()) is inherits
        assert (b"NO_TEXT=\xff\n" in (tmp_path / "env").read_bytes()) is inherits
    run_hook("prestart", 0, shell(script), STATE, Surroundings(environment=("GIVEN=yes",)))
    assert "GIVEN=yes" in (tmp_path / "env").read_text()
    assert "INHERITED" not in (tmp_path / "env").read_text()


def test_directory_umask_and_session(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        run_hook("prestart", 0, shell("umask > umask; echo $$ > pid; pwd > pwd"), STATE, Surroundings(str(tmp_path)))
    finally:
        os.umask(before)
    assert (tmp_path / "umask").read_text() == "0027\n" and (tmp_path / "pwd").read_text() == f"{tmp_path}\n"


def test_the_first_argument_is_the_programs_name(tmp_path: Path) -> None:
    copy = f"cp /proc/self/cmdline {tmp_path}/cmdline"
    run_hook("prestart", 0, Configured("/bin/sh", ("other-name", "-c", f"exec {copy}")), STATE)
    run_hook("prestart", 0, Configured("/bin/true"), STATE)
    with pytest.raises(WorkloadError, match="exit status 1"):
        run_hook("prestart", 0, Configured("/bin/false"), STATE)


def test_in_order_until_the_first_failure(tmp_path: Path) -> None:
    hooks = [shell(f"echo {n} >> {tmp_path}/order; exit {int(n == 1)}") for n in range(3)]
    with pytest.raises(WorkloadError, match=r"createRuntime hook 1 \(/bin/sh\): exit status 1"):
        run_hooks("createRuntime", hooks, STATE)
    assert (tmp_path / "order").read_text().split() == ["0", "1"]


def test_at_the_end_failures_are_warnings_and_the_rest_runs(tmp_path: Path) -> None:
    kind = "poststop"
    hooks = [Configured("/nonexistent"), shell("exit 3"), Configured("relative"), shell(f"touch {tmp_path}/last")]
    warnings: list[str] = []
    run_hooks(kind, hooks, STATE, warn=warnings.append)
    assert (tmp_path / "last").exists()
    assert [text.partition(" (")[0] for text in warnings] == [f"{kind} hook {n}" for n in range(3)]


def test_the_error_ends_with_the_last_lines_of_both_outputs() -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo why >&2; exit 4"
    with pytest.raises(WorkloadError) as raised:
        run_hook("prestart", 0, shell(script), STATE)
    lines = str(raised.value).splitlines()
    assert "exit status 4" in lines[0]
    assert lines[1:] == [*(f"  | line {n}" for n in range(1991, 2000)), "  | why"]


@pytest.mark.parametrize(("signal", "named"), [("KILL", "SIGKILL"), ("40", "signal 40")])
def test_a_signal_is_named(signal: str, named: str) -> None:
    with pytest.raises(WorkloadError, match=f"killed by {named}"):
        run_hook("prestart", 0, shell(f"kill -{signal} $$"), STATE)


def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    script = f"echo begun; sleep 60 & echo $! > {tmp_path}/pid; wait"
    began = time.monotonic()
    with pytest.raises(WorkloadError, match=r"not done after 0.5 s, killed\n  [|] begun"):
        run_hook("prestart", 0, shell(script, timeout=0.5), STATE)
    assert time.monotonic() - began < 10
    pid = int((tmp_path / "pid").read_text())
    assert gone_soon(pid)


def gone_soon(pid: int) -> bool:
    """Whether a process that is not our child ends, or becomes a zombie of its new parent."""
    for _ in range(200):
        try:
            if b") Z " in Path(f"/proc/{pid}/stat").read_bytes():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_a_daemon_left_behind_does_not_hold_us_up(tmp_path: Path) -> None:
    began = time.monotonic()
    run_hook("prestart", 0, shell(f"sleep 60 & echo $! > {tmp_path}/pid", timeout=30), STATE)
    assert time.monotonic() - began < 10
    daemon = int((tmp_path / "pid").read_text())
    os.kill(daemon, 9)  # fails when success killed it already


def test_what_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("text")
    with pytest.raises(WorkloadError, match="No such file"):
        run_hook("prestart", 0, Configured("/nonexistent"), STATE)
    with pytest.raises(WorkloadError, match="Permission denied"):
        run_hook("prestart", 0, Configured(str(tmp_path / "plain")), STATE)
    with pytest.raises(UsageError, match="NUL byte"):
        run_hook("prestart", 0, Configured("/bin/true", ("true", "\0")), STATE)


@pytest.mark.parametrize(
    "hook",
    [Configured("bin/true"), Configured("/bin/true", timeout=0), Configured("/bin/true", env=("A",))],
    ids=["relative", "timeout", "environment"],
)
def test_what_is_malformed(hook: Configured) -> None:
    with pytest.raises(UsageError, match="prestart hook 2"):
        run_hook("prestart", 2, hook, STATE)


def test_no_descriptor_is_left() -> None:
    run_hook("prestart", 0, Configured("/bin/true"), STATE)  # the launcher's copy in memory stays
    before = sorted(os.listdir("/proc/self/fd"))
    run_hook("prestart", 0, Configured("/bin/true"), STATE)
    with pytest.raises(WorkloadError):
        run_hook("prestart", 0, Configured("/bin/false"), STATE)
    assert sorted(os.listdir("/proc/self/fd")) == before
