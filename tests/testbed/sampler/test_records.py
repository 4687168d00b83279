"""Rows made of the program's records: put together, counted from their first, and whole although cut short."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from runtime.cgroups import Throttling
from testbed.sampler.plan import HOST, Column, Group, Source, plan_host
from testbed.sampler.records import COLUMNS, Row, read_records, summarise_usage, tabulate

WEB, STORE = "t000-web", "t000-store"
CPU = Group("cpu", 1, tuple(Source("number", Path(name), (Column(name, "cpu_ns"),)) for name in (WEB, STORE)))
IO = Group(
    "io", 10, (Source("keys", Path("io"), (Column(WEB, "read_bytes"), Column(WEB, "written_bytes")), ("a", "b")),)
)
ABSENT = -(1 << 63)


def record(source: int, tick: int, t_ns: int, *values: int) -> bytes:
    return struct.pack(f"=IIQ{len(values)}q", source, tick, t_ns, *values)


def tick(number: int, t_ns: int, late_ns: int = 0) -> bytes:
    return record((1 << 32) - 1, number, t_ns, late_ns)


DATA = (
    tick(0, 1_000_000_000)
    + record(0, 0, 1_000_000_100, 5_000)
    + record(1, 0, 1_000_000_200, 700)
    + record(2, 0, 1_000_000_300, 4096, ABSENT)
    + tick(1, 1_100_000_000, 40)
    + record(0, 1, 1_100_000_100, 9_000)
    + tick(2, 1_200_000_000, 90)
    + record(0, 2, 1_200_000_100, 9_500)
    + record(2, 2, 1_200_000_300, 8192, 10)
)


def test_what_was_read_at_a_tick_is_one_row_and_counts_from_the_first() -> None:
    records = read_records(DATA, (CPU, IO))
    assert records.late_ns == (0, 40, 90)
    web = [row for row in records.rows if row.name == WEB]
    assert [row.values for row in web] == [
        {"cpu_ns": 0, "read_bytes": 0},
        {"cpu_ns": 4_000},
        {"cpu_ns": 4_500, "read_bytes": 4096, "written_bytes": 0},
    ]
    assert web[1].t_s == pytest.approx(0.1, abs=1e-6)
    assert [row.values for row in records.rows if row.name == STORE] == [{"cpu_ns": 0}]


def test_a_record_cut_short_is_none_at_any_byte() -> None:
    whole = read_records(DATA, (CPU, IO)).rows
    for end in range(len(DATA)):
        rows = read_records(DATA[:end], (CPU, IO)).rows
        assert len(rows) <= len(whole)
        assert all(row.name in (WEB, STORE) for row in rows)
    assert read_records(b"", (CPU,)).rows == ()


def test_two_interfaces_of_one_instance_add_up() -> None:
    both = Source("long", Path("dev"), tuple(Column(WEB, "sent_bytes") for _ in range(2)), ("v1:", "v2:"))
    data = tick(0, 1) + record(0, 0, 2, 100, 20) + tick(1, 3) + record(0, 1, 4, 150, 30)
    assert [row.values["sent_bytes"] for row in read_records(data, (Group("network", 1, (both,)),)).rows] == [0, 60]


def test_the_hosts_ticks_become_fractions_of_the_time_between() -> None:
    group = Group("host", 1, plan_host()[:1])
    #             user nice system idle iowait irq softirq steal
    before, after = (100, 10, 50, 800, 20, 5, 5, 10), (150, 10, 50, 830, 30, 5, 5, 20)
    data = tick(0, 1) + record(0, 0, 2, *before) + tick(1, 3) + record(0, 1, 4, *after) + record(0, 2, 5, *after)
    rows = read_records(data, (group,)).rows
    assert [row.values for row in rows] == [{"busy": pytest.approx(0.5), "steal": pytest.approx(0.1)}]
    assert rows[0].name == HOST
    backwards = tick(0, 1) + record(0, 0, 2, *after) + tick(1, 3) + record(0, 1, 4, *before)
    assert read_records(backwards, (group,)).rows == (), "no time has passed then"


def test_usage_is_of_one_name_and_leaves_out_what_was_not_read() -> None:
    rows = [
        Row(0.0, "web", {"cpu_ns": 0, "cgroup_bytes": 100, "nr_periods": 0, "nr_throttled": 0, "throttled_ns": 0}),
        Row(1.0, "web", {"cpu_ns": 500_000_000, "cgroup_bytes": 200, "pss_bytes": 20}),
        Row(1.0, "redis", {"cpu_ns": 9_000_000_000, "cgroup_bytes": 7, "pss_bytes": 7}),
        Row(
            2.0, "web", {"cpu_ns": 700_000_000, "pss_bytes": 30, "nr_periods": 10, "nr_throttled": 3, "throttled_ns": 5}
        ),
        Row(2.1, "web", {"read_bytes": 7}),
    ]
    usage = summarise_usage(rows, "web")
    assert usage.cpu_s == pytest.approx(0.7)
    assert (usage.cgroup_bytes, usage.pss_bytes, usage.samples) == (150, 25, 3)
    assert usage.throttling == Throttling(10, 3, 5)
    assert summarise_usage(rows, "absent").samples == 0
    assert summarise_usage(rows, "absent").cpu_s == 0


def test_a_table_has_empty_cells_where_nothing_was_read() -> None:
    table = tabulate([Row(0.12345, "web", {"cpu_ns": 5}), Row(0.2, "host", {"busy": 0.123456, "io_some_us": 3})])
    first, second = (dict(zip(COLUMNS, line, strict=True)) for line in table)
    assert (first["t_s"], first["name"], first["cpu_ns"], first["busy"], first["pss_bytes"]) == (
        0.1235,
        "web",
        5,
        "",
        "",
    )
    assert (second["busy"], second["io_some_us"], second["cpu_ns"]) == (0.1235, 3, "")
