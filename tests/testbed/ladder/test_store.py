"""The record of a run of the ladder: written whole, and read back whatever somebody has made of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.ladder.model import FILE, FORMAT, Cost, Ladder, Missing
from testbed.ladder.store import MOST_BYTES, find_ladder, read_ladder, write_ladder

LADDER = Ladder(
    "20261126T210000Z-ladder-abcd", "2026-11-26T21:00:00+00:00", {"kernel": "6.1"}, ("chroot-1982",), (), (),
    (Cost("chroot-1982", "start_s", (0.002, 0.003)),), (), (), (Missing("jail-2000", "no BPF"),),
)  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert write_ladder(tmp_path, LADDER) == tmp_path / FILE
    assert read_ladder(tmp_path) == LADDER
    assert os.listdir(tmp_path) == [FILE]


def change(folder: Path, **changes: object) -> None:
    write_ladder(folder, LADDER)
    document = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps(document | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}; this testbed reads up to {FORMAT}"),
        ({"format": 0}, "format 0"),
        ({"format": "x"}, "damaged"),
        ({"rungs": 3}, "damaged"),
        ({"costs": [{"rung": "a", "metric": "b", "values": ["x"]}]}, "damaged"),
        ({"costs": [{"rung": "a", "metric": "b", "values": [1e300]}]}, "a figure in it is none"),
        ({"outcomes": [{"rung": "a", "probe": "b", "verdict": "won", "intention": "unsaid"}]}, "damaged"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    change(tmp_path, **changes)
    with pytest.raises(UsageError, match=said):
        read_ladder(tmp_path)


@pytest.mark.parametrize("text", ["", "[", "null", '"x"', "[" * 100_000, '{"format": 1'])
def test_what_is_no_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        read_ladder(tmp_path)


def test_a_record_of_any_size_or_kind_is_not_read_without_end(tmp_path: Path) -> None:
    with (tmp_path / FILE).open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(UsageError, match="longer than"):
        read_ladder(tmp_path)
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(UsageError, match="a named pipe"):
        read_ladder(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="leads out of"):
        read_ladder(tmp_path)


def test_the_newest_is_meant_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run of the ladder"):
        find_ladder("", tmp_path)
    for name in ("20260101T000000Z-ladder-0000", "20260102T000000Z-ladder-0000"):
        (tmp_path / name).mkdir()
        write_ladder(tmp_path / name, LADDER)
    (tmp_path / "20260103T000000Z-clickme-0000").mkdir()
    assert find_ladder("", tmp_path).name == "20260102T000000Z-ladder-0000"
    assert find_ladder("20260101T000000Z-ladder-0000", tmp_path).name == "20260101T000000Z-ladder-0000"
