"""The course of a run, with trials that end as a test says and clocks that it turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from testbed.interruption import Interrupted
from testbed.measures.course import Course, Plan, describe_plan, find_reason_to_give_up, look_ahead
from testbed.measures.design import Asked, Design, choose_design
from testbed.measures.pace import Pace
from testbed.measures.schedule import Group, PlannedTrial
from testbed.measures.trials import make_unmeasured
from testbed.results import Metric, Outcome, RunFolder, Trial

Value = Callable[[PlannedTrial, int], float]
RATES = (20.0, 40.0)
METRICS = {"start": "ready", "density": "memory_cgroup_further", "utilisation": "cpu_per_request"}


class Host:
    """What performs trials: each takes ``took_s`` and has a value; the numbers in ``outcomes`` end otherwise."""

    def __init__(self, folder: RunFolder, value: Value, outcomes: Mapping[int, Outcome] | None = None) -> None:
        self.folder = folder
        self.value = value
        self.outcomes = outcomes or {}
        self.now_s = 0.0
        self.took_s = 10.0
        self.done: list[tuple[PlannedTrial, ...]] = []
        self.stop_at = 0

    def clock(self) -> float:
        return self.now_s

    def perform(self, unit: tuple[PlannedTrial, ...]) -> Sequence[Trial]:
        self.done.append(unit)
        self.now_s += self.took_s
        trials = []
        for planned in unit:
            for index in range(planned.count):
                trial = make_unmeasured(planned, index, self.outcomes.get(planned.trial + index, "ok"), "")
                if trial.trial == self.stop_at:
                    self.folder.append(replace(trial, outcome="interrupted"))
                    raise Interrupted(2)
                figure = Metric(METRICS[planned.measure], self.value(planned, index), "1")
                trials.append(replace(trial, metrics=(figure,)) if trial.outcome == "ok" else trial)
                self.folder.append(trials[-1])
        return trials


def make_plan(design: Design, groups: tuple[Group, ...] = (("a",), ("b",))) -> Plan:
    return Plan(groups, tuple(design.least), {"utilisation": RATES}, 1, design)


def level(planned: PlannedTrial, index: int) -> float:
    return 1.0


def spread(planned: PlannedTrial, index: int) -> float:
    return 1.0 + planned.trial % 7


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run", {"run": "run", "scenario": "small"})


def run(plan: Plan, host: Host, lines: list[str] | None = None, spent_s: float = 0.0) -> Course:
    said: list[str] = [] if lines is None else lines
    pace = Pace(lambda measure, group: 10.0, host.clock)
    course = Course(plan, host.folder, host.perform, pace, {"a": "A"}, said.append, spent_s, host.clock)
    course.run()
    return course


def count(folder: RunFolder) -> Counter[tuple[str, str]]:
    return Counter((trial.measure, trial.platform) for trial in folder.trials() if trial.counted)


def test_a_full_run_has_an_interval_of_everything_after_a_warm_up(folder: RunFolder) -> None:
    design = choose_design(tuple(METRICS), 2, Asked())
    course = run(make_plan(design), Host(folder, level))
    assert count(folder) == {
        (measure, platform): 7 * (2 if measure == "utilisation" else 1) for measure in METRICS for platform in "ab"
    }
    warmups = [trial for trial in folder.trials() if trial.warmup]
    assert {trial.block for trial in warmups} == {1, 2, 3} and len(warmups) == 2 * (1 + 1 + 2)
    assert set(course.ended.values()) == {"±0.0% after 7 blocks"} and course.unfinished is None
    numbers = [trial.trial for trial in folder.trials()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_what_spreads_is_measured_up_to_the_cap_and_the_rest_is_not(folder: RunFolder) -> None:
    def value(planned: PlannedTrial, index: int) -> float:
        return spread(planned, index) if planned.measure == "start" else 1.0

    design = choose_design(("start", "density"), 2, Asked(until=0.01, budget_s=1e6))
    course = run(make_plan(design), Host(folder, value))
    assert count(folder)["start", "a"] == 40 and count(folder)["density", "a"] == 7
    assert course.ended["start"].startswith("the most, 40 blocks: ±")


def test_time_is_judged_at_the_edges_of_blocks(folder: RunFolder) -> None:
    """A block of two trials takes 20 s: three fit into 70."""
    design = Design({"start": 6}, {"start": 40}, until=0.01, budget_s=70.0)
    host = Host(folder, spread)
    course = run(make_plan(design), host)
    assert len(host.done) == 6 and host.now_s == 60
    assert course.ended == {"start": "3 blocks within the budget of 70 s"}


def test_without_a_budget_time_ends_only_what_goes_beyond_the_least_number(folder: RunFolder) -> None:
    design = Design({"start": 6}, {"start": 40}, until=0.01, more_for_s=30.0)
    course = run(make_plan(design), Host(folder, spread))
    assert count(folder)["start", "a"] == 6
    assert course.ended == {"start": "6 blocks: none beyond the least number would end within 30 s"}


def test_what_earlier_sessions_took_counts_towards_the_budget(folder: RunFolder) -> None:
    design = Design({"start": 3}, {"start": 3}, budget_s=70.0)
    host = Host(folder, level)
    folder.append(Trial(1, 1, "a", "start", "ok"))
    folder.append(Trial(2, 1, "b", "start", "ok"))
    run(make_plan(design), host, spent_s=40.0)
    assert len(host.done) == 2, "one block of 20 s fits, two do not"


def test_the_first_block_begins_whatever_it_is_guessed_to_take(folder: RunFolder) -> None:
    design = Design({"start": 3}, {"start": 3}, budget_s=1.0)
    run(make_plan(design), Host(folder, level))
    assert count(folder) == {("start", "a"): 1, ("start", "b"): 1}


def test_void_trials_are_repeated_in_their_block_and_stay_on_record(folder: RunFolder) -> None:
    design = Design({"start": 2}, {"start": 2})
    run(make_plan(design), Host(folder, level, {1: "void", 3: "void"}))
    first = [(one.trial, one.outcome, one.repeats) for one in folder.trials() if one.block == 1]
    assert first == [(1, "void", 0), (2, "ok", 0), (3, "void", 1), (4, "ok", 3)]
    assert count(folder) == {("start", "a"): 2, ("start", "b"): 2}


def test_a_platform_that_is_always_void_does_not_hold_the_run_up(folder: RunFolder) -> None:
    design = Design({"start": 2}, {"start": 2})
    host = Host(folder, level, {number: "void" for number in range(1, 100)})
    run(make_plan(design, (("a",),)), host)
    assert len(host.done) == 2 * 3


@pytest.mark.parametrize("stop_at", [1, 2, 3, 7, 8, 12])
def test_an_interrupted_run_goes_on_where_it_was_and_counts_nothing_twice(folder: RunFolder, stop_at: int) -> None:
    design = choose_design(("start", "utilisation"), 2, Asked(trials=2))
    plan = make_plan(design)
    host = Host(folder, level)
    host.stop_at = stop_at
    with pytest.raises(Interrupted):
        run(plan, host)
    host.stop_at = 0
    run(plan, host)
    record = folder.trials()
    slots = Counter(
        (one.block, one.platform, one.measure, one.parameters.get("rate_per_s")) for one in record if one.counted
    )
    assert set(slots.values()) == {1} and len(slots) == 2 * 2 + 2 * 2 * 2
    again = next(one for one in record if one.repeats)
    interrupted = next(one for one in record if one.outcome == "interrupted")
    assert again.repeats == interrupted.trial == stop_at
    assert len({one.trial for one in record}) == len(record)


def test_a_run_that_was_killed_between_trials_gives_the_schedule_it_would_have_had(tmp_path: Path) -> None:
    plan = make_plan(Design({"start": 4}, {"start": 4}))
    whole, cut = (RunFolder.create(tmp_path, name, {"run": name}) for name in ("whole", "cut"))
    run(plan, Host(whole, level))
    for trial in whole.trials()[:3]:
        cut.append(trial)
    run(plan, Host(cut, level))
    assert cut.trials() == whole.trials()


def test_a_run_knows_which_block_it_was_cut_short_in(folder: RunFolder) -> None:
    host = Host(folder, level)
    host.stop_at = 4
    pace = Pace(clock=host.clock)
    course = Course(make_plan(Design({"start": 4}, {"start": 4})), folder, host.perform, pace, {}, print)
    with pytest.raises(Interrupted):
        course.run()
    assert course.unfinished == 2 and course.ended == {}


def test_a_platform_is_given_up_after_two_failed_blocks_and_no_success() -> None:
    def trial(block: int, platform: str, outcome: Outcome) -> Trial:
        return Trial(block, block, platform, "start", outcome)

    failed_twice = [trial(1, "vm", "failed"), trial(2, "vm", "failed"), trial(2, "container", "ok")]
    assert find_reason_to_give_up(failed_twice, "vm") == "not tried: vm failed in its first 2 blocks"
    assert find_reason_to_give_up(failed_twice, "container") == ""
    assert find_reason_to_give_up(failed_twice[:1], "vm") == ""
    assert find_reason_to_give_up([trial(1, "vm", "ok"), *failed_twice], "vm") == ""
    assert find_reason_to_give_up([trial(1, "vm", "failed"), trial(1, "vm", "failed")], "vm") == "", "rates of a block"


def test_what_is_given_up_is_recorded_without_being_tried(folder: RunFolder) -> None:
    for block in (1, 2):
        folder.append(Trial(block, 90 + block, "a", "start", "failed"))
    host = Host(folder, level)
    run(make_plan(Design({"utilisation": 1}, {"utilisation": 1}), (("a",),)), host)
    assert host.done == []
    assert [(one.trial, one.outcome, one.parameters["rate_per_s"]) for one in folder.trials()[2:]] in (
        [(3, "failed", 20.0), (4, "failed", 40.0)],
        [(3, "failed", 40.0), (4, "failed", 20.0)],
    )


def test_a_run_says_what_it_will_do_and_how_far_it_is(folder: RunFolder) -> None:
    plan = make_plan(choose_design(("start", "utilisation"), 2, Asked()))
    pace = Pace(lambda measure, group: 60.0)
    assert describe_plan(plan, look_ahead(plan, ()), pace) == (
        "blocks: at least 6 of start, 6 of utilisation, after 1 of each as a warm-up; about 28 min expected",
        "more until each median is known to ±5.0%, at most 40 of start, 40 of utilisation; no block that would not end "
        "within 30 min",
    )
    short = make_plan(choose_design(("start",), 2, Asked(quick=True, budget_s=90.0)))
    assert describe_plan(short, look_ahead(short, ()), pace) == (
        "blocks: 2 of start; about 4 min expected",
        "no block that would not end within 90 s",
        "fewer than 6 blocks of start: their medians have a range, and no interval",
    )
    lines: list[str] = []
    run(short, Host(folder, level), lines)
    assert [line for line in lines if line.startswith("trial")] in (
        [f"trial {number} of 4: start on {name}, about {left} s left" for number, name, left in shown]
        for shown in ([(1, one, 40), (2, two, 30), (3, three, 20), (4, four, 10)] for one, two, three, four in ORDERS)
    )
    assert lines[-1] == "start: 2 blocks, as asked for"


ORDERS = [("A", "b", "A", "b"), ("A", "b", "b", "A"), ("b", "A", "A", "b"), ("b", "A", "b", "A")]


def test_a_run_foresees_more_blocks_where_the_interval_is_wide(folder: RunFolder) -> None:
    plan = make_plan(Design({"start": 6}, {"start": 40}, until=0.05), (("a",),))
    values = [1.0, 1.02, 1.05, 1.1, 1.12, 1.15]
    record = [
        Trial(number, number, "a", "start", "ok", metrics=(Metric("ready", value, "s"),))
        for number, value in enumerate(values, 1)
    ]
    outlook = look_ahead(plan, record)
    assert not outlook.certain and outlook.trials == 13 - 6, "±7 % with 6 are ±5 % with 12, and one more"
