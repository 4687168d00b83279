"""How long a planner stays, what it has of its first caller's, and planners that a service manager starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from runtime import planners
from runtime.launcher.build import COMMAND, PACKAGES
from runtime.oci.planner import idle_s
from tests.runtime.command_line import Runtime
from tests.runtime.planner_host import PlannerHost, planner_host
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
INTERPRETER = ROOT / "runtime" / "oci" / "interpreter.py"


@pytest.fixture
def host(oci: Runtime) -> Iterator[PlannerHost]:
    with planner_host(oci) as found:
        yield found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 60), ("off", 0), ("0", 0), ("2.5", 2.5), ("300", 300), ("-1", 60), ("nan", 60), ("1e9", 60), ("soon", 60)],
)
def test_how_long_it_stays(text: str, seconds: float) -> None:
    assert idle_s(text) == seconds


@pytest.mark.root
def test_it_goes_when_nobody_asks_and_takes_its_socket_along(host: PlannerHost) -> None:
    environment = {**os.environ, "TESTBED_PLANNER": "1"}
    host.oci("list", env=environment)
    until(host.sockets)
    until(lambda: not host.planners(), 15)
    assert host.sockets() == []


@pytest.mark.root
def test_none_is_left_where_none_is_wanted(host: PlannerHost) -> None:
    host.oci("list", env={**os.environ, "TESTBED_PLANNER": "off"})
    until(lambda: not host.planners())
    assert host.sockets() == []


# A parent of that name that adopts orphans, runs the arguments, and ends when it has no child any more.
ADOPTER = """
import ctypes, os, subprocess, sys
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(15, sys.argv[1].encode(), 0, 0, 0) == 0 and prctl(36, 1, 0, 0, 0) == 0  # PR_SET_NAME, _CHILD_SUBREAPER
subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL)
try:
    while sys.argv[1] == "conmon":
        os.wait()
except ChildProcessError:
    pass
"""


@pytest.mark.root
@pytest.mark.parametrize(("parent", "stays"), [("conmon", False), ("another", True)])
def test_it_does_not_keep_conmon_which_waits_for_all_that_it_adopted(
    host: PlannerHost, parent: str, stays: bool
) -> None:
    state = str(host.oci.root)
    host.host.run(sys.executable, "-c", ADOPTER, parent, str(COMMAND), "--root", state, "list")  # within a minute
    assert bool(until(host.sockets) if stays else host.planners()) == stays


@pytest.mark.root
def test_it_has_nothing_of_its_first_callers(host: PlannerHost, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as held:
        host.oci("list", env={**os.environ, "SECRET": "word"}, pass_fds=[held.fileno()])
    (planner,) = until(host.planners)
    until(host.sockets)
    process = Path(f"/proc/{planner}")
    assert b"SECRET" not in (process / "environ").read_bytes()
    assert os.readlink(process / "cwd") == "/"
    assert os.getsid(planner) != os.getsid(0)
    targets = []
    for descriptor in (process / "fd").iterdir():
        with suppress(FileNotFoundError):  # it has not come to rest, and what it reads comes and goes
            targets.append(os.readlink(descriptor))
    assert not [target for target in targets if target.startswith((str(tmp_path), "/dev/pts"))]
    assert [os.readlink(process / "fd" / str(number)) for number in range(3)] == ["/dev/null"] * 3


@pytest.mark.root
def test_it_keeps_no_mount_namespace_alive(oci: Runtime) -> None:
    script = 'readlink /proc/self/ns/mnt && exec "$@" >/dev/null'
    unshare = ("unshare", "--mount", "sh", "-c", script, "sh")
    listed = subprocess.run([*unshare, COMMAND, "--root", oci.root, "list"], check=True, capture_output=True, text=True)

    def is_in_it(pid: int) -> bool:
        with suppress(FileNotFoundError):
            return os.readlink(f"/proc/{pid}/ns/mnt") == listed.stdout.strip()
        return False

    until(lambda: not any(is_in_it(resident.pid) for resident in planners.residents(os.environ)), 20)


@pytest.mark.root
def test_a_service_manager_can_start_it(host: PlannerHost) -> None:
    """As systemd does: with the socket as descriptor 3, and the process's number in the environment."""
    host.warm()
    (path,) = host.sockets()
    host.end()
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        directory = os.open(path.parent, os.O_PATH)
        listening.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)
        listening.listen()
        script = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid());"
        script += " os.environ['LISTEN_FDS'] = '1'; os.execv(sys.argv[2], sys.argv[2:])"
        words = [sys.executable, "-I", "-S", str(INTERPRETER), str(PACKAGES), "planner", "60"]
        command = [*host.host.inside, sys.executable, "-c", script, str(listening.fileno()), *words]
        with subprocess.Popen(command, pass_fds=[listening.fileno()]) as manager:
            host.oci.shell("exec sleep 1000")
            host.oci("create", "a")
            host.oci("delete", "--force", "a")
            assert host.planners() == [manager.pid]
            manager.terminate()
            assert manager.wait(20) == 0
    assert path.is_socket(), "the socket is its manager's"
