"""What a run was made of: told in short printable texts, and enough to say whether two runs can be compared."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.runs.fingerprint import (
    list_differences,
    list_doubts,
    list_obstacles,
    look_ahead,
    name_values,
    read_commit,
    shorten,
)

MakeRun = Any


def test_nested_facts_are_dotted_names() -> None:
    nested = {"a": {"b": 1, "c": [1, 2], "load_average": [9]}, "d": [{"e": None}, {"e": True}]}
    assert list(name_values(nested)) == [("a.b", "1"), ("a.c", "1, 2"), ("d.0.e", ""), ("d.1.e", "True")]


@pytest.mark.parametrize(
    "value",
    [10**5000, {"a": {}}, [], "\x1b[31m" * 1000, float("inf"), "x" * 10**6],
    ids=("huge", "empty", "none", "red", "infinite", "long"),
)
def test_whatever_a_fact_is_it_is_a_short_printable_text(value: Any) -> None:
    deep: Any = value
    for _ in range(50):
        deep = {"a": deep}
    for name, text in (*name_values({"name": value}), *name_values(deep)):
        assert len(name) <= 120 and len(text) <= 120
        assert text.isprintable()


def test_a_longer_text_ends_in_a_mark() -> None:
    assert shorten("word " * 100).endswith("…") and len(shorten("x" * 500)) == 100
    assert shorten("a\n b") == "a b"


def differ(make_run: MakeRun, **changes: Any) -> Any:
    return list_differences(make_run([]).run, make_run([], **changes).run)


def test_how_much_is_measured_is_no_obstacle_and_what_is(make_run: MakeRun) -> None:
    assert list_obstacles(differ(make_run, settings={"trials": 99, "load": {"rates_per_s": [50]}})) == ()
    (obstacle,) = list_obstacles(differ(make_run, settings={"trials": 12, "load": {"rates_per_s": [50, 60]}}))
    assert "settings.load.rates_per_s: 50 → 50, 60" in obstacle


def test_an_updated_host_is_the_same_host(make_run: MakeRun) -> None:
    cpu = {"model": "Some CPU", "processors": 2, "microcode": "0x2"}
    assert list_doubts(differ(make_run, host={"cpu": cpu, "kernel": "6.9"})) == ()
    (doubt,) = list_doubts(differ(make_run, host={"cpu": {**cpu, "processors": 4}}))
    assert "host.cpu.processors: 2 → 4" in doubt


def test_in_the_reference_machine_the_host_below_is_no_part_of_it(make_run: MakeRun) -> None:
    machine = {"kind": "reference", "inputs": "1"}
    one, other = make_run([], machine=machine), make_run([], machine={**machine, "inputs": "2"}, host={"cpu": "other"})
    assert [found.name for found in list_differences(one.run, other.run)] == ["machine.inputs"]


@pytest.mark.parametrize(
    ("scenario", "settings", "instruction_time", "problem"),
    [
        ("clickme", {"trials": 1, "load": {"rates_per_s": [50]}}, False, ""),
        ("other", {"load": {"rates_per_s": [50]}}, False, "other scenarios"),
        ("clickme", {"load": {"rates_per_s": [30]}}, False, "settings differ"),
        ("clickme", {"load": {"rates_per_s": [50]}}, True, "an instruction is no second"),
    ],
)
def test_it_is_known_beforehand_what_cannot_be_compared(
    make_run: MakeRun, scenario: str, settings: dict[str, Any], instruction_time: bool, problem: str
) -> None:
    obstacles = look_ahead(make_run([]).run, scenario, settings, instruction_time)
    assert bool(obstacles) == bool(problem)
    assert all(problem in obstacle for obstacle in obstacles[:1])


@pytest.mark.parametrize(
    ("source", "shown"),
    [({"commit": "a" * 40, "dirty": False}, "a" * 12), ({"commit": "b" * 40, "dirty": True}, "b" * 12 + "+changes"),
     ({"commit": 5}, ""), ([], ""), (None, "")],
)  # fmt: skip
def test_a_commit_is_named_in_short(make_run: MakeRun, source: Any, shown: str) -> None:
    assert read_commit(make_run([], source=source).run) == shown
