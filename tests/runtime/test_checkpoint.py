"""Whether CRIU works here is found out for real, and said clearly where it does not. Where it does, in a guest:
test_checkpoint_guest.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime import checkpoint
from runtime.cgroups import Cgroup
from runtime.checkpoint import Criu
from runtime.errors import PrerequisiteError
from runtime.lease import lease


def script(folder: Path, body: str) -> Path:
    program = folder / "criu"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all of the PATH; of the system's own, criu is not found."""
    monkeypatch.setattr(checkpoint, "SYSTEM_PATH", "/nowhere")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_none_is_a_missing_prerequisite(only: Path) -> None:
    with pytest.raises(PrerequisiteError, match="criu is not installed") as caught:
        checkpoint.find_criu()
    assert caught.value.exit_code == 5 and "apt install criu" in caught.value.hint


def test_one_that_says_no_is_quoted(only: Path) -> None:
    """As CRIU 3.17 does on Linux 6.18."""
    said = "Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds"
    script(only, f'[ "$1" = check ] || {{ echo "Version: 3.17.1"; exit 0; }}; echo "{said}" >&2; exit 1')
    with pytest.raises(PrerequisiteError, match=r"CRIU 3\.17\.1: Error .* Unexpected rt vDSO area bounds"):
        checkpoint.find_criu()


def test_the_version_is_found(only: Path) -> None:
    program = script(only, 'echo "Version: 4.2.1"; echo "GitID: v4.2.1"')
    assert checkpoint.find_criu() == Criu(str(program), "4.2.1")
    assert Criu("", "4.2.1").skips_lock and not Criu("", "3.17.1").skips_lock and not Criu("", "").skips_lock


@pytest.mark.root
@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("exit 1", "it said nothing"),
        (
            "while [ $# -gt 1 ]; do [ $1 = --images-dir ] && d=$2; shift; done;"
            " echo 'Error (criu/x.c:1): no luck' > $d/dump.log; exit 1",
            "no luck",
        ),
    ],
    ids=["silent", "said"],
)
def test_a_probe_that_fails_leaves_nothing(body: str, why: str, tmp_path: Path, run_name: str) -> None:
    """The container that is to be saved is real; what should save it is not CRIU."""
    program = script(tmp_path, f"PATH=/usr/bin:/bin; {body}")
    with lease(run_name) as scratch:
        name = f"testbed/{run_name}/probe"
        (scratch / "probe").mkdir()
        with pytest.raises(PrerequisiteError, match="it does not work on this host") as caught:
            checkpoint.probe(Criu(str(program), "9.9"), name, scratch / "probe")
        assert why in caught.value.message
        assert f"tried: a container of ours was saved and restored with {program}" in caught.value.hint
        assert not Cgroup(name).exists()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
