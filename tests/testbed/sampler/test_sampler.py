"""The program that samples, on real processes and cgroups, and on files that vanish, lie or cannot be read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Interface
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime import network
from runtime.cgroups import Cgroup, Throttling
from runtime.errors import TestbedError
from testbed.lab import Lab, find_ports, fix_port
from testbed.sampler import sampler as module
from testbed.sampler.build import SAMPLER
from testbed.sampler.plan import Column, Group, Source, Target, describe_groups, plan_sampling
from testbed.sampler.records import Records, read_records, summarise_usage
from testbed.sampler.sampler import Sampler
from tests.testbed.ports import await_port
from tests.waiting import until

MIB = 1 << 20
BURN_AND_HOLD = """
import os, sys, time
held = bytearray(b'x') * (64 << 20)
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
with open(sys.argv[1], 'wb') as file:
    file.write(b'x' * (4 << 20))
    os.fsync(file.fileno())
print('ready', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cgroup(cgroup_parent: str) -> Iterator[Cgroup]:
    """An empty cgroup in the host's real hierarchies."""
    made = Cgroup(f"{cgroup_parent}/sampled")
    made.make(delegate=False)
    yield made
    made.kill()
    made.remove()


def run_in(cgroup: Cgroup, scratch: Path) -> subprocess.Popen[str]:
    """A process in ``cgroup`` that uses 0.3 s of CPU, writes 4 MiB, says ``ready``, holds 64 MiB until stdin ends."""

    def join() -> None:
        for directory in cgroup.directories():
            (directory / "cgroup.procs").write_text("0")

    return subprocess.Popen(
        [sys.executable, "-S", "-c", BURN_AND_HOLD, str(scratch / "written")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=join,
    )


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def run_program(lines: str, tmp_path: Path, seconds: float = 0.0) -> tuple[bytes, list[str]]:
    """What the program writes, and what it reports, for these lines of instructions."""
    path = tmp_path / "records"
    with path.open("wb") as records:
        program = [str(SAMPLER.build()), str(records.fileno())]
        with subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(records.fileno(),)
        ) as process:
            assert process.stdin and process.stdout
            process.stdin.write(lines + "go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "begun\n"
            time.sleep(seconds)
            report = process.communicate()[0]
    assert process.returncode == 0
    return path.read_bytes(), report.splitlines()


def read_once(tmp_path: Path, *sources: Source) -> tuple[Records, list[str]]:
    groups = (Group("cpu", 1, sources),)
    data, report = run_program(describe_groups(groups, 0.05), tmp_path, 0.12)
    return read_records(data, groups), report


def columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column("one", name) for name in names)


@pytest.mark.root
def test_it_covers_its_window_from_edge_to_edge(cgroup: Cgroup, tmp_path: Path) -> None:
    before = descriptors()
    with ExitStack() as undo, Sampler({"web": Target(cgroup)}) as sampler:
        process = undo.enter_context(run_in(cgroup, tmp_path))
        assert process.stdout and process.stdout.readline() == "ready\n"
        time.sleep(0.35)
    sampling = sampler.sampling
    usage = summarise_usage(sampling.rows, "web")
    assert 0.28 < usage.cpu_s < 1.5
    assert usage.samples >= 5
    own = [row for row in sampling.rows if row.name == "web"]
    host = [row.values for row in sampling.rows if row.name == "host"]
    assert own[0].values["cpu_ns"] == 0
    assert [row.t_s for row in sampling.rows] == sorted(row.t_s for row in sampling.rows)
    assert max(row.values.get("pss_bytes", 0) for row in own) > 64 * MIB
    assert max(row.values.get("cgroup_bytes", 0) for row in own) > 64 * MIB
    assert 0.1 < max(values.get("busy", 0) for values in host) <= 1.0
    assert all(values["available_bytes"] > 0 for values in host if "available_bytes" in values)
    assert any("io_some_us" in values for values in host) or not Path("/proc/pressure").exists()
    assert 0 < sampling.account.cpu_s < 0.1
    assert (sampling.lost, sampling.unread) == (frozenset(), ())
    assert descriptors() == before


@pytest.mark.root
def test_it_sees_what_is_written_to_disk(cgroup: Cgroup, tmp_path: Path) -> None:
    source = next(
        source
        for group in plan_sampling({"web": Target(cgroup)}, cgroup.hierarchies)
        if group.name == "io"
        for source in group.sources
    )
    with run_in(cgroup, tmp_path) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        records, _ = read_once(tmp_path, replace(source, columns=columns("read", "written")))
        process.communicate("")
    if subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True).stdout.strip() == "tmpfs":
        pytest.skip("temporary files are in memory here")
    assert 4 * MIB <= records.rows[0].values["written"] < 8 * MIB


