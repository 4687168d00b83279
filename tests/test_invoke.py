"""The set-up script: what it does when nothing is missing, and what it says when something is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "invoke"
PREREQUISITE_MISSING = 5
# What programs are made of, and the module that compiles them.
SOURCES = {
    "runtime/launcher/main.c": "runtime.launcher.build",
    "runtime/launcher/build.py": "runtime.launcher.build",
    "runtime/plan/steps/files.py": "runtime.launcher.build",
    "runtime/plan/encode.py": "runtime.launcher.build",
    "testbed/load/generator/main.c": "testbed.load.build",
    "testbed/load/build.py": "testbed.load.build",
    "testbed/sampler/sampler.c": "testbed.sampler.build",
    "testbed/sampler/build.py": "testbed.sampler.build",
}
# What is made of the first of them.
GENERATED = "runtime/launcher/generated/operations.h"
# A fake interpreter, which says what it is to compile, and on its standard output what it hands over.
PYTHON = """#!/bin/sh
if [ "$1 $2 $3" = "-P -m reports.commands.front" ]; then
    shift 3
    for word; do echo "$word"; done
else
    echo python "$@" >&2
fi
"""
# A fake dpkg-query that knows every package it is asked for.
ALL_INSTALLED = """#!/bin/sh
shift 2
for package; do printf 'installed %s\\n' "$package"; done
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A checkout that has been set up, as far as the script can tell, whose front prints its arguments."""
    root = tmp_path / "check out"  # with a space, as people have
    root.mkdir()
    shutil.copy2(SCRIPT, root)
    (root / "requirements.lock").write_text("invoke==3.0.3\n")
    (root / "pyproject.toml").write_text("[project]\n")
    for name in (*SOURCES, GENERATED):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    executable(root / "runtime" / "launcher" / "testbed-launcher", "")
    executable(root / "testbed" / "load" / "generator" / "testbed-load", "")
    executable(root / "testbed" / "sampler" / "testbed-sampler", "")
    executable(root / ".venv" / "bin" / "python", PYTHON)
    executable(root / ".venv" / "bin" / "testbed-runtime", "")
    lock_sum, project_sum = (
        subprocess.run(["sha256sum", root / name], capture_output=True, text=True, check=True).stdout.split()[0]
        for name in ("requirements.lock", "pyproject.toml")
    )
    (root / ".venv" / ".complete").write_text(f"/usr/bin/python3 {root} {lock_sum}\n")
    (root / ".venv" / ".project").write_text(f"{project_sum}\n")
    (root / ".venv" / ".launcher").touch()
    yield root


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def run(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the checkout's script from another directory, with every package installed."""
    commands = root.parent / "commands"
    if not (commands / "dpkg-query").exists():
        executable(commands / "dpkg-query", ALL_INSTALLED)
    return subprocess.run(
        [root / "invoke", *arguments],
        cwd="/",
        env={"PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(root.parent), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_with_everything_in_place_it_hands_over_and_says_nothing(checkout: Path) -> None:
    done = run(checkout, "bench", "--scenario", "a b")
    assert done.stdout.splitlines() == ["--search-root", str(checkout), "bench", "--scenario", "a b"]
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_stream_that_is_closed_is_the_null_device(checkout: Path, closed: str) -> None:
    said = checkout / "said"
    script = f"#!/bin/sh\nreadlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2 2>/dev/null | cat > '{said}'\n"
    executable(checkout / ".venv" / "bin" / "python", script)
    subprocess.run(["sh", "-c", f"exec '{checkout}/invoke' {closed}"], check=True, cwd="/", timeout=60)
    assert said.read_text().split().count("/dev/null") >= closed.count("&-")


def test_without_arguments_it_lists_the_tasks(checkout: Path) -> None:
    assert run(checkout).stdout.splitlines()[2:] == ["--list"]


def test_it_works_through_a_link_from_elsewhere(checkout: Path) -> None:
    link = checkout.parent / "link"
    link.symlink_to(checkout / "invoke")
    done = subprocess.run([link], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, check=False)
    assert str(checkout) in done.stdout + done.stderr


def test_its_own_part_takes_less_than_300_ms_when_nothing_is_missing(checkout: Path) -> None:
    """With this host's real package database, which is most of the time."""
    commands = checkout.parent / "commands"
    commands.mkdir()
    (commands / "dpkg-query").symlink_to(shutil.which("dpkg-query") or "/usr/bin/dpkg-query")
    executable(commands / "apt-get", "#!/bin/sh\nexit 100\n")
    times_s = []
    for _ in range(5):
        began = time.perf_counter()
        done = run(checkout, "--list")
        times_s.append(time.perf_counter() - began)
    assert done.returncode == 0, done.stderr
    assert min(times_s) < 0.3


def test_a_changed_project_is_installed_again_and_remembered(checkout: Path) -> None:
    (checkout / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    first = run(checkout, "doctor")
    log = (checkout / ".venv" / "pip.log").read_text()
    assert "--no-deps" in log and "--editable" in log
    assert first.stdout.splitlines()[2:] == ["doctor"]
    (checkout / ".venv" / "pip.log").unlink()
    run(checkout, "doctor")
    assert not (checkout / ".venv" / "pip.log").exists()


def test_the_account_that_libvirt_asks_for_is_made_where_it_alone_is_missing(checkout: Path) -> None:
    commands = checkout.parent / "commands"
    executable(commands / "id", "#!/bin/sh\necho 0\n")
    executable(commands / "getent", f'#!/bin/sh\ngrep -qx "$1 $2" {commands}/made 2>/dev/null\n')
    for name, kind in (("groupadd", "group"), ("useradd", "passwd")):
        executable(commands / name, f'#!/bin/sh\nfor last; do :; done; echo "{kind} $last" >> {commands}/made\n')
    done = run(checkout, "doctor")
    assert "making the system account libvirt-qemu" in done.stderr
    assert (commands / "made").read_text().splitlines() == ["group kvm", "group libvirt-qemu", "passwd libvirt-qemu"]
    assert run(checkout, "doctor").stderr == ""


@pytest.mark.parametrize("source", [*SOURCES, GENERATED])
def test_a_newer_source_is_compiled(checkout: Path, source: str) -> None:
    later_s = time.time() + 1
    os.utime(checkout / source, (later_s, later_s))
    done = run(checkout, "doctor")
    compiled = [line.removeprefix("python -m ") for line in done.stderr.splitlines() if line.startswith("python -m ")]
    assert compiled == ([] if source == GENERATED else [SOURCES[source]])
    assert done.returncode == 0


def test_a_failed_compilation_ends_it(checkout: Path) -> None:
    (checkout / "runtime" / "launcher" / "testbed-launcher").unlink()
    executable(checkout / ".venv" / "bin" / "python", "#!/bin/sh\nexit 7\n")
    done = run(checkout, "doctor")
    assert done.returncode != 0
    assert done.stdout == ""


@pytest.mark.parametrize("gone", [".venv/.complete", ".venv/bin/python"])
def test_a_half_made_venv_is_made_again(checkout: Path, gone: str) -> None:
    (checkout / gone).unlink()
    (checkout / "requirements.lock").write_text("no-such-package-anywhere==1.0\n")
    done = run(checkout, "doctor", PIP_INDEX_URL="file:///nowhere", PIP_CONFIG_FILE=os.devnull)
    assert "making .venv with" in done.stderr
    assert "pip could not install" in done.stderr and "pip config list" in done.stderr
    assert done.returncode == PREREQUISITE_MISSING
    assert not (checkout / ".venv" / ".complete").exists()


def test_a_checkout_that_moved_makes_its_venv_again(checkout: Path) -> None:
    moved = checkout.rename(checkout.parent / "moved")
    (moved / "requirements.lock").write_text("no-such-package-anywhere==1.0\n")
    done = run(moved, "doctor", PIP_INDEX_URL="file:///nowhere", PIP_CONFIG_FILE=os.devnull)
    assert "making .venv with" in done.stderr


def test_a_link_to_the_venv_of_another_checkout_leaves_that_as_it_is(checkout: Path) -> None:
    other = (checkout / ".venv").rename(checkout.parent / "others")
    before = sorted(other.rglob("*"))
    (checkout / ".venv").symlink_to(other)
    (checkout / "requirements.lock").write_text("no-such-package-anywhere==1.0\n")
    done = run(checkout, "doctor", PIP_INDEX_URL="file:///nowhere", PIP_CONFIG_FILE=os.devnull)
    assert "making .venv with" in done.stderr and "pip could not install" in done.stderr
    assert sorted(other.rglob("*")) == before
    assert not (checkout / ".venv").is_symlink()


def test_missing_packages_and_nobody_to_install_them(checkout: Path) -> None:
    commands = checkout.parent / "commands"
    executable(commands / "dpkg-query", "#!/bin/sh\nexit 1\n")
    executable(commands / "id", "#!/bin/sh\necho 1000\n")
    for name in ("sh", "dirname", "readlink", "sha256sum", "find", "flock", "apt-get"):
        (commands / name).symlink_to(shutil.which(name) or f"/usr/bin/{name}")
    done = run(checkout, "doctor", PATH=str(commands))
    assert "neither root nor sudo" in done.stderr
    assert "qemu-system-x86" in done.stderr
    assert done.returncode == PREREQUISITE_MISSING


def test_an_unreachable_package_source_is_named(checkout: Path) -> None:
    commands = checkout.parent / "commands"
    executable(commands / "dpkg-query", "#!/bin/sh\nexit 1\n")
    executable(commands / "id", "#!/bin/sh\necho 0\n")
    apt = "#!/bin/sh\necho 'Err:1 http://archive.invalid/debian stable InRelease'\n"
    executable(commands / "apt-get", apt + "echo 'E: Unable to locate package gcc'\nexit 100\n")
    done = run(checkout, "doctor")
    assert "http://archive.invalid/debian" in done.stderr
    assert "Unable to locate package gcc" in done.stderr
    assert "/etc/apt/sources.list" in done.stderr
    assert done.returncode == PREREQUISITE_MISSING


def test_a_shim_is_seen_through_to_the_interpreter(checkout: Path) -> None:
    commands = checkout.parent / "commands"
    real = os.path.realpath(sys.executable)
    executable(commands / "python3.11", f'#!/bin/sh\nsleep 0.1\nexec {real} "$@"\n')
    text = SCRIPT.read_text()
    function = text[text.index("real_python() {") : text.index("find_python() {")]
    done = subprocess.run(
        ["sh", "-c", f"{function}\nreal_python '{commands}/python3.11'; real_python /bin/true || echo no"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines() == [real, "no"]


def test_the_lock_pins_every_package_by_hash() -> None:
    requirements = (ROOT / "requirements.lock").read_text().replace("\\\n", " ").splitlines()
    lines = [line for line in requirements if line and not line.startswith("#")]
    assert len(lines) > 30
    assert [line for line in lines if "==" not in line or "--hash=sha256:" not in line] == []


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (("bench", "--help"), ("--help", "bench")),
        (("new", "-h"), ("--help", "new")),
        (("explain", "a b"), ("explain", "a b")),
        (("report",), ("report",)),
        (("clean", "--check"), ("clean", "--check")),
    ],
)
def test_a_word_is_what_people_mean_by_it(checkout: Path, arguments: tuple[str, ...], passed: tuple[str, ...]) -> None:
    words = run(checkout, *arguments).stdout.splitlines()
    assert tuple(words[2:]) == passed, "after --search-root and its value"
