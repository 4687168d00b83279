"""The launcher and its client, compiled with sanitizers: what they read and do is clean."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from runtime.cgroups import Cgroup, hierarchies
from runtime.launcher import STATIC_BINARY
from runtime.launcher.build import BINARY, HERE, INCLUDES, PACKAGES, WARNINGS, sources
from runtime.plan import steps as s
from runtime.plan.encode import encode
from runtime.plan.steps import Plan
from runtime.plan.workload import workload_plan
from runtime.spec import Process, Resources, Spec
from tests.runtime.command_line import make_runtime
from tests.runtime.launcher.damaged_plans import DAMAGED
from tests.runtime.launcher.test_binary import write_plan
from tests.waiting import until


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher with the address and undefined-behaviour sanitizers, with what it starts around it."""
    runtime = tmp_path_factory.mktemp("sanitized") / "runtime"
    (runtime / "launcher").mkdir(parents=True)
    for path in (*HERE.parent.iterdir(), *HERE.iterdir()):
        if path not in (HERE, BINARY):
            (runtime / path.relative_to(HERE.parent)).symlink_to(path)
    binary = runtime / "launcher" / BINARY.name
    used = [path for path in sources() if not path.endswith("/start.c")]  # a C library starts it
    flags = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags += [f'-DPYTHON="{sys.executable}"', f'-DPACKAGES="{PACKAGES}"', f'-DVERSION="test-{os.getpid()}"']
    subprocess.run(["gcc", *WARNINGS, *INCLUDES, *flags, "-o", str(binary), *used], check=True)
    return binary


@pytest.mark.parametrize(
    ("passwd", "home"),
    [
        (b"a:x:1::/one:\nb:x:7:7::/seven\n", "/seven"),
        (b"b:x:7:7::/seven", "/seven"),
        (b"b:x:7", "/"),
        (b"b:x:7:7::", "/"),
        (b"b:x:7:7::" + b"h" * 4090 + b"\n", "h" * 4090),
        (b"b:x:7:7::" + b"h" * 4091 + b"\n", "/"),
        (b"b:x:7:7::" + b"h" * 4095 + b"\n", "/"),
        (b"b:x:7:7::" + b"h" * 1_000_000 + b"\n", "/"),
        (b"b:x:" + b"7" * 1_000_000 + b":7::/x\n", "/"),
        (b"b:x:18446744073709551623:7::/x\nb:x::7::/x\nb:x:7 :7::/x\nb:x:-7:7::/x", "/"),
        (bytes(range(256)) * 4096, "/"),
        (b"\n" * ((1 << 20) + 1), "/"),
    ],
    ids=range(12),
)
def test_whoever_is_at_home_is_found_within_bounds(sanitized: Path, tmp_path: Path, passwd: bytes, home: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(passwd)
    finding = (s.Chdir(str(tmp_path)), s.Open(".", s.ROOT_FD), s.FindHome(7))
    plan = write_plan(tmp_path / "p", *finding, s.Exec(("env",), ("A=b", "HOME=/"), "/bin:/usr/bin", at_home=True))
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([sanitized, plan], capture_output=True, text=True, env=environment, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"A=b\nHOME={home}\n"), done.stderr


def test_reading_is_clean_under_the_sanitizers(sanitized: Path, tmp_path: Path) -> None:
    """Every truncation, and a flip of every bit of the structure, is read without a fault."""
    # A parent's step that always fails comes first, so that nothing that survives the reader is performed.
    fails = s.Chdir("/nowhere/at/all")
    good = encode(
        Plan(
            parent=(fails,),
            child=(
                s.SetUser(0, 0, (1,)),
                *s.forked(s.Write("/x", ("a", "b")), s.Exec(("f",))),
                s.FindHome(7),
                s.Exec(("a", "b"), ("c=d",), "/e", at_home=True),
            ),
        )
    )
    damaged = [good[:size] for size in range(0, len(good), 5)]
    damaged += [good[:i] + bytes([good[i] ^ 0x81]) + good[i + 1 :] for i in range(8, len(good), 3)]
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}  # the plan lives as long as the process
    for number, data in enumerate(damaged):
        path = tmp_path / str(number)
        path.write_bytes(data)
        done = subprocess.run([sanitized, path], capture_output=True, text=True, errors="replace", env=environment)
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
        path.unlink()


