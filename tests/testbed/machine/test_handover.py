"""What the reference machine hands over is taken whole or not at all, and nothing of it leaves its folder."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from pathlib import Path

import pytest

from runtime.errors import TestbedError
from testbed.machine.handover import OUTCOME, pack, unpack
from testbed.machine.job import Outcome

LIMIT = 1 << 20


def packed(outcome: Outcome, run: Path | None = None, limit: int = LIMIT) -> bytes:
    target = io.BytesIO()
    pack(outcome, run, target, limit)
    return target.getvalue()


def crafted(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """Results as a hostile machine writes them: with a good digest, and any members after the outcome."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as archive:
        for entry, data in ((tarfile.TarInfo(OUTCOME), b"{}"), *members):
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    data = body.getvalue()
    return io.BytesIO(struct.pack("<8sQ32s", b"TESTBED1", len(data), hashlib.sha256(data).digest()) + data)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_a_run_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    run = tmp_path / "20260101T000000Z-x"
    (run / "samples").mkdir(parents=True)
    (run / "trials.jsonl").write_bytes(b"{}\n")
    (run / "samples" / "t001.csv").write_bytes(b"a,b\n1,2\n")
    outcome = Outcome(run.name, 6)
    data = packed(outcome, run) + bytes(1000)  # what is behind it is memory that nobody wrote
    assert unpack(io.BytesIO(data), tmp_path / "taken") == outcome
    taken = tmp_path / "taken" / "run"
    assert (taken / "trials.jsonl").read_bytes() == b"{}\n"
    assert (taken / "samples" / "t001.csv").read_bytes() == b"a,b\n1,2\n"


def test_memory_that_nobody_wrote_holds_no_outcome(tmp_path: Path) -> None:
    assert unpack(io.BytesIO(bytes(LIMIT)), tmp_path) is None
    assert unpack(io.BytesIO(b""), tmp_path) is None


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"\x01"])
def test_damaged_results_are_refused(damage: object, tmp_path: Path) -> None:
    data = packed(Outcome("x"))
    assert callable(damage)
    with pytest.raises(TestbedError, match="damaged"):
        unpack(io.BytesIO(damage(data)), tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/outside", "run/../../outside"])
def test_no_path_leaves_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="not below the run folder"):
        unpack(crafted((member(name), b"x")), tmp_path / "taken")
    assert not (tmp_path / "outside").exists()


def test_only_files_and_directories_are_made(tmp_path: Path) -> None:
    hostile = crafted(
        (member("run", tarfile.SYMTYPE, "/etc"), b""),
        (member("device", tarfile.CHRTYPE), b""),
        (member("run/file"), b"x"),
    )
    assert unpack(hostile, tmp_path) == Outcome()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run").is_dir() and not (tmp_path / "run").is_symlink()


def test_a_run_folder_that_is_too_large_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "large").write_bytes(bytes(LIMIT))
    with pytest.raises(TestbedError, match="can leave the machine"):
        packed(Outcome("x"), tmp_path / "run")
