"""Runs that the launcher does by itself: the same as the interpreter's, and only while all is as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.prepared import MAGIC, file_name

from runtime.cgroups.placing import all_hierarchies
from runtime.launcher import STATIC_BINARY
from tests.runtime.oci import Runtime, assert_no_cgroup, unique
from tests.waiting import until

pytestmark = pytest.mark.root

A, B = unique("a"), unique("b")
BY_ITSELF = "run by the launcher"
BY_PYTHON = "run by the interpreter"


@pytest.fixture
def plain(oci: Runtime) -> Iterator[Runtime]:
    """A bundle whose cgroup is the runtime's to name."""
    config = oci.config()
    del config["linux"]["cgroupsPath"]
    oci.configure(config)
    yield oci
    left = [path for path in oci.root.iterdir() if not path.name.startswith("@")]
    assert not left, "a container's state is left"
    assert_no_cgroup(A, all_hierarchies())


def by_whom(runtime: Runtime, name: str = A) -> str:
    """Run the container, which must sleep, and say who does: the launcher or the interpreter."""
    process = subprocess.Popen(runtime.command("run", name), cwd=runtime.bundle)
    try:
        wait_until_running(runtime, name)
        return BY_ITSELF if os.readlink(f"/proc/{process.pid}/exe") == str(STATIC_BINARY) else BY_PYTHON
    finally:
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGKILL or process.returncode == 128 + signal.SIGTERM


def wait_until_running(runtime: Runtime, name: str) -> None:
    until(lambda: '"running"' in runtime("state", name, check=False).stdout, 10)
    pid = runtime.oci.state(name)["pid"]
    until(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes(), 10)


def sleeping(runtime: Runtime) -> None:
    runtime.shell("trap 'exit 143' TERM; sleep 1000 & wait")


def test_the_second_run_needs_no_interpreter(plain: Runtime) -> None:
    sleeping(plain)
    assert [by_whom(plain), by_whom(plain), by_whom(plain, B)] == [BY_PYTHON, BY_ITSELF, BY_ITSELF]


@pytest.mark.parametrize(
    "script", ["echo out; echo err >&2; exit 7", "kill -KILL $$", "cat", "id; cat /proc/self/cgroup"]
)
def test_both_give_the_same(plain: Runtime, script: str) -> None:
    plain.shell(script)
    first = plain("run", A, check=False)
    second = plain("run", A, check=False)
    assert (plain.root / "@prepared" / file_name(str(plain.bundle))).read_bytes().startswith(MAGIC)
    assert (first.returncode, first.stdout, first.stderr) == (second.returncode, second.stdout, second.stderr)


def test_both_make_the_same_container(plain: Runtime) -> None:
    """Seen from inside: mounts, limits, capabilities, descriptors; and the same record outside, but for the process."""
    descriptors = "ls -l /proc/self/fd | sed 's/ [A-Z].*:.. / /; s/[[#][0-9]*/#/'"  # without times and inodes' numbers
    plain.shell(f"cut -d' ' -f4- /proc/self/mountinfo; ulimit -a; grep -v ctxt /proc/self/status; {descriptors}")
    outputs = [plain("run", A).stdout.split("\n") for _ in range(2)]
    differing = [(x, y) for x, y in zip(*outputs, strict=True) if x != y]
    assert not [pair for pair in differing if not pair[0].startswith("Vm") and not pair[0].startswith("Rss")], differing


def test_it_is_a_container_like_any_other_meanwhile(plain: Runtime) -> None:
    sleeping(plain)
    by_whom(plain)
    process = subprocess.Popen(plain.command("run", A), cwd=plain.bundle)
    wait_until_running(plain, A)
    (row,) = json.loads(plain("list", "--format", "json").stdout)
    assert (row["id"], row["status"], row["bundle"]) == (A, "running", str(plain.bundle))
    assert row["created"].endswith("Z") and row["pid"] in json.loads(plain("ps", "--format", "json", A).stdout)
    assert plain("exec", A, "cat", "/proc/1/comm").stdout == "sh\n"
    assert "already exists" in plain("run", A, check=False).stderr
    plain("pause", A)
    plain("resume", A)
    plain("kill", A, "TERM")
    assert process.wait(30) == 143


def test_a_change_is_noticed(plain: Runtime, tmp_path: Path) -> None:
    plain.shell("echo one")
    assert [plain("run", A).stdout for _ in range(2)] == ["one\n"] * 2
    plain.shell("echo two")
    assert [plain("run", A).stdout for _ in range(2)] == ["two\n"] * 2
    other = plain.bundle / "other"
    (plain.bundle / "rootfs").rename(other)
    (plain.bundle / "rootfs").symlink_to(other)  # the path is the same, and where it leads is not
    config = plain.config()
    assert config["root"]["path"] == "rootfs"
    assert plain("run", A).stdout == "two\n"


def test_a_change_of_the_code_is_noticed(plain: Runtime) -> None:
    """One of the files that the plan came out of has another size then."""
    sleeping(plain)
    by_whom(plain)
    file = plain.root / "@prepared" / file_name(str(plain.bundle))
    file.write_bytes(file.read_bytes().replace(b"prepared.py\0", b"preparer.py\0", 1))
    assert [by_whom(plain), by_whom(plain)] == [BY_PYTHON, BY_ITSELF]


@pytest.mark.parametrize("damage", [b"", b"TBRUN\x01\n\0", b"x" * 4096])
def test_a_damaged_file_is_not_used(plain: Runtime, damage: bytes) -> None:
    plain.shell("echo fine")
    plain("run", A)
    (plain.root / "@prepared" / file_name(str(plain.bundle))).write_bytes(damage)
    assert plain("run", A).stdout == "fine\n"


def test_a_failure_is_explained_and_leaves_nothing(plain: Runtime) -> None:
    plain.shell("true")
    plain("run", A)
    (plain.bundle / "rootfs" / "bin" / "sh").unlink()
    done = plain("run", A, check=False)
    assert done.returncode == 1 and "executable file `sh` not found in $PATH" in done.stderr


def test_signals_are_passed_on(plain: Runtime) -> None:
    plain.shell("trap 'echo got it; exit 9' USR1; sleep 1000 & wait")
    for _ in range(2):
        process = subprocess.Popen(plain.command("run", A), cwd=plain.bundle, stdout=subprocess.PIPE, text=True)
        wait_until_running(plain, A)
        time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        assert process.communicate(timeout=30)[0] == "got it\n" and process.returncode == 9


def test_killed_at_every_system_call(plain: Runtime) -> None:
    """delete --force brings back a clean host wherever the launcher was when it was killed."""
    plain.shell("true")
    plain("run", A)
    killed = 0
    points = plain.calls("run", A)
    for call, number in points[points.index(("mkdirat", 1)) :]:
        killed += plain.killed_at(call, number, "run", A)
        plain("delete", "--force", A)
        assert not (plain.root / A).exists(), (call, number)
        assert_no_cgroup(A, all_hierarchies())
    assert killed > 60


def test_what_the_launcher_could_not_do_alone_is_not_prepared(plain: Runtime) -> None:
    config = plain.config()
    config["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    plain.configure(config)
    plain("run", A)
    assert not (plain.root / "@prepared").exists()


def test_no_more_than_some_are_remembered(plain: Runtime) -> None:
    plain.shell("true")
    (plain.root / "@prepared").mkdir(parents=True)
    for number in range(100):
        (plain.root / "@prepared" / f"{number:016x}").touch()
    plain("run", A)
    kept = list((plain.root / "@prepared").iterdir())
    assert len(kept) == 64 and plain.root / "@prepared" / file_name(str(plain.bundle)) in kept
