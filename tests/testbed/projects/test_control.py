"""Applications that are brought up to be used: as containers and as machines, until somebody brings them down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import urllib.request
from pathlib import Path

import pytest

from runtime.errors import UsageError, WorkloadError
from runtime.lease import STATE_ROOT, is_held
from runtime.processes import alive
from testbed import leftovers
from testbed.projects.control import bring_down, check_platform
from testbed.projects.execution import execute
from testbed.projects.logs import read_logs
from testbed.projects.record import Project, choose, find, lease_name
from tests.owned import files_of
from tests.testbed.projects.conftest import COMPOSE, Start, Write
from tests.testbed.projects.test_execution import CALL
from tests.waiting import until

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[3]
# One that is healthy a moment after it has begun, and another that waits for that.
HEALTHY_LATER = (
    "\"trap 'echo asked to end; exit 7' TERM; echo began >&2; busybox sleep 1; : >/ok; echo healthy; "
    'while :; do busybox sleep 0.1; done"'
)
CHECKED = COMPOSE.replace("[side]", "{{side: {{condition: service_healthy}}}}\n    stop_grace_period: 300ms").replace(
    "  side:\n", "  side:\n    healthcheck: {{test: [CMD, busybox, test, -e, /ok], interval: 500ms}}\n"
)


def fetch(project: Project) -> str:
    assert project.record is not None
    (published,) = project.record.published
    with urllib.request.urlopen(f"http://{published.address}:{published.host_port}/index.html", timeout=5) as answer:
        return str(answer.read().decode())


def read(project: Project, service: str) -> list[str]:
    lines: list[str] = []
    assert project.record is not None
    read_logs(project, [project.record.member(service).instance], lambda name, line: lines.append(line))
    return lines


def test_an_application_stays_up_until_it_is_brought_down(start: Start, write_scenario: Write, run_name: str) -> None:
    project = start(write_scenario())
    record = project.record
    assert record is not None and record.ready_s is not None and project.alive
    assert [(one.name, one.state) for one in record.members] == [("side", "running"), ("web", "running")]
    assert os.getsid(record.holder) == record.holder != os.getsid(0), "the terminal's end is not its own"
    assert fetch(project) == "<p>here</p>\n"
    assert read(project, "side") == ["began"]
    assert all((project.memory_bytes(one) or 0) > 0 for one in record.members)
    with pytest.raises(UsageError, match=f"{run_name} is up already"):
        start(Path(record.scenario))
    bring_down(project, 0.5)
    assert find(run_name) is None and not is_held(lease_name(run_name))
    assert not any(alive(one.pid, one.ticks) for one in record.members)
    assert files_of(run_name, Path("/sys/fs/cgroup"), 4) == [] and not project.directory.exists()


def test_a_service_that_ends_is_told_of_and_the_others_stay(start: Start, write_scenario: Write, run_name: str) -> None:
    project = start(write_scenario())
    assert project.record is not None
    os.kill(project.record.member("side").pid, signal.SIGTERM)

    def ended() -> bool:
        now = find(run_name)
        return now is not None and now.record is not None and now.record.member("side").state == "exited"

    until(ended)
    now = choose(run_name)
    assert now.record is not None and now.record.member("side").exit_status == 7
    assert now.record.member("web").state == "running" and fetch(now)
    assert read(now, "side") == ["began", "asked to end"]


def test_a_killed_holder_loses_nothing(start: Start, write_scenario: Write, run_name: str) -> None:
    folder = write_scenario()
    record = start(folder).record
    assert record is not None
    os.kill(record.holder, signal.SIGKILL)
    until(lambda: not is_held(lease_name(run_name)))
    left = [one for one in leftovers.find() if one.run == lease_name(run_name)]
    assert {"process", "cgroup", "directory"} <= {one.kind for one in left}
    assert sum(one.kind == "process" for one in left) >= 2
    dead = choose(run_name)
    assert not dead.alive and read(dead, "side") == ["began"]
    again = start(folder)
    assert fetch(again) and again.record is not None and again.record.holder != record.holder
    assert not any(alive(one.pid, one.ticks) for one in record.members)
    os.kill(again.record.holder, signal.SIGKILL)
    until(lambda: not is_held(lease_name(run_name)))
    bring_down(choose(run_name))
    assert find(run_name) is None


def test_two_are_up_at_once_each_on_ports_of_its_own(start: Start, write_scenario: Write, run_name: str) -> None:
    folder = write_scenario()
    first, second = start(folder), start(folder, f"{run_name}-b")
    assert first.record is not None and second.record is not None
    assert fetch(first) == fetch(second)
    assert first.record.published[0].host_port != second.record.published[0].host_port
    with pytest.raises(UsageError, match="several projects are up"):
        choose("")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ('"echo no way; exit 3"', "the first process of side has ended: exit status 3"),
        ("[]", "begins nothing"),
    ],
)
def test_what_does_not_start_says_why_and_leaves_nothing(
    start: Start, write_scenario: Write, run_name: str, script: str, problem: str
) -> None:
    folder = write_scenario(script)
    if problem == "begins nothing":
        with pytest.raises(UsageError, match=r"compose\.yaml"):
            start(folder)
    else:
        with pytest.raises(WorkloadError, match=problem) as raised:
            start(folder)
        assert "no way" in str(raised.value)
    assert find(run_name) is None and not (STATE_ROOT / lease_name(run_name)).exists()


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ('"no"', "the first process of web has ended: exit status 137"),
        ("always", r"not ready after 4 s: .*; web has ended \d+ times, the last time with: exit status 137"),
    ],
)
def test_what_used_up_its_memory_is_told(start: Start, write_scenario: Write, policy: str, problem: str) -> None:
    compose = COMPOSE.replace("    ports:", f"    restart: {policy}\n    ports:")
    compose = compose.replace('"httpd", "-f", "-p", "{port}", "-h", "/www"', '"tail", "-c", "900000000", "/dev/zero"')
    folder = write_scenario(compose=compose)
    killed = f"{problem}, and the kernel has killed a process: all 128 MiB of memory that it may use were used"
    with pytest.raises(WorkloadError, match=killed):
        start(folder, timeout_s=4.0)


def test_a_service_that_has_done_its_work_is_no_failure(start: Start, write_scenario: Write, run_name: str) -> None:
    project = start(write_scenario('"echo done"'))

    def status() -> int | None:
        now = choose(run_name).record
        return now.member("side").exit_status if now is not None else None

    until(lambda: status() is not None)
    assert status() == 0 and fetch(project)


@pytest.mark.vm
def test_machines_are_brought_up_alike(start: Start, write_scenario: Write, run_name: str) -> None:
    project = start(write_scenario(HEALTHY_LATER, compose=CHECKED), platform="vm")
    assert project.record is not None
    assert fetch(project) == "<p>here</p>\n"
    assert project.record.member("side").health == "healthy"
    said = "\n".join(read(project, "side"))
    assert "began" in said and "healthy" in said, "the other one was started only then"
    words = [sys.executable, "-c", CALL, run_name, "web", "no", "sh", "-c"]
    script = "busybox cat; echo $GREETING >&2; busybox hostname; exit 5"
    done = subprocess.run([*words, script], cwd=ROOT, input="given\n", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (5, "given\nweb\n", "hello\n")
    lots = subprocess.run([*words, "busybox dd if=/dev/zero bs=1M count=2"], cwd=ROOT, capture_output=True, check=True)
    assert len(lots.stdout) == 2 << 20
    with pytest.raises(WorkloadError, match="exec in web: nowhere: No such file") as raised:
        execute(project, "web", ("nowhere",), terminal=False)
    assert raised.value.exit_code == 127
    words[5] = "tty"
    script = "test -t 0 && test -t 1 && busybox stty size && read word && echo got $word"
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (33, 77))
    with subprocess.Popen([*words, script], cwd=ROOT, stdin=slave, stdout=slave, stderr=subprocess.PIPE) as process:
        os.close(slave)
        seen = b""
        while not seen.endswith(b"\n"):  # what is typed before is echoed into it
            seen += os.read(master, 100)
        os.write(master, b"it\r")
        assert process.wait(30) == 0
        seen += os.read(master, 100)
    os.close(master)
    assert seen.startswith(b"33 77\r\n") and seen.endswith(b"got it\r\n")
    with project.log_path(project.record.member("side").instance).open(errors="replace") as console:
        bring_down(project)
        ended = console.read()
    assert "asked to end" in ended and "exitcode=0x00000700" in ended, "PID 1 of the guest got its signal"
    assert find(run_name) is None and files_of(run_name, Path("/sys/fs/cgroup"), 4) == []


def test_what_is_only_for_measuring_is_refused() -> None:
    with pytest.raises(UsageError, match="vm-pooled: it is for measuring"):
        check_platform("vm-pooled")
    with pytest.raises(UsageError, match="unknown platform nowhere"):
        check_platform("nowhere")


@pytest.mark.parametrize("platform", ["container", pytest.param("vm-pod", marks=pytest.mark.vm)])
def test_an_interrupted_up_asks_its_services_to_end_and_leaves_nothing(
    home: Path, write_scenario: Write, run_name: str, platform: str
) -> None:
    folder = write_scenario(compose=COMPOSE.replace("    depends_on:", "    stop_grace_period: 300ms\n    depends_on:"))
    compose = folder / "compose.yaml"
    compose.write_text(compose.read_text().replace("path: /index.html, body: here", "path: /never"))
    front = (sys.executable, "-P", "-m", "reports.commands.front", "--search-root", str(ROOT))
    words = (*front, "up", str(folder), "--share", "--platform", platform)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        said = ""
        while not said.endswith("starting side, web\n"):
            line = process.stderr.readline()
            assert line, said
            said += line
        assert is_held(lease_name(run_name))
        project = choose(run_name)
        assert project.record is not None
        log = project.log_path(project.record.member("side").instance)
        until(lambda: log.exists() and "began" in log.read_text(errors="replace"), 60.0)
        written = log.open(errors="replace")
        process.send_signal(signal.SIGINT)
        assert "interrupted (SIGINT); all that was started has been removed" in process.stderr.read()
    with written:
        assert "asked to end" in written.read()
    assert process.returncode == 130 and find(run_name) is None
