"""Commands that wait for what does not come: they end, or deletion by force ends them; and what was killed before it
executed its program is not taken for a program that ran."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from runtime.errors import TestbedError
from runtime.launcher import Launch
from runtime.oci.force import _has_open
from runtime.plan import steps as s
from tests.runtime.command_line import Runtime, unique
from tests.waiting import until

pytestmark = pytest.mark.root


def begun(runtime: Runtime, *arguments: str) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return subprocess.Popen(runtime.command(*arguments), cwd=runtime.bundle, stdin=null, stdout=null, stderr=null)


def test_a_paused_container_is_not_started(oci: Runtime) -> None:
    """Its process would wait for ever, and whoever starts it with it."""
    oci.shell("sleep 1000")
    oci("create", "a")
    oci("pause", "a")
    assert oci.state("a")["status"] == "paused"
    assert "it is paused" in oci("start", "a", check=False).stderr
    oci("resume", "a")
    assert oci.state("a")["status"] == "created"
    oci("start", "a")
    oci("delete", "--force", "a")


def test_a_paused_container_that_was_not_started_is_deleted(oci: Runtime) -> None:
    oci("create", "a")
    oci("pause", "a")
    oci("delete", "--force", "a")


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_start_that_hangs_does_not_keep_the_container_from_being_deleted(oci: Runtime) -> None:
    oci("create", "a")
    os.kill(oci.state("a")["pid"], signal.SIGSTOP)
    starting = begun(oci, "start", "a")
    until(lambda: is_locked(oci.root / "a" / "lock"))
    oci("delete", "--force", "a")
    # 0 where the host's first process has reaped it by then: nobody can tell whether it had executed its program.
    assert starting.wait(10) in (0, 1)


def test_a_hook_that_hangs_does_not_keep_the_container_from_being_deleted(oci: Runtime, tmp_path: Path) -> None:
    config = oci.config()
    script = f"echo $$ > {tmp_path}/hook; exec sleep 1000"
    config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    oci.configure(config)
    creating = begun(oci, "create", "a")
    try:
        until(lambda: (tmp_path / "hook").exists() and (tmp_path / "hook").read_text())
        oci("delete", "--force", "a")
        assert creating.wait(10) != 0
    finally:
        os.kill(int((tmp_path / "hook").read_text()), signal.SIGKILL)


def test_who_only_has_the_number_of_a_holder_is_left_alone(oci: Runtime) -> None:
    """The lock was taken by a process that passed it on and ended; here by one that closed the file, so to say."""
    oci("create", "a")
    with (oci.root / "a" / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        holder = subprocess.Popen(["sleep", "1000"], pass_fds=[lock.fileno()])
    try:
        done = oci("delete", "--force", "a", check=False)
        assert done.returncode == 1 and "another command works on it" in done.stderr
        assert holder.poll() is None  # and this process is still there
    finally:
        holder.kill()
        holder.wait()
    oci("delete", "--force", "a")


def test_the_holder_of_a_lock_is_who_has_the_file_open(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert _has_open(os.getpid(), tmp_path / "lock") and not _has_open(1, tmp_path / "lock")


def test_killed_before_it_executed_is_an_error() -> None:
    plan = s.Plan((s.Sync(1), s.Exec(("/bin/true",))))
    with Path(os.devnull).open("r+b") as null, Launch(plan, {fd: null.fileno() for fd in range(3)}) as launch:
        assert launch.next() is not None
        os.kill(launch.known_pid(), signal.SIGKILL)
        with pytest.raises(TestbedError, match="killed before it executed its program"):
            launch.next()
    with pytest.raises(ChildProcessError):
        os.waitpid(launch.pid, 0)


def test_killed_right_after_it_executed_is_none() -> None:
    plan = s.Plan((s.Exec(("/bin/sh", "-c", "kill -KILL $$")),))
    with Path(os.devnull).open("r+b") as null, Launch(plan, {fd: null.fileno() for fd in range(3)}) as launch:
        until(lambda: launch.pid or launch.next() is None)
        assert os.waitstatus_to_exitcode(os.waitpid(launch.pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("commands", [("run",), ("create", "start")])
@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_that_forbids_everything(
    oci: Runtime, action: str, commands: tuple[str, ...], no_new_privileges: bool
) -> None:
    """It forbids even to end: with an error, or with a signal."""
    config = oci.config()
    config["linux"]["seccomp"] = {"defaultAction": action, "architectures": ["SCMP_ARCH_X86_64"]}
    config["process"]["noNewPrivileges"] = no_new_privileges
    oci.configure(config)
    *before, last = commands
    for command in before:
        oci(command, "a")
    done = oci(last, "a", check=False)
    if last == "start" and done.returncode == 0:  # the host's first process had reaped it by then: nobody can tell
        assert oci.state("a")["status"] == "stopped"
    else:
        assert done.returncode == 1 and "error: " in done.stderr and "Traceback" not in done.stderr, done
    oci("delete", "--force", "a")


def test_a_run_whose_process_cannot_be_recorded_is_not_done_twice(oci: Runtime, tmp_path: Path) -> None:
    config = oci.config()
    del config["linux"]["cgroupsPath"]
    oci.configure(config)
    oci.shell("echo x >> /count; exec sleep 0.5")
    count, name = oci.bundle / "rootfs" / "count", unique("a")
    oci("run", name)
    assert count.read_text() == "x\n"
    inject = ["-einject=renameat2:error=ENOSPC:when=2", "-einject=rename:error=ENOSPC:when=2"]
    lines = oci.traced([*inject, "-e", "trace=renameat2,rename,write"], "run", name)
    assert [text for _, text in lines if "ENOSPC" in text and "process" in text], lines
    assert count.read_text() in ("x\n", "x\nx\n")
    oci("delete", "--force", name)
