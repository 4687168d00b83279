"""Counts of a window as figures: what was not counted is absent."""

from __future__ import annotations

from testbed.counts import Counts, HostCounts
from testbed.measures.counting import Tally, make_metrics

HOST = HostCounts(100, 1000)
LATER = HostCounts(160, 1900)


def _figures(before: Tally | None, after: Tally | None, requests: int | None = None) -> dict[str, float]:
    return {metric.metric: metric.value for metric in make_metrics(before, after, requests)}


def test_an_instance_that_was_not_there_yet_counts_whole() -> None:
    machine = Counts(40, 1, {7: 3}, {"exits": 9, "halt": 4, "other": 5})
    figures = _figures(Tally(HOST), Tally(LATER, {"a": machine, "b": machine}, took_ns=10**6))
    assert figures == {
        "exits": 18, "exits_halt": 8, "exits_other": 10, "page_faults": 80, "major_faults": 2, "context_switches": 6,
        "host_context_switches": 900, "host_interrupts": 60, "counting": 0.001,
    }  # fmt: skip


def test_a_window_under_load_counts_for_each_request() -> None:
    before = Tally(HOST, {"a": Counts(40, 0, {7: 3}, {"exits": 9, "halt": 4})})
    after = Tally(LATER, {"a": Counts(60, 0, {7: 13, 8: 10}, {"exits": 109, "halt": 24})})
    figures = _figures(before, after, 10)
    assert (figures["exits_per_request"], figures["exits_halt_per_request"]) == (10, 2)
    assert (figures["page_faults_per_request"], figures["context_switches_per_request"]) == (2, 2)
    assert figures["host_interrupts_per_request"] == 6
    assert "exits" not in figures


def test_what_was_not_counted_of_all_instances_is_absent() -> None:
    machine, process = Counts(1, 0, {}, {"exits": 5}), Counts(1, 0, None)
    figures = _figures(Tally(HOST), Tally(LATER, {"a": machine, "b": process}))
    assert not any("exits" in name or name == "context_switches" for name in figures)
    assert figures["page_faults"] == 2


def test_without_a_reading_or_a_request_there_are_no_figures() -> None:
    assert _figures(None, Tally(LATER)) == _figures(Tally(HOST), None) == _figures(Tally(HOST), Tally(LATER), 0) == {}
