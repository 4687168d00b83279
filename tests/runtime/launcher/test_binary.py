"""The static launcher: a plan from a file, in place as a wrapper, and under the sanitizers."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import termios
import time
from contextlib import suppress
from pathlib import Path
from stat import S_IFIFO

import pytest

from runtime.launcher import STATIC_BINARY, StepError, launch
from runtime.plan import steps as s
from runtime.plan.constants import CLONE_NEWPID
from runtime.plan.encode import encode
from runtime.plan.steps import Plan
from tests.waiting import until


def write_plan(path: Path, *child: s.Step) -> Path:
    path.write_bytes(encode(Plan(child=child)))
    return path


def test_it_runs_a_plan_and_passes_the_exit_status(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "p", s.Exec(("sh", "-c", "echo $A; exit 3"), ("A=b",), "/bin:/usr/bin"))
    done = subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "b\n")


def test_an_error_names_step_operation_path_and_reason(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "p", s.Umask(0), s.Chdir("/nowhere"), s.Exec(("true",)))
    done = subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True)
    assert done.returncode == 125
    assert done.stderr == "testbed: step 1: chdir /nowhere: ENOENT (2)\n"


def test_every_error_of_the_kernel_has_its_name(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "s"))
        plan = write_plan(tmp_path / "p", s.RequestAdmission(str(tmp_path / "s")), s.Exec(("true",)))
        done = subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True)
    assert done.stderr.endswith(": ECONNREFUSED (111)\n")


@pytest.mark.parametrize("parent", [True, False])
def test_a_step_that_fails_before_or_after_the_clone_is_told_and_ends_the_child(tmp_path: Path, parent: bool) -> None:
    fails: tuple[s.Step, ...] = (s.Open("/nowhere", 112),)
    last: tuple[s.Step, ...] = (s.Exec(("/bin/true",)),)
    plan = Plan(parent=fails, child=last) if parent else Plan(child=(*fails, *last))
    (tmp_path / "p").write_bytes(encode(plan))
    done = subprocess.run([STATIC_BINARY, tmp_path / "p"], capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (125, "testbed: step 0: open /nowhere: ENOENT (2)\n")
    with pytest.raises(StepError, match="step 0: open /nowhere"):
        launch(plan, stdin=0, stdout=1, stderr=2)


def test_a_file_system_that_cannot_map_ids_is_told_from_other_mistakes() -> None:
    mapped = Plan(child=(s.OpenTree("/layer", 112, userns="/proc/self/fd/111"), s.Exec(("/bin/true",))))
    assert "cannot map ids on the file system there" in StepError(mapped, 0, errno.EINVAL).hint
    assert StepError(mapped, 0, errno.EPERM).hint == ""
    assert StepError(Plan(child=(s.OpenTree("/layer", 112), *mapped.child[1:])), 0, errno.EINVAL).hint == ""


def test_a_tolerated_error_does_not_stop_the_plan(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "p", s.Chdir("/nowhere", tolerate=(2,)), s.Exec(("/bin/true",)))
    assert subprocess.run([STATIC_BINARY, plan]).returncode == 0


def say(text: str) -> s.Exec:
    return s.Exec(("/bin/sh", "-c", text), ("A=b",), "/bin")


@pytest.mark.parametrize(("end", "status"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_the_first_named_process_to_end_ends_the_plan(tmp_path: Path, end: str, status: int) -> None:
    """An end without a name is nobody's concern, nor is that of a process which another one left behind."""
    stays, goes = tmp_path / "stays", say("exit 1")
    plan = write_plan(
        tmp_path / "p",
        *s.forked(say(f"echo $$ > {stays}; exec sleep 60 >&- 2>&-")),
        *s.forked(goes),
        *s.forked(say(f"while ! [ -s {stays} ]; do :; done; {end}")),
        s.WaitFirstExit(("store", "", "web")),
    )
    done = subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True, timeout=10)
    os.kill(int(stays.read_text()), signal.SIGKILL)
    assert (done.stderr, done.returncode) == (f"testbed: web: ended: {status}\n", status)


