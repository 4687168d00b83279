"""Histograms of latencies: what is written, what other tools read, and what is read back of files that harm came to."""

from __future__ import annotations

import base64
import random
import struct
import zlib
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from runtime.errors import UsageError
from testbed.histograms import (
    MAX_USEC,
    build_histogram,
    encode_histogram,
    find_percentiles,
    name_percentile,
    percentile_or_none,
    read_histogram,
)
from testbed.results import RunFolder, Trial

LATENCIES = [random.Random(3).randrange(80, 250_000) for _ in range(2000)]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def log_of(plain: bytes, cookie: int = 0x1C849314, length: int | None = None) -> bytes:
    packed = zlib.compress(plain)
    head = struct.pack(">II", cookie, len(packed) if length is None else length)
    return b"0.0,1.0,1.0," + base64.b64encode(head + packed) + b"\n"


def head_of(
    payload: bytes = b"", *, cookie: int = 0x1C849313, digits: int = 3, high: int = MAX_USEC, low: int = 1
) -> bytes:
    return struct.pack(">IIIIQQQ", cookie, len(payload), 0, digits, low, high, 1) + payload


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = build_histogram(LATENCIES)
    back = read_histogram(written(tmp_path / "t.hdr", encode_histogram(made, 20.0)))
    assert back.get_total_count() == 2000
    for percentile in (0, 50, 90, 99, 99.9, 100):
        assert back.get_value_at_percentile(percentile) == made.get_value_at_percentile(percentile)
    empty = read_histogram(written(tmp_path / "e.hdr", encode_histogram(build_histogram([]), 1.0)))
    assert empty.get_total_count() == 0


def test_the_library_s_own_reader_takes_it(tmp_path: Path) -> None:
    file = written(tmp_path / "t.hdr", encode_histogram(build_histogram(LATENCIES), 20.0))
    reader = HistogramLogReader(str(file), HdrHistogram(1, MAX_USEC, 3))
    interval = reader.get_next_interval_histogram()
    assert interval.get_total_count() == 2000
    assert interval.get_end_time_stamp() - interval.get_start_time_stamp() == pytest.approx(20_000)
    assert reader.get_next_interval_histogram() is None
    reader.close()


def test_the_same_latencies_are_the_same_bytes() -> None:
    shuffled = random.Random(1).sample(LATENCIES, len(LATENCIES))
    assert encode_histogram(build_histogram(LATENCIES), 2.0) == encode_histogram(build_histogram(shuffled), 2.0)


def test_a_percentile_needs_five_beyond_it() -> None:
    assert percentile_or_none(build_histogram([5] * 499), 99) is None
    assert percentile_or_none(build_histogram([5] * 500), 99) == 5.0
    assert percentile_or_none(build_histogram([5] * 4999), 99.9) is None
    assert percentile_or_none(build_histogram([5] * 5000), 99.9) == 5.0
    assert percentile_or_none(build_histogram([]), 50) is None
    assert list(find_percentiles(build_histogram([5] * 500))) == [50.0, 90.0, 99.0]
    assert (name_percentile(50.0), name_percentile(99.9)) == ("p50", "p99_9")


def test_a_file_that_is_cut_short_anywhere_is_one_clear_error(tmp_path: Path) -> None:
    whole = encode_histogram(build_histogram(LATENCIES), 20.0)
    file = tmp_path / "t.hdr"
    for end in (*range(0, len(whole) - 1, 37), len(whole) - 2, len(whole) - 1):
        with pytest.raises(UsageError) as error:
            read_histogram(written(file, whole[:end]))
        assert str(file) in error.value.message and "\n" not in error.value.message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\xff\xfe\n",
        b"PK\x03\x04\n",
        b"t_s,name\n0,web\n",
        b"0.0,1.0,1.0,HISTF\n",
        b"0.0,1.0,1.0,HISTFAAAA\n",
        b"0.0,1.0,1.0,HISTF!!\n",
        encode_histogram(build_histogram([1]), 1.0) * 2,
        log_of(head_of(), cookie=0x1C849302),
        log_of(head_of(), length=7),
        log_of(head_of(cookie=0x1C849301)),
        log_of(head_of(digits=5)),
        log_of(head_of(high=1 << 62)),
        log_of(head_of(low=0)),
        log_of(head_of() + b"more"),
        log_of(b"short"),
        log_of(head_of(bytes(1 << 26))),
        log_of(head_of(b"\xff" * 9)),
        log_of(head_of(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff" * 3)),
        log_of(head_of(b"\x02" * 30_000)),
        log_of(head_of(b"\xff\xff\xff\xff\x0f\x02")),
        b"x" * (2 << 20),
    ],
    ids=range(23),
)
def test_foreign_and_hostile_files_are_one_clear_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read_histogram(written(tmp_path / "t.hdr", content))
    assert "\n" not in error.value.message and len(error.value.message) < 400


@pytest.mark.no_cover
def test_mutants_are_read_or_refused(tmp_path: Path) -> None:
    chance = random.Random(7)
    made = build_histogram(LATENCIES[:200])
    plain = zlib.decompress(base64.b64decode(encode_histogram(made, 1.0).splitlines()[-1].split(b",")[3])[8:])
    refused = 0
    for _ in range(2000):
        data = bytearray(plain)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(40, len(data))] = chance.randrange(256)
        try:
            back = read_histogram(written(tmp_path / "t.hdr", log_of(bytes(data))))
            assert 0 <= back.get_value_at_percentile(99) <= 2 * MAX_USEC
            percentile_or_none(back, 99.9)
        except UsageError:
            refused += 1
    assert 0 < refused < 2000


def test_a_run_folder_keeps_it_and_reads_nothing_outside(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run", {"run": "run"})
    name = folder.write_histogram("t003", build_histogram(LATENCIES), 20.0)
    trial = Trial(3, 0, "container", "utilisation", "ok", histogram=name)
    folder.append(trial)
    (back,) = folder.trials()
    assert name == "t003.hdr" == back.histogram
    kept = folder.read_histogram(back)
    assert kept is not None and kept.get_total_count() == 2000
    assert folder.read_histogram(Trial(4, 0, "container", "start", "ok")) is None
    assert folder.read_histogram(Trial(4, 0, "container", "start", "ok", histogram="t004.hdr")) is None, "it is gone"
    outside = written(tmp_path / "outside.hdr", encode_histogram(build_histogram([1]), 1.0))
    for other in ("../../outside.hdr", str(outside), "..", "t\n.hdr"):
        with pytest.raises(UsageError, match="names no histogram"):
            folder.read_histogram(Trial(5, 0, "container", "start", "ok", histogram=other))
    (folder.path / "samples" / "t006.hdr").symlink_to(outside)
    with pytest.raises(UsageError, match="leads out of"):
        folder.read_histogram(Trial(6, 0, "container", "start", "ok", histogram="t006.hdr"))
    with pytest.raises(ValueError):
        folder.write_histogram("../t", build_histogram([]), 1.0)
