"""Traces: Azure's, Alibaba's and one's own, and what is said of one that is damaged, with the line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.fleet import traces
from testbed.fleet.demands import Host
from testbed.fleet.traces import read_trace

GIB = 2**30
AZURE = "a/b+c=,sub,dep,0,3600,90.5,10.0,20.0,Interactive,>24,>64\nd,sub,dep,600,900,5,2.5,2.5,Unknown,2,4\n"
MACHINES = "m_1,0,50,80,1,2,3,4,5\nm_1,10,30,60,1,2,3,4,5\nm_2,0,10,90,,,,,\n"
OWN = "name,cores,cpu,memory_bytes,cpu_sd\nweb,4,0.5,2e9,0.2\ndb,8,1,8e9,0\n"


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write_trace(text: str, name: str = "trace.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write_trace


@pytest.mark.parametrize("name", ["vmtable.csv", "vmtable.csv.gz"])
def test_azures_table_of_machines(write, name: str) -> None:  # type: ignore[no-untyped-def]
    servers = read_trace(write(AZURE, name))
    assert list(servers.cores) == [30, 2] and list(servers.memory_bytes) == [70 * GIB, 4 * GIB]
    assert list(servers.cpu_mean) == pytest.approx([3.0, 0.05])
    assert servers.cpu_sd[0] == pytest.approx(0.1 / 1.645 * 30, rel=1e-3) and servers.cpu_sd[1] == 0
    assert servers.names == ("a/b+c=", "d")


def test_alibabas_usage_is_added_up_over_time(write) -> None:  # type: ignore[no-untyped-def]
    servers = read_trace(write(MACHINES), size=Host(96, 512 * GIB))
    assert list(servers.cpu_mean) == pytest.approx([0.4 * 96, 0.1 * 96])
    assert list(servers.cpu_sd) == pytest.approx([0.1 * 96, 0.0])
    assert list(servers.memory_bytes) == pytest.approx([0.8 * 512 * GIB, 0.9 * 512 * GIB])


def test_alibabas_containers_have_two_columns_more(write) -> None:  # type: ignore[no-untyped-def]
    servers = read_trace(write("c_1,m_1,0,25,50,1,2,3,4,5,6\n"), size=Host(4, 8 * GIB))
    assert (servers.cpu_mean[0], servers.memory_bytes[0]) == (1.0, 4 * GIB)


def test_one_of_ones_own(write) -> None:  # type: ignore[no-untyped-def]
    servers = read_trace(write(OWN))
    assert list(servers.cpu_mean) == [0.5, 1] and list(servers.cpu_sd) == [0.2, 0] and servers.names == ("web", "db")
    series = "name,t_s,cores,cpu,memory_bytes\na,0,4,1,1e9\na,60,4,3,2e9\nb,0,2,1,1e9\nb,60,2,1,1e9\n"
    servers = read_trace(write(series))
    assert list(servers.cpu_mean) == [2, 1] and list(servers.cpu_sd) == [1, 0] and servers.memory_bytes[0] == 2e9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("x,y\n1,2\n", ":1: neither Azure's nor Alibaba's columns"),
        (AZURE + "e,s,d,0,300,5,,2,Unknown,2,4\n", ":3: a hole: no avgcpu"),
        (AZURE + "e,s,d,0,300,5,nan,2,Unknown,2,4\n", ":3: avgcpu is 'nan'"),
        (AZURE + "e,s,d,0,300,5,101,2,Unknown,2,4\n", ":3: avgcpu is '101'; |a number from 0 to 100"),
        (AZURE + "e,s,d,900,300,5,1,2,Unknown,2,4\n", ":3: the machine was deleted before it was created"),
        (AZURE + "e,s,d,0,300,5,1,2,Unknown,0,4\n", ":3: vmcorecountbucket is '0'"),
        (AZURE + "d,s,d,0,300,5,1,2,Unknown,2,4\n", ":3: the server 'd' is there twice"),
        (AZURE + "e,s,d\n", ":3: 3 columns"),
        (OWN + "dns,2,0.1,-5,0\n", ":4: memory_bytes is '-5'"),
        (OWN + "dns,2,0.1\n", ":4: 3 columns"),
        (OWN + "dns,2,0,1e9,0\n", "dns: a demand for CPU of 0"),
        ("name,cores,cpu,memory_bytes\n", "there is no server"),
        ("t_s,cores,cpu,memory_bytes\n0,1,1,1\n", "but none with each server's name"),
        (
            "name,t_s,cores,cpu,memory_bytes\na,60,1,1,1\na,0,1,1,1\n",
            ":3: times are not sorted: 'a' has 0 s after 60 s",
        ),
        ("name,t_s,cores,cpu,memory_bytes\na,0,1,1,1\na,60,1,1,1\na,300,1,1,1\n", ":4: a hole of 240 s in 'a'"),
        ("a" * 5000 + "\n", ":1: the line is longer"),
    ],
)
def test_a_damaged_trace_is_refused_with_its_line(write, text: str, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        read_trace(write(text))


def test_percentages_need_a_size(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="of what"):
        read_trace(write(MACHINES))


def test_what_is_no_file_or_no_format_is_refused(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="there is no such file"):
        read_trace(tmp_path / "nowhere.csv")
    with pytest.raises(UsageError, match="no such format"):
        read_trace(write(OWN), "google")
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(AZURE.encode())[:-12])
    with pytest.raises(UsageError, match="cannot be read"):
        read_trace(tmp_path / "broken.csv.gz")
    (tmp_path / "plain.csv.gz").write_bytes(b"not compressed")
    with pytest.raises(UsageError, match="cannot be read"):
        read_trace(tmp_path / "plain.csv.gz")


def test_lines_and_servers_are_bounded(write, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(traces, "MOST_ROWS", 2)
    with pytest.raises(UsageError, match="more than 2 lines"):
        read_trace(write(OWN))
    monkeypatch.setattr(traces, "MOST_ROWS", 100)
    monkeypatch.setattr(traces, "MOST_SERVERS", 1)
    with pytest.raises(UsageError, match="more than 1 servers"):
        read_trace(write(OWN))