def test_one_that_may_leave_leaves_the_others_unless_it_is_the_last(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    plan = write_plan(
        tmp_path / "p",
        *s.forked(say(f": > {gone}; exit 4")),
        *s.forked(say(f"while ! [ -e {gone} ]; do :; done; sleep 0.2; exit 6")),
        s.WaitFirstExit(("setup", "web"), leaving=0b11),
    )
    done = subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True, timeout=10)
    assert (done.stderr, done.returncode) == ("testbed: setup: left: 4\ntestbed: web: ended: 6\n", 6)


def test_a_held_process_waits_for_the_word_that_another_passes_on(tmp_path: Path) -> None:
    """As the services of a guest do that wait for others."""
    fifo = tmp_path / "held"
    plan = write_plan(
        tmp_path / "p",
        s.Mknod(str(fifo), 0, 0, S_IFIFO | 0o600),
        *s.forked(s.WaitInput(0), s.Write(str(fifo), ("go",))),
        *s.forked(s.Open(str(fifo), 9), s.WaitInput(9), s.Close(9), say("exit 7")),
        s.WaitFirstExit(("", "web")),
    )
    with subprocess.Popen([STATIC_BINARY, plan], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        time.sleep(0.2)
        assert process.poll() is None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(10) == 7


def test_forked_steps_are_a_process_of_their_own(tmp_path: Path) -> None:
    """Each executes its own program with its own arguments; only the last one's status is the plan's."""
    first, second = tmp_path / "first", tmp_path / "second"
    plan = write_plan(
        tmp_path / "p",
        *s.forked(s.Chdir("/usr"), say(f"echo $PWD $A > {first}; exit 9")),
        *s.forked(s.Umask(0o77), s.Write(str(second), ("no exec",), create=True)),
        say(f"while ! [ -s {first} ] || ! [ -s {second} ]; do :; done; pwd; exit 4"),
    )
    done = subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True, cwd="/", timeout=10)
    assert (done.returncode, done.stdout) == (4, "/\n")
    assert (first.read_text(), second.read_text()) == ("/usr b\n", "no exec")
    assert second.stat().st_mode & 0o777 == 0o600


def test_a_forked_process_that_fails_says_so_and_the_others_go_on(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "p", *s.forked(s.Umask(0), s.Chdir("/nowhere")), say("sleep 0.3; exit 5"))
    done = subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (5, "testbed: step 2: chdir /nowhere: ENOENT (2)\n")