@pytest.mark.root
def test_it_sees_what_the_quota_holds_back(limited: Cgroup) -> None:
    """A tenth of a processor, and a process that wants all of it."""
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for directory in limited.directories():
            (directory / "cgroup.procs").write_text(str(spinner.pid))
        until(lambda: limited.throttling().throttled)
        before = limited.throttling()
        with Sampler({"web": Target(limited)}) as sampler:
            until(lambda: limited.throttling().throttled >= before.throttled + 6)
    finally:
        spinner.kill()
        spinner.wait()
    held_back, counted = summarise_usage(sampler.sampling.rows, "web").throttling, limited.throttling().since(before)
    assert 3 <= held_back.periods <= counted.periods and held_back.throttled >= held_back.periods / 2
    assert 0.05e9 < held_back.throttled_ns <= counted.throttled_ns
    first = summarise_usage(sampler.sampling.rows[:3], "web").throttling
    assert first == Throttling(), "counted from the first sample on, not from the cgroup's making"


@pytest.mark.root
def test_an_instance_that_ends_while_sampled_is_lost_not_an_error(cgroup: Cgroup, tmp_path: Path) -> None:
    with Sampler({"web": Target(cgroup)}) as sampler:
        with run_in(cgroup, tmp_path) as process:
            assert process.stdout and process.stdout.readline() == "ready\n"
            time.sleep(0.15)
        cgroup.remove()
        time.sleep(0.25)
    assert sampler.sampling.lost == {"web"}
    assert summarise_usage(sampler.sampling.rows, "web").cpu_s > 0.28
    assert sampler.sampling.unread == ()


def test_a_cgroup_that_is_not_there_is_lost() -> None:
    with Sampler({"web": Target(Cgroup("testbed/none-of-that-name"))}) as sampler:
        time.sleep(0.15)
    assert sampler.sampling.lost == {"web"}
    assert {row.name for row in sampler.sampling.rows} == {"host"}
    assert summarise_usage(sampler.sampling.rows, "web").samples == 0


@pytest.mark.root
def test_it_counts_what_goes_through_an_instances_port(cgroup: Cgroup) -> None:
    with Lab() as lab:
        link = lab.link(0, 0)
        here, there = network.VethEnd("port0", 1000), network.VethEnd("peer0", 1001)
        with Path("/proc/thread-self/ns/net").open() as namespace:
            veth = network.create_veth(here, lab.bridge_index, there, link.mac, namespace.fileno())
            network.request(veth, "make a port of the bridge")
        fix_port("port0", link.mac)
        network.request(network.link_up("peer0"), "bring the other end up")
        await_port("port0")
        assert find_ports([link.mac, "02:00:00:00:00:99"]) == {link.mac: "port0"}
        with Sampler({"web": Target(cgroup, ("port0",))}) as sampler:
            send(link.address)
            time.sleep(0.1)
    last = [row.values for row in sampler.sampling.rows if "received_bytes" in row.values][-1]
    assert last["received_bytes"] > 5000, "what is sent to the port the instance receives"
    assert last["sent_bytes"] < 5000