@pytest.mark.parametrize("name", DAMAGED)
def test_a_plan_that_once_crashed_it_is_refused(sanitized: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "p"
    path.write_bytes(DAMAGED[name])
    for launcher in (sanitized, STATIC_BINARY):
        done = subprocess.run([launcher, path], capture_output=True, text=True, timeout=10, cwd=tmp_path)
        assert clean(done.stderr) and done.returncode == 125, done.stderr


def test_serving_is_clean_under_the_sanitizers(sanitized: Path, tmp_path: Path) -> None:
    """Plans of every length up to the largest, one after the other in the same bytes, and then something else."""
    plan = write_plan(tmp_path / "p", s.ServePlans(0), s.Exec(("/bin/true",)))
    served = [s.Write(str(tmp_path / "x"), ("y" * size,), create=True) for size in (0, 7, 60_000, 3)]
    data = b"".join(encode(Plan((*s.forked(s.Chdir("/nowhere")), step))) for step in served) + b"\xff" * 40
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([sanitized, plan], input=data, capture_output=True, env=environment, timeout=30)
    assert clean(done.stderr.decode()) and done.returncode == 125, done.stderr
    assert (tmp_path / "x").read_text() == "yyy"
    assert done.stderr.count(b"chdir /nowhere: ENOENT") == len(served)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def clean(stderr: str) -> bool:
    return "Sanitizer" not in stderr and "runtime error" not in stderr


@pytest.mark.root
def test_a_whole_container_is_clean_under_the_sanitizers(
    sanitized: Path, tmp_path: Path, busybox_layer: Path, cgroup_parent: str
) -> None:
    """Every step of a default container's plan is performed, not only read."""
    spec = Spec(Process(args=("/bin/sh", "-c", "echo inside; exit 3")), (str(busybox_layer),), "one", Resources(pids=9))
    name = f"{cgroup_parent}/c"
    (tmp_path / "p").write_bytes(encode(workload_plan(spec, hierarchies(), name)))
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([sanitized, tmp_path / "p"], capture_output=True, text=True, env=environment)
    Cgroup(name).remove()
    assert clean(done.stderr) and (done.returncode, done.stdout) == (3, "inside\n"), done.stderr


@pytest.mark.root
@pytest.mark.parametrize("planner", ["20", "off"])
def test_the_client_is_clean_under_the_sanitizers(
    sanitized: Path, tmp_path: Path, busybox_layer: Path, run_name: str, planner: str
) -> None:
    """With a planner that its first call starts, or an interpreter for each."""
    runtime = make_runtime(tmp_path, busybox_layer, run_name)
    client = tmp_path / "testbed-runtime"
    client.symlink_to(sanitized)

    def operate(*arguments: str, status: int = 0) -> str:
        command = [str(client), "--root", str(runtime.root), *arguments]
        environment = {"ASAN_OPTIONS": "detect_leaks=0", "TESTBED_PLANNER": planner}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=60, cwd=runtime.bundle
        )  # fmt: skip
        assert clean(done.stderr) and done.returncode == status, done.stderr
        return done.stdout

    runtime.shell("echo inside; exit 3")
    assert operate("run", "a", status=3) == "inside\n"
    assert not list(runtime.root.iterdir())
    runtime.shell("sleep 1000")
    for deletion in (("delete", "a"), ("delete", "--force", "a")):
        runtime("create", "a")
        assert '"created"' in operate("state", "a")
        operate("start", "a")
        assert '"running"' in operate("state", "a")
        pid = runtime.state("a")["pid"]
        operate("exec", "a", "sh", "-c", "exit 5", status=5)
        operate("kill", "--all", "a", "CONT")
        if deletion == ("delete", "a"):
            operate("kill", "a", "KILL")
            until(partial(gone, pid))  # a zombie has a line of its own to read
            assert '"stopped"' in operate("state", "a")
        operate(*deletion)
    assert not list(runtime.root.iterdir())
    Cgroup(run_name).remove()