def test_a_forked_process_answers_each_time_it_is_asked(tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.write_text("first\n")
    ours, theirs = socket.socketpair()
    answering = s.forked(s.ServeFile(str(told), 0, "that is all"))
    plan = write_plan(tmp_path / "p", *answering, say("exec sleep 10"))
    with ours, subprocess.Popen([STATIC_BINARY, plan], stdin=theirs.fileno()) as process:
        theirs.close()
        ours.settimeout(10)
        answers = ours.makefile()
        for text in ("first\n", "second, and longer\n"):
            told.write_text(text)
            ours.sendall(b"?")
            assert answers.readline() + answers.readline() == text + "that is all\n"
        process.kill()


@pytest.mark.parametrize(
    ("word", "status", "error"), [("x", 5, ""), ("", 125, "testbed: step 0: wait input : EPIPE (32)\n")]
)
def test_it_waits_for_a_word(word: str, status: int, error: str, tmp_path: Path) -> None:
    """Of a pipe that is closed instead, none will come."""
    plan = write_plan(tmp_path / "p", s.WaitInput(0), say("exit 5"))
    done = subprocess.run([STATIC_BINARY, plan], input=word, capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (status, error)


def test_what_cannot_be_told_is_an_error(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "p", s.ServeFile("/nowhere", 0, ""), say("true"))
    done = subprocess.run([STATIC_BINARY, plan], input="?", capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (125, "testbed: step 0: serve file /nowhere: ENOENT (2)\n")


@pytest.mark.root
def test_a_forked_process_can_have_namespaces_of_its_own(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "p", *s.forked(say("echo $$"), flags=CLONE_NEWPID), say("sleep 0.3"))
    done = subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True, timeout=10)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    "steps, reason",
    [
        ((s.Fork(2), s.Umask(0)), "a fork's steps are not all there"),
        ((s.Fork(0), s.Umask(0)), "a fork's steps are not all there"),
        ((s.Fork(2), s.Fork(1), s.Umask(0)), "a fork within a fork"),
        ((*s.forked(s.Exec(("a",)), s.Exec(("b",))), s.Exec(("c",))), "two exec steps in one process"),
        ((*s.forked(s.Exec(("a",))), s.Exec(("b",)), s.Exec(("c",))), "two exec steps in one process"),
        ((s.Exec(("a",), at_home=True),), "an exec step without a variable for the home directory"),
        (
            (s.Exec(("a",), ("HOME=/",), append_arguments=True, at_home=True),),
            "an exec step without a variable for the home directory",
        ),
    ],
)
def test_steps_that_do_not_fit_are_refused(tmp_path: Path, steps: tuple[s.Step, ...], reason: str) -> None:
    done = subprocess.run([STATIC_BINARY, write_plan(tmp_path / "p", *steps)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (125, f"testbed: {tmp_path}/p: {reason}\n")


@pytest.mark.parametrize(
    "step",
    [
        s.SetUser(1 << 32, 0),
        s.SetUser((1 << 32) - 1, 0),
        s.SetUser(0, 1 << 32),
        s.ChownStdio(1 << 32),
        s.Umask(1 << 40),
        s.Mkdir("/x", 1 << 33),
        s.Mknod("/x", 1 << 40, 0),
        s.Mknod("/x", 1 << 12, 0),
        s.Mknod("/x", 0, 1 << 20),
        s.Mknod("/x", 0, 0, uid=1 << 32),
        s.Open("/dev/null", 1 << 32),
        s.ServePlans(1 << 32),
        s.NewUserNamespace((1 << 32) + 1, "", ""),
        s.Unshare(1 << 32),
        s.Terminal(1 << 32),
        s.Terminal(0, 1 << 16),
        s.SetRlimit(1 << 32, 0, 0),
        s.Personality(1 << 32),
        s.IOPriority(1 << 32),
    ],
    ids=repr,
)
def test_a_number_that_its_use_would_cut_off_is_refused(tmp_path: Path, step: s.Step) -> None:
    """Before anything is done: none becomes root's, or another's, by what is left of it."""
    first = s.Write(str(tmp_path / "written"), ("x",), create=True)
    plan = write_plan(tmp_path / "p", first, step, s.Exec(("/bin/true",)))
    done = subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (125, f"testbed: {plan}: malformed step\n")
    with pytest.raises(StepError, match="read the plan: Invalid argument"):
        launch(Plan((first, step, s.Exec(("/bin/true",)))), stdin=0, stdout=1, stderr=2)
    assert not (tmp_path / "written").exists()


@pytest.mark.root
def test_who_holds_a_user_namespace_ends_with_the_launcher(tmp_path: Path) -> None:
    """The launcher is killed when it writes the first map."""
    plan = write_plan(tmp_path / "p", s.NewUserNamespace(112, "0 0 1\n", "0 0 1\n"), s.Exec(("/bin/true",)))
    command = ["strace", "-f", "-q", "-o", "/dev/null", "-e", "inject=write:signal=KILL:when=1"]
    null = subprocess.DEVNULL
    subprocess.run([*command, str(STATIC_BINARY), str(plan)], stdout=null, stderr=null, timeout=20)

    def holders() -> list[Path]:
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                found += [file] if str(plan).encode() in file.read_bytes() else []
        return found

    until(lambda: not holders(), 5, holders)


def serve(tmp_path: Path, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """A launcher that serves the plans in ``data``."""
    plan = write_plan(tmp_path / "p", s.ServePlans(0), s.Exec(("/bin/true",)))
    return subprocess.run([STATIC_BINARY, plan], input=data, capture_output=True, timeout=10)


def test_plans_that_come_later_are_performed_one_by_one(tmp_path: Path) -> None:
    """One that fails does not keep the next from being performed; the plan goes on when no more come."""
    first, second = (s.Write(str(tmp_path / name), (name,), create=True) for name in ("first", "second"))
    plans = [Plan((first,)), Plan((s.Umask(0), s.Chdir("/nowhere"))), Plan((second,))]
    done = serve(tmp_path, b"".join(map(encode, plans)))
    assert (done.returncode, done.stderr) == (0, b"testbed: step 1: chdir /nowhere: ENOENT (2)\n")
    assert [(tmp_path / name).read_text() for name in ("first", "second")] == ["first", "second"]


@pytest.mark.parametrize(
    "data, error",
    [
        (b"no plan at all", b"(71)"),
        (encode(Plan((s.Umask(0),)))[:8] + b"\xff" * 24, b"(71)"),
        (encode(Plan((s.Exec(("/bin/true",)),))), b"EINVAL (22)"),
        (encode(Plan((s.Umask(0),))).replace(b"TBPLAN", b"tbplan"), b"EINVAL (22)"),
    ],
)
def test_what_is_no_plan_to_serve_ends_it(tmp_path: Path, data: bytes, error: bytes) -> None:
    done = serve(tmp_path, data)
    assert done.returncode == 125
    assert done.stderr.startswith(b"testbed: step 0: serve") and error in done.stderr, done.stderr


def test_a_served_plan_may_fork(tmp_path: Path) -> None:
    path = tmp_path / "forked"
    fails = s.forked(s.Write(str(path), ("x",), create=True), s.Chdir("/nowhere"))
    done = serve(tmp_path, encode(Plan((*fails, s.WaitPath(str(path))))))
    assert (done.returncode, path.read_text()) == (0, "x")


def test_plans_pass_through_a_terminal_unchanged(tmp_path: Path) -> None:
    """Whatever its bytes mean to a terminal: interrupt, end of file, carriage return."""
    path, text = tmp_path / "bytes", "\x03\x04\r\x11\x13\x1a\x7f\n"
    ours, theirs = os.openpty()
    plan = write_plan(tmp_path / "p", s.ServePlans(0))
    with subprocess.Popen([STATIC_BINARY, plan], stdin=theirs, stderr=subprocess.PIPE) as process:
        while termios.tcgetattr(theirs)[3] & termios.ICANON:
            time.sleep(0.001)
        os.write(ours, encode(Plan((s.Write(str(path), (text,), create=True), s.LogLine("done")))))
        assert process.stderr and process.stderr.readline() == b"done\n"
        process.kill()
    os.close(ours)
    os.close(theirs)
    assert path.read_bytes() == text.encode()


def test_a_wrapper_passes_its_arguments_and_environment_on(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "p", s.Exec(("/bin/sh", "-c", 'echo "$0 $B"'), append_arguments=True))
    environment = {"TESTBED_PLAN": str(plan), "B": "kept"}
    done = subprocess.run([STATIC_BINARY, "argument"], env=environment, capture_output=True, text=True)
    assert done.stdout == "argument kept\n"


def test_a_plan_beside_the_binary_is_performed_in_place(tmp_path: Path) -> None:
    wrapper = tmp_path / "wrapper"
    os.link(STATIC_BINARY, wrapper) if STATIC_BINARY.stat().st_dev == tmp_path.stat().st_dev else wrapper.write_bytes(
        STATIC_BINARY.read_bytes()
    )
    wrapper.chmod(0o755)
    write_plan(tmp_path / "wrapper.plan", s.Exec(("/bin/echo", "first"), append_arguments=True))
    done = subprocess.run([wrapper, "second"], capture_output=True, text=True)
    assert done.stdout == "first second\n"


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("#!/bin/sh\n" * 20)
    done = subprocess.run([STATIC_BINARY, tmp_path / "p"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (125, f"testbed: {tmp_path}/p: not a plan\n")


def test_the_binary_is_hardened() -> None:
    """Position-independent, no segment both writable and executable, none executable that is a stack, no relocation
    that would need a loader, and every function with an array checks its stack."""
    read = ["readelf", "-W", "--file-header", "--segments", "--relocs", "--symbols", str(STATIC_BINARY)]
    text = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    assert "DYN (" in text and "There are no relocations" in text and "INTERP" not in text
    segments = [line.split() for line in text.splitlines() if line.strip().startswith(("LOAD", "GNU_STACK"))]
    assert segments and not [line for line in segments if "RWE" in "".join(line[6:-1])]
    assert "GNU_RELRO" in text and "__stack_chk_fail" in text


def test_a_program_may_have_another_name(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "p", s.Exec(("other", "-c", "echo $0"), program="/bin/sh"))
    assert subprocess.run([STATIC_BINARY, plan], capture_output=True, text=True).stdout == "other\n"