def send(interface: IPv4Interface) -> None:
    """Send ten datagrams of 1,000 bytes to an address that nobody answers at."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(10):
            sender.sendto(b"x" * 1000, (str(interface.ip), 9))


def test_it_tells_what_it_could_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Group("host", 1, (Source("keys", Path("/proc/no-pressure"), (Column("host", "x"),), ("some|total=",)),))
    monkeypatch.setattr(module, "plan_sampling", lambda *_: (missing,))
    with Sampler({}) as sampler:
        time.sleep(0.05)
    assert sampler.sampling.unread == ("no-pressure: No such file or directory (/proc/no-pressure)",)
    assert sampler.sampling.rows == ()


def test_numbers_are_found_behind_their_words(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(
        "some avg10=1.00 total=17\nfull avg10=0 total=5\nnested_total 9\nmany 1 2 3 99999999999999999999999\n"
    )
    source = Source(
        "keys",
        file,
        columns("full", "some", "third", "second", "none", "huge", "not_the_end_of_a_word"),
        ("full|total=", "some|total=", "many @2", "many @1", "absent ", "many @3", "total "),
    )
    records, _ = read_once(tmp_path, source)
    values = records.rows[0].values
    assert (values["full"], values["some"], values["third"], values["second"]) == (5, 17, 3, 2)
    assert "none" not in values and "not_the_end_of_a_word" not in values
    assert 0 < values["huge"] < 1 << 63


def test_numbers_of_several_devices_add_up_and_long_files_are_read_to_the_end(tmp_path: Path) -> None:
    file = tmp_path / "io.stat"
    file.write_text("8:0 rbytes=10 wbytes=1\n8:16 rbytes=32 wbytes=2\n" + "9:9 rios=1\n" * 20_000 + "last 7\n")
    source = Source("long", file, columns("read", "written", "last"), ("rbytes=+", "wbytes=+", "last "))
    values = read_once(tmp_path, source)[0].rows[0].values
    assert values == {"read": 42, "written": 3, "last": 7}


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\0", b"-5\n", b"max\n", b"nr_periods\n", b"\xff" * 70_000, b"total=" * 50_000]
)
def test_a_file_without_its_numbers_says_nothing(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    records, report = read_once(
        tmp_path,
        Source("number", file, columns("number")),
        Source("keys", file, columns("periods", "total"), ("nr_periods ", "some|total=")),
        Source("keys", file, (Column("two", "sum"),), ("rbytes=+",)),
    )
    assert all(row.name == "two" and row.values == {"sum": 0} for row in records.rows)
    assert not [line for line in report if line.startswith("unread")]


def test_a_directory_a_pipe_and_what_is_gone_are_told(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    sources = [Source("number", tmp_path / name, columns(name)) for name in ("directory", "absent")]
    sources.append(Source("each smaps_rollup", tmp_path / "directory", columns("pss"), ("Pss:",)))
    records, report = read_once(tmp_path, *sources)
    assert records.rows == ()
    assert [line.split()[:2] for line in report if line.startswith("unread")] == [["unread", str(n)] for n in range(3)]


def test_what_costs_too_much_is_read_less_often(tmp_path: Path) -> None:
    """Two groups of the same files, one with a budget of a hundredth of a thousandth of a processor."""
    file = tmp_path / "number"
    file.write_text("1\n")
    lines = "interval 10000000\n"
    for budget in (0, 10):
        lines += f"group 1 {budget}\n" + f"number {file}\n" * 200
    _, report = run_program(lines, tmp_path, 0.5)
    unlimited, limited = (int(line.split()[2]) for line in report if line.startswith("group"))
    assert unlimited > 200 * 20
    assert 400 <= limited < unlimited / 5, "the first and the last reading of all, and little more"


def test_what_others_leave_may_be_taken(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("1\n")
    lines = "interval 10000000\nlimit 900000\ngroup 1 10\n" + f"number {file}\n" * 200
    _, report = run_program(lines, tmp_path, 0.5)
    (readings,) = (int(line.split()[2]) for line in report if line.startswith("group"))
    assert readings > 200 * 20


def test_files_that_are_read_seldom_take_turns(tmp_path: Path) -> None:
    paths = [tmp_path / f"n{number}" for number in range(10)]
    for path in paths:
        path.write_text("1\n")
    groups = (Group("cpu", 10, tuple(Source("number", path, (Column(path.name, "x"),)) for path in paths)),)
    data, _ = run_program(describe_groups(groups, 0.02), tmp_path, 0.5)
    rows = [row for row in read_records(data, groups).rows if 0.01 < row.t_s < 0.4]
    assert {row.name for row in rows} == {path.name for path in paths}
    assert max(sum(row.t_s == other.t_s for other in rows) for row in rows) == 1, "one at a tick"


def test_it_ends_with_its_caller(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from testbed.sampler.sampler import Sampler\n"
        "with Sampler({}) as sampler:\n"
        "    print(sampler._process.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[3])
    with subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout
        pid = int(caller.stdout.readline())
        caller.kill()
    deadline_s = time.monotonic() + 5
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_an_error_in_the_context_ends_it_and_keeps_the_error() -> None:
    before = descriptors()
    with pytest.raises(KeyError), Sampler({}):
        raise KeyError("a trial went wrong")
    Sampler({}).close()
    assert descriptors() == before


def test_a_program_that_dies_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match="sampler: exit status -9"), Sampler({}) as sampler:
        sampler._process.kill()
        sampler._process.wait()
    monkeypatch.setattr(module, "SAMPLER", replace(SAMPLER, folder=tmp_path, binary=Path("/bin/false")))
    with pytest.raises(TestbedError, match="sampler: exit status"), Sampler({}):
        raise AssertionError("it never began")


def test_the_program_says_how_it_is_called() -> None:
    done = subprocess.run([SAMPLER.build()], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: sampler DESCRIPTOR (see sampler.c)\n")
