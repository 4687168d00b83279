"""The command line end to end: real runs, their exit codes, and what is left when they are cut short."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import UsageError
from runtime.lease import lease
from testbed.host.turn import take_turn
from tests.owned import no_dead_run_left
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[1]
INVOKE = Path(sys.executable).parent / "invoke"

pytestmark = pytest.mark.root


def command(*arguments: str) -> list[str]:
    """A task as a process; a run shares this host, which may measure another, for none of its figures is judged."""
    begins = arguments[0] == "bench" and len(arguments) > 1 and "--resume" not in arguments
    sharing = ["--share"] if begins else []
    return [str(INVOKE), *arguments, *sharing]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, **options)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    with no_dead_run_left():
        yield


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--guest-kernel", "/etc/passwd"), "neither a vmlinux (ELF) nor a bzImage"),
        (("--guest-kernel", "/nowhere/vmlinux"), "read /nowhere/vmlinux: No such file"),
        (("--cap", "few"), "--cap few: not a whole number"),
        (("--cap", "0"), "--cap 0: a ramp has at least one application"),
        (("--emulator-cpus", "some"), "--emulator-cpus some: not a number"),
        (("--emulator-cpus", "nan"), "--emulator-cpus nan: not a number of processors"),
        (("--emulator-cpus", "1", "--platforms", "container"), "no virtual machine among container"),
    ],
)
def test_what_machines_cannot_be_given_is_refused_at_once(arguments: tuple[str, ...], problem: str) -> None:
    done = run("bench", "--scenario", "clickme", *arguments, timeout=60)
    assert done.returncode == 1
    assert problem in done.stderr and "building" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("bench", "--scenario", "clickme", "--measures", "work"), "scenario clickme has no work to measure"),
        (("felter", "--runs", "nowhere"), "nowhere is no run folder"),
    ],
)
def test_figures_that_there_are_not_are_refused_at_once(arguments: tuple[str, ...], problem: str) -> None:
    done = run(*arguments, timeout=60)
    assert done.returncode == 1
    assert problem in done.stderr and "building" not in done.stderr


@pytest.mark.vm
def test_a_run_on_the_platforms_of_every_comparison_answers_as_json(tmp_path: Path) -> None:
    done = run(
        *("bench", "--scenario", "clickme", "--measures", "start", "--trials", "1", "--quick"),
        *("--out", str(tmp_path), "--json"),
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    (folder,) = tmp_path.iterdir()
    assert answer["run"] == folder.name
    assert {"manifest.json", "trials.jsonl", "metrics.csv", "samples", "logs", "report.html"} <= set(os.listdir(folder))
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    outcomes = {trial["platform"]: trial["outcome"] for trial in trials}
    assert outcomes == {"container": "ok", "vm": "ok", "vm-containers": "ok"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert set(manifest["images"]) == {"web", "redis"}
    assert all(image["base"]["layer"] == image["layers"][0] for image in manifest["images"].values())

    before = (folder / "report.html").read_bytes()
    assert run("report", "--run", str(folder)).returncode == 0
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("platform", ["container", pytest.param("vm", marks=pytest.mark.vm)])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals, platform: str, tmp_path: Path) -> None:
    arguments = ("bench", "--scenario", "clickme", "--measures", "utilisation", "--platforms", platform)
    with running_trial(*arguments, "--out", str(tmp_path)) as process:
        time.sleep(1.5)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    (folder,) = tmp_path.iterdir()
    assert f"\n  ./invoke report {folder}\n" in errors
    rendered = run("report", "--run", str(folder))
    assert rendered.returncode == 0 and (folder / "report.html").exists(), rendered.stderr
    assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"


@contextmanager
def running_trial(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run that has begun its first trial; its standard error stays open. It ends with a test that fails."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command(*arguments), cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stderr
            began = any(re.match(r"trials? \d+( to \d+)? of (about )?\d+: ", line) for line in process.stderr)
            assert began, f"the run ended with {process.wait()} before its first trial"
            yield process
        finally:
            process.terminate()


@pytest.mark.vm
def test_a_killed_run_is_cleaned_up(tmp_path: Path) -> None:
    """What another test's run, killed meanwhile, has left is there for a moment, too."""
    arguments = ("bench", "--scenario", "clickme", "--measures", "utilisation", "--platforms", "vm")
    with running_trial(*arguments, "--out", str(tmp_path)) as process:
        (folder,) = tmp_path.iterdir()
        assert folder.name not in run("clean", "--check").stdout, "a living run is not a leftover"
        time.sleep(2)
        process.kill()
        process.communicate()
    checked = run("clean", "--check")
    assert checked.returncode == 1 and folder.name in checked.stdout
    guests = re.findall(r"^process +(\d+) .*qemu", checked.stdout, re.MULTILINE)
    cleaned = run("clean")
    assert cleaned.returncode == 0, cleaned.stderr
    # What waits to be reaped, by whoever has adopted it, is no more than a number.
    assert guests and not any(Path(f"/proc/{qemu}/exe").exists() for qemu in guests)
    until(lambda: run("clean", "--check").stdout == "", 60)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--scenario", "nonsense"), 1, "clickme"),
        (("--scenario", "clickme", "--platforms", "container,moon"), 1, "known platforms: container, container-pooled"),
        (("--scenario", "clickme", "--machine", "moon"), 1, "known machines: native, reference"),
        (("--scenario", "clickme", "--measures", "speed"), 1, "known measures: start, density, utilisation"),
        (("--scenario", "clickme", "--trials", "-1"), 1, "at least 1"),
        (("--scenario", "clickme", "--trials", "0"), 1, "at least 1"),
        (("--scenario", "clickme", "--trials", "abc"), 1, "--trials abc: not a whole number"),
        (("--scenario", "clickme", "--until", "0%"), 1, "--until 0%: not half the width of an interval"),
        (("--scenario", "clickme", "--until", "5%", "--quick"), 1, "with --quick the number of trials is fixed"),
        (("--scenario", "clickme", "--budget", "5"), 1, "--budget 5: not a time"),
        (("--scenario", "clickme", "--duet"), 1, "two platforms run at the same time, not container, vm"),
        (("--scenario", "clickme", "--against", "nowhere"), 1, "--against nowhere: no commit of the repository"),
        (("--scenario", "clickme", "--aa", "peer"), 1, "--aa peer: it is not among the platforms"),
        (("--scenario", "clickme", "--machine", "reference", "--until", "5%"), 1, "--until: not in the reference"),
        (("--resume", "nowhere"), 1, "--resume with --out: a run goes on as it began"),
        (("--resume", "nowhere", "--platforms", "vm", "--quick"), 1, "--resume with --platforms, --quick"),
        (("--scenario", "clickme", "--seed", "-5"), 1, "--seed -5: a seed is 0 or more"),
        (("--scenario", "clickme", "--seed", "1.5"), 1, "--seed 1.5: not a whole number"),
        (("--scenario", "clickme", "--platforms", "vm,container,vm"), 1, "platform vm is named twice"),
        (("--scenario", "clickme", "--base", "buzz"), 1, "base buzz: there is no such release"),
        ((), 1, "which scenario? "),
    ],
)
def test_a_wrong_request_is_refused(arguments: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    done = run("bench", *arguments, "--out", str(tmp_path / "results"))
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_without_root_it_says_so(tmp_path: Path) -> None:
    interpreter = Path(sys.executable).resolve()
    for path in (ROOT, *ROOT.parents, *interpreter.parents):
        if not path.stat().st_mode & 0o001:
            pytest.skip(f"another user cannot enter {path}, so what it is told cannot be tested here")
    environment = {**os.environ, "HOME": "/nonexistent"}
    done = run("bench", "--scenario", "clickme", "--out", str(tmp_path / "r"), user=65534, group=65534, env=environment)
    assert done.returncode == 5
    assert "needs root" in done.stderr and "Traceback" not in done.stderr


UNPRIVILEGED: dict[str, Any] = {"user": 65534, "group": 65534, "env": {**os.environ, "HOME": "/nonexistent"}}


@pytest.mark.parametrize(
    "arguments", [("clean",), ("clean", "--check"), ("doctor",), ("explain", "--scenario", "clickme")], ids=" ".join
)
def test_an_ordinary_user_sees_what_can_be_shown_and_is_told_what_needs_root(arguments: tuple[str, ...]) -> None:
    interpreter = Path(sys.executable).resolve()
    if not all(path.stat().st_mode & 0o001 for path in (ROOT, *ROOT.parents, *interpreter.parents)):
        pytest.skip("another user cannot enter the checkout")
    with lease(f"test-{os.getpid()}-living"):
        done = run(*arguments, **UNPRIVILEGED)
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    assert done.returncode in (0, 5), done.stderr
    if arguments[0] == "clean":
        assert f"test-{os.getpid()}-living" in done.stderr and "run it as root" in done.stderr
    elif done.returncode == 5:
        assert "root" in done.stdout + done.stderr


@pytest.mark.parametrize("place", ["/proc/results", "/dev/null", "/dev/null/results"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_built(place: str) -> None:
    done = run("bench", "--scenario", "clickme", "--out", place, timeout=20)
    assert done.returncode == 5 and f"cannot write {place}" in done.stderr
    assert "run folder" not in done.stderr


def test_a_second_run_on_this_host_is_refused(tmp_path: Path) -> None:
    """Whether the first one is this test's or somebody else's."""
    with ExitStack() as undo:
        with suppress(UsageError):
            undo.enter_context(take_turn("the-first", wait=False, progress=print))
        done = subprocess.run(
            [str(INVOKE), "bench", "--scenario", "clickme", "--out", str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1 and "is being measured on this host" in done.stderr
    assert "--wait" in done.stderr
    assert list(tmp_path.iterdir()) == []


def changed_scenario(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """A copy of clickme with one text replaced."""
    folder = tmp_path / "changed"
    shutil.copytree(ROOT / "scenarios" / "clickme", folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("file", "old", "new", "code", "message"),
    [
        ("compose.yaml", "memory: 256M", "memory: lots", 1, r"compose\.yaml:\d+: .*memory"),
        ("redis/Dockerfile", "USER redis", "USERS redis", 1, r"redis/Dockerfile:\d+: .*USERS"),
        ("compose.yaml", "path: /health", "path: /wealth", 6, r"last lines of .*web"),
    ],
)
def test_a_broken_scenario(file: str, old: str, new: str, code: int, message: str, tmp_path: Path) -> None:
    folder = changed_scenario(tmp_path, file, old, new)
    compose = folder / "compose.yaml"
    compose.write_text(compose.read_text().replace("timeout_s: 20", "timeout_s: 2"))
    arguments = ("--scenario", str(folder), "--platforms", "container", "--measures", "start", "--trials", "1")
    done = run("bench", *arguments, "--out", str(tmp_path / "results"))
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_explain_prints_what_a_restored_copy_is_told() -> None:
    text = run("explain", "--scenario", "clickme", "--service", "web", "--platform", "vm-restored").stdout
    booted, _, told = text.partition("What each copy of it performs")
    assert "execve puma" in booted and "perform the plans that come" in booted
    assert "RNDRESEEDCRNG" in told and "etc/machine-id" in told and "execve" not in told


def test_explain_prints_both_plans() -> None:
    container = run("explain", "--scenario", "clickme", "--service", "web")
    guest = run("explain", "--scenario", "clickme", "--service", "web", "--platform", "vm")
    assert "clone3 CLONE_NEWNS" in container.stdout and "execve puma" in container.stdout
    assert "finit_module" in guest.stdout and "execve puma" in guest.stdout


def test_doctor_says_what_works() -> None:
    done = run("doctor", "--json")
    checks = json.loads(done.stdout)
    assert {check["name"] for check in checks} and all({"name", "ok", "detail", "fix"} <= set(c) for c in checks)
