"""Probing a peer's program: what is missing, broken, endless or unknown is told, in bounded time and words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from testbed.lab import Lab
from testbed.platforms.peers import program
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.oci import KATA
from testbed.platforms.peers.platform import PeerPlatform, probe
from testbed.platforms.peers.program import UNKNOWN, Found, Program, find, parse_version
from tests.waiting import until

FAKE = Program("fake-runtime", "fake-package")


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program on the PATH that does what is written to it."""
    path = tmp_path / FAKE.name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ("crun version 1.8.1\ncommit: f8a096be060b22ccd3d5f3ebe44108517fbf6c30\n", "1.8.1"),
        ("runc version 1.1.5+ds1\nspec: 1.0.2-dev\n", "1.1.5+ds1"),
        ("systemd 252 (252.39-1~deb12u2)\n+PAM +AUDIT\n", "252"),
        ("runsc version 0.0~20221219.0\n", "0.0~20221219.0"),
        ("Docker version 28.2.2, build e6534b4\n", "28.2.2"),
        ("kata-runtime  : 1.13.0-alpha0\n", "1.13.0-alpha0"),
        ("\n\n5.0.2\n", "5.0.2"),
        ("youki v0.3.3\n", "0.3.3"),
        ("hello\nversion 1.2.3\n", ""),
        ("", ""),
    ],
)
def test_versions_are_found_in_what_programs_say(answer: str, version: str) -> None:
    assert parse_version(answer) == version


def test_one_that_answers_is_found(said: Path) -> None:
    said.write_text("#!/bin/sh\necho fake-runtime version 3.1\n")
    assert find(FAKE) == Found(str(said), "3.1")


def test_one_that_is_not_there_has_a_package(said: Path) -> None:
    said.unlink()
    with pytest.raises(PrerequisiteError, match="fake-runtime is not on the PATH") as caught:
        find(FAKE)
    assert caught.value.hint == "install the package fake-package"


def test_one_without_a_known_version_is_used_and_says_so(said: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said.write_text("#!/bin/sh\nprintf 'gar\\033[31mbage\\n'\n")
    found = find(FAKE)
    assert found.version == UNKNOWN and "fake-runtime --version says: gar" in found.problem
    assert "\033" not in found.problem


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo broken >&2; exit 3", "exit status 3; it says: broken"),
        ("exit 1", "exit status 1; it says: nothing"),
        ("kill -9 $$", "exit status 137"),
    ],
)
def test_one_that_fails_is_broken(said: Path, script: str, message: str) -> None:
    said.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(PrerequisiteError, match=message):
        find(FAKE)


def test_one_that_cannot_be_executed_is_broken(said: Path) -> None:
    said.write_bytes(b"\x7fELF\0\0")
    with pytest.raises(PrerequisiteError, match="fake-runtime --version: Exec format error"):
        find(FAKE)


@pytest.mark.parametrize("script", ["sleep 600", "sleep 600 & exit 0", "echo 1.2; exec >&- 2>&-; exec sleep 600"])
def test_one_that_does_not_end_is_ended(said: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_ANSWER_S", 0.3)
    said.write_text(f"#!/bin/sh\n{script}\n")
    began_s = time.monotonic()
    with pytest.raises(PrerequisiteError, match=r"fake-runtime --version: .* within 0.3 s"):
        find(FAKE)
    assert time.monotonic() - began_s < 10
    until(lambda: not any(_is_told_of(path, said.parent) for path in Path("/proc").glob("[0-9]*/environ")))


def _is_told_of(environment: Path, folder: Path) -> bool:
    try:
        return f"PATH={folder}:".encode() in environment.read_bytes() and b"sleep" in (
            environment.with_name("cmdline").read_bytes()
        )
    except OSError:
        return False


def test_one_that_floods_is_read_to_a_limit(said: Path) -> None:
    said.write_text("#!/bin/sh\necho version 1.2.3\nexec yes\n")
    began_s = time.monotonic()
    with pytest.raises(PrerequisiteError, match="its answer is longer than 65536 bytes"):
        find(FAKE)
    assert time.monotonic() - began_s < 4


def test_a_platform_is_labelled_with_its_version(tmp_path: Path) -> None:
    made = PeerPlatform(PEERS["crun"], "run", tmp_path, Lab())
    assert made.label == "crun"
    made._found = Found("/usr/bin/crun", UNKNOWN, "crun --version says: garbage")
    assert made.label == "crun unknown version"
    assert made.facts()["version_problem"] == "crun --version says: garbage"
    made.close()


def test_kata_with_no_command_line_is_refused() -> None:
    with pytest.raises(PrerequisiteError, match=r"kata-runtime 3.2.0 cannot run a bundle"):
        KATA.check(Found("/usr/bin/kata-runtime", "3.2.0"))


def test_the_bare_process_needs_no_program() -> None:
    assert probe(PEERS["process"]) == Found("", "")
