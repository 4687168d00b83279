"""Two sides, compared: what may be compared, in which order, and what a gate makes of all of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.results import Metric, Trial
from testbed.runs.compare import Limits, compare_sides, judge_failures, parse_limits
from testbed.runs.figures import Figure
from testbed.runs.sides import find_side, list_folders, measure, read_side

MakeRun = Any
READY = Figure("container", "start", "ready")


def noisy(center: float, n: int = 12, spread: float = 0.01, seed: int = 1) -> list[float]:
    import random

    chance = random.Random(seed)
    return [center * chance.lognormvariate(0, spread) for _ in range(n)]


def starts(values: Sequence[float], platform: str = "container", metric: str = "ready") -> list[Trial]:
    return [
        Trial(number, number, platform, "start", "ok", metrics=(Metric(metric, value, "s"),))
        for number, value in enumerate(values, 1)
    ]


def failed(count: int, platform: str = "container") -> list[Trial]:
    return [Trial(900 + number, 90, platform, "start", "failed", "not ready") for number in range(count)]


def test_a_slower_start_is_a_regression_and_comes_first(make_run: MakeRun) -> None:
    more = starts(noisy(2.0), metric="created")
    before = make_run([*starts(noisy(1.0)), *more])
    after = make_run([*starts(noisy(1.3, seed=2)), *more])
    comparison = compare_sides([before], [after], Limits())
    assert comparison.result == "regression"
    assert [row.figure.metric for row in comparison.rows] == ["ready", "created"]
    assert comparison.rows[0].harm == pytest.approx(0.3, abs=0.03)
    assert comparison.rows[1].judgement is None, "a phase explains; it is not judged unless it is asked for"
    assert any("not what varies from run to run" in note for note in comparison.notes)


def test_the_same_run_twice_is_ok_within_ten_percent(make_run: MakeRun) -> None:
    before, after = make_run(starts(noisy(1.0))), make_run(starts(noisy(1.0, seed=2)))
    assert compare_sides([before], [after], parse_limits("10%")).result == "ok"


def test_noise_above_the_limit_cannot_tell_and_says_what_it_would_have_seen(make_run: MakeRun) -> None:
    before, after = make_run(starts(noisy(1.0, spread=0.1))), make_run(starts(noisy(1.0, spread=0.1, seed=2)))
    (row,) = compare_sides([before], [after], parse_limits("2%")).rows
    assert row.judgement is not None and row.judgement.result == "cannot tell"
    assert row.judgement.smallest is not None and row.judgement.smallest > 0.05


def test_a_platform_measured_against_itself_gives_the_noise(make_run: MakeRun) -> None:
    again = starts([value * 1.2 for value in noisy(1.0)], "container@again")
    before, after = make_run([*starts(noisy(1.0)), *again]), make_run(starts(noisy(1.1, seed=2)))
    comparison = compare_sides([before], [after], Limits())
    (row,) = comparison.rows
    assert row.noise is not None and row.noise > 0.2
    assert comparison.result == "cannot tell" and comparison.missing == ()


def test_settings_of_another_experiment_are_refused_unless_wanted(make_run: MakeRun) -> None:
    before = make_run(starts(noisy(1.0)))
    after = make_run(starts(noisy(1.0)), settings={"trials": 30, "load": {"rates_per_s": [60]}})
    with pytest.raises(UsageError, match=r"their settings differ \(settings.load.rates_per_s: 50 → 60\)"):
        compare_sides([before], [after], Limits())
    assert any("not runs of one experiment" in note for note in compare_sides([before], [after], Limits(), True).notes)


def test_platforms_that_ran_beside_others_are_not_compared_with_ones_that_did_not(make_run: MakeRun) -> None:
    duet = [replace(trial, beside="vm") for trial in starts(noisy(1.0))]
    with pytest.raises(UsageError, match="each by itself → each with another at the same time"):
        compare_sides([make_run(starts(noisy(1.0)))], [make_run(duet)], Limits())


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"scenario": "other"}, "other scenarios"), ({"machine": {"kind": "reference"}}, "an instruction is no second")],
)
def test_other_scenarios_and_clocks_are_never_compared(make_run: MakeRun, changes: dict[str, Any], why: str) -> None:
    before, after = make_run(starts(noisy(1.0))), make_run(starts(noisy(1.0)), **changes)
    with pytest.raises(UsageError, match=why):
        compare_sides([before], [after], Limits(), anyway=True)


def test_what_differs_is_told_and_what_passes_is_not(make_run: MakeRun) -> None:
    host = {"cpu": {"model": "Other CPU", "processors": 2}, "kernel": "6.2.0", "load_average": [3.0]}
    before = make_run(starts(noisy(1.0)))
    after = make_run(starts(noisy(1.0)), host=host, source={"commit": "b" * 40, "dirty": True})
    comparison = compare_sides([before], [after], Limits())
    assert [(one.group, one.name) for one in comparison.differences] == [
        ("host", "host.cpu.model"),
        ("kernel", "host.kernel"),
        ("commit", "source.commit"),
        ("commit", "source.dirty"),
    ]
    assert any("different hosts" in note for note in comparison.notes)
    assert comparison.result == "cannot tell"
    assert comparison.after.commits == ("bbbbbbbbbbbb+changes",)


def test_an_emulated_guest_is_not_set_beside_hardware(make_run: MakeRun) -> None:
    trials = [*starts(noisy(1.0)), *starts(noisy(3.0), "vm")]
    before = make_run(trials, platforms={"vm": {"label": "vm (KVM)", "emulated": False}})
    after = make_run(trials, platforms={"vm": {"label": "vm (TCG)", "emulated": True}})
    comparison = compare_sides([before], [after], parse_limits("10%"))
    assert {row.figure.platform for row in comparison.rows} == {"container"}
    assert [figure.platform for figure, _ in comparison.missing] == ["vm"] and comparison.result == "cannot tell"


def test_all_failed_is_a_regression(make_run: MakeRun) -> None:
    comparison = compare_sides([make_run(starts(noisy(1.0)))], [make_run(failed(3))], Limits())
    assert comparison.result == "regression" and comparison.rows == ()
    assert comparison.failures[0].after == (3, 3)


def test_what_was_not_measured_cannot_be_told(make_run: MakeRun) -> None:
    before = make_run([*starts(noisy(1.0)), *starts(noisy(3.0), "vm")])
    comparison = compare_sides([before], [make_run(starts(noisy(1.0, seed=2)))], parse_limits("10%"))
    assert [figure.platform for figure, _ in comparison.missing] == ["vm"]
    assert comparison.result == "cannot tell"


@pytest.mark.parametrize(
    ("before", "after", "result"),
    [
        ((0, 30), (1, 30), "ok"),
        ((0, 30), (9, 30), "regression"),
        ((5, 5), (5, 5), "ok"),
        ((1, 2), (2, 2), "regression"),
    ],
)
def test_failures_are_judged_by_how_many_are_likely(
    before: tuple[int, int], after: tuple[int, int], result: str
) -> None:
    assert judge_failures(before, after, 0.05).result == result
    assert judge_failures((0, 9), (1, 9), 0.05, exact=True).result == "regression"


def test_nothing_in_common_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="no figure of one platform is in both"):
        compare_sides([make_run(starts([1.0]))], [make_run(starts([1.0], "vm"))], Limits())


def test_in_the_reference_machine_the_gate_is_exact(make_run: MakeRun) -> None:
    machine = {"machine": {"kind": "reference"}}
    before, same = make_run(starts([1.0]), **machine), make_run(starts([1.0]), **machine)
    worse = make_run(starts([1.000000001]), **machine)
    assert compare_sides([before], [same], Limits()).result == "ok"
    assert compare_sides([before], [worse], Limits()).result == "regression"
    assert compare_sides([before], [worse], parse_limits("1%")).result == "ok"


def test_a_gate_does_not_judge_hosts_unless_it_is_wanted(make_run: MakeRun) -> None:
    before = [make_run(starts(noisy(1.0, seed=n))) for n in range(3)]
    after = make_run(starts(noisy(1.5)), host={"cpu": {"model": "Slow CPU"}})
    doubted = compare_sides(before, [after], Limits())
    assert doubted.result == "cannot tell" and "--anyway" in doubted.judgements[0].reason
    assert compare_sides(before, [after], Limits(), anyway=True).result == "regression"


def test_several_runs_make_a_side(make_run: MakeRun) -> None:
    before = [make_run(starts(noisy(1.0 + 0.01 * n, seed=n))) for n in range(4)]
    comparison = compare_sides(before, [make_run(starts(noisy(1.5)))], Limits())
    assert comparison.result == "regression"
    assert comparison.rows[0].change is not None and comparison.rows[0].change.covers_runs
    assert not any("run to run" in note for note in comparison.notes)


@pytest.mark.parametrize(
    ("limit", "metrics", "expected"),
    [
        ("", "", Limits()),
        ("5%", "", Limits(0.05)),
        ("0.1, latency_p99=20%", "ready,latency_p99", Limits(0.1, {"latency_p99": 0.2}, ("ready", "latency_p99"))),
    ],
)
def test_limits_are_parsed(limit: str, metrics: str, expected: Limits) -> None:
    assert parse_limits(limit, metrics) == expected


@pytest.mark.parametrize(
    ("limit", "metrics", "why"),
    [("much", "", "not a limit"), ("-1%", "", "not a limit"), ("nan", "", "not a limit"), ("speed=1%", "", "no metric"),
     ("", "speed", "no metric speed"), ("inf", "", "not a limit")],
)  # fmt: skip
def test_limits_that_are_none_are_refused(limit: str, metrics: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_limits(limit, metrics)


def test_a_side_is_a_run_a_folder_or_a_list(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(starts([1.0])), make_run(starts([1.0]))
    assert [path.name for path in find_side(str(tmp_path), tmp_path)] == ["r001", "r002"]
    assert [path.name for path in find_side("r002, r001", tmp_path)] == ["r002", "r001"]
    assert find_side(str(tmp_path / "r001"), Path("/nowhere")) == [tmp_path / "r001"]
    with pytest.raises(UsageError, match="named twice"):
        find_side("r001,r001", tmp_path)
    with pytest.raises(UsageError, match="names no run"):
        find_side(" , ", tmp_path)
    with pytest.raises(UsageError, match="is no run folder"):
        read_side("nothing", tmp_path)
    with pytest.raises(UsageError, match="cannot read"):
        list_folders(tmp_path / "nothing")


def test_runs_of_one_side_are_of_one_experiment(make_run: MakeRun, tmp_path: Path) -> None:
    make_run(starts([1.0])), make_run(starts([1.0]), scenario="other")
    with pytest.raises(UsageError, match="no runs of one experiment: they ran other scenarios"):
        read_side(str(tmp_path), tmp_path)


def test_an_applications_own_figures_are_judged_by_their_unit(make_run: MakeRun) -> None:
    def work(flops: float, more: float) -> list[Trial]:
        metrics = (
            Metric("linpack", flops, "flop/s"),
            Metric("score", more, "1"),
            Metric("work_duration", 2.0, "s"),
            Metric("web.throttled", more, "s"),
        )
        return [Trial(number, number, "container", "work", "ok", metrics=metrics) for number in range(1, 9)]

    comparison = compare_sides([make_run(work(2e10, 1.0))], [make_run(work(1e10, 2.0))], Limits())
    assert [(row.figure.metric, row.harm) for row in comparison.rows] == [("linpack", 0.5), ("work_duration", 0.0)]
    assert comparison.rows[0].judgement is not None and comparison.rows[0].judgement.result == "regression"


def test_figures_of_density_come_from_samples_where_trials_lack_them(make_run: MakeRun, tmp_path: Path) -> None:
    trial = Trial(1, 1, "container", "density", "ok", metrics=(Metric("applications", 2, "1"),), samples="t001.csv")
    one = make_run([trial])
    rows = "applications,cgroup_bytes,pss_bytes,available_bytes\n0,0,0,1000\n1,100,80,900\n2,150,120,850\n"
    (one.run.folder.path / "samples" / "t001.csv").write_text(rows)
    found = {figure.metric: values for figure, values in measure(one.run.folder.path).figures.items()}
    assert found["memory_cgroup_first"] == (100.0,) and found["memory_cgroup_further"] == (50.0,)
    assert found["memory_available_first"] == (100.0,) and found["applications"] == (2.0,)
