"""What is told of comparisons, and of the order of trials."""

from __future__ import annotations

import json
import random
from typing import Any

from reports import comparisons, summary
from testbed.analysis import read_run
from testbed.results import Metric, RunFolder, Trial
from testbed.statistics import compare_medians, judge_exactly

WriteRun = Any


def _start(block: int, platform: str, ready_s: float) -> Trial:
    return Trial(1000 + block, 1000 + block, platform, "start", "ok", metrics=(Metric("ready", ready_s, "s"),))


def test_every_figure_has_its_verdict_and_ratio(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(platforms=("container", "kvm", "vm"), ramps=6, blocks=6)))
    (sentence,) = comparisons.describe(run)
    assert sentence.startswith("vm (KVM) against container: first correct answer more (4.")
    assert "each further copy, cgroup charge more (6." in sentence
    assert "copies within the SLO less (0.417 times, 95 % interval 0.417–0.417)" in sentence
    assert "CPU time per request at 200/s more (1.5" in sentence
    assert sentence.endswith("(5 comparisons, judged at once).")
    assert sentence in summary.compose(run).details


def test_no_difference_is_said(write_run: WriteRun) -> None:
    chance = random.Random(1)
    starts = [_start(at, name, chance.gauss(1, 0.01)) for at in range(12) for name in ("container", "kvm")]
    run = read_run(RunFolder.open(write_run(platforms=("container", "kvm"), starts=0, ramps=0, blocks=0, extra=starts)))
    (sentence,) = comparisons.describe(run)
    assert "first correct answer the same within 5% (" in sentence
    assert "judged at once" not in sentence


def test_what_cannot_be_told_says_why_and_what_would_have_been_seen() -> None:
    chance = random.Random(2)
    one, other = ([chance.lognormvariate(0, 1) for _ in range(8)] for _ in range(2))
    text = comparisons.describe_verdict(compare_medians(one, other))
    assert text.startswith("cannot tell (") and "the trials vary too much; a difference of " in text
    exact = [judge_exactly(compare_medians([2.0], [value])) for value in (1.0, 2.0, 7.4)]
    assert [comparisons.describe_verdict(one) for one in exact] == [
        "less (0.500 times)",
        "the same (1.00 times)",
        "more (3.70 times)",
    ]
    few = comparisons.describe_verdict(compare_medians([1.0, 2.0], [1.0, 2.0]))
    assert few.endswith("range 0.50–2.00, fewer than 6 trials)")


def test_what_moved_over_the_run_is_a_note(write_run: WriteRun) -> None:
    drifting = [_start(at, "container", 1 + at / 20) for at in range(24)]
    cold = [_start(at, "kvm", 9.0 if at < 1 else 1 + 0.001 * (at % 3)) for at in range(12)]
    folder = write_run(platforms=("container", "kvm"), starts=0, ramps=0, blocks=0, extra=[*drifting, *cold])
    notes = summary.compose(read_run(RunFolder.open(folder))).warnings
    (of_container,) = [note for note in notes if note.startswith("first correct answer, container: ")]
    assert (
        "it drifted by +73.0% over the run" in of_container
        and "or wandered, which that test cannot tell from a drift" in of_container
        and "neighbouring trials resemble each other" in of_container
        and of_container.endswith("in its interval its 24 trials count as 3 independent ones.")
    )
    (of_kvm,) = [note for note in notes if note.startswith("first correct answer, vm (KVM): ")]
    assert "the first trial differs from the later ones" in of_kvm


def test_few_trials_assume_what_they_cannot_show(write_run: WriteRun) -> None:
    rising = [_start(at, "container", 1 + at / 20) for at in range(9)]
    calm = [_start(at, "kvm", 1 + at * 4 % 7 / 100) for at in range(7)]
    folder = write_run(platforms=("container", "kvm"), starts=0, ramps=0, blocks=0, extra=[*rising, *calm])
    notes = comparisons.list_notes(read_run(RunFolder.open(folder)))
    assert notes[0].endswith("9 trials are too few for an interval that allows for it.")
    assert notes[1:] == [
        "Intervals of first correct answer assume independent trials: n = 7 to 9 cannot show otherwise."
    ]


def test_enough_trials_assume_nothing(write_run: WriteRun) -> None:
    calm = [_start(at, "container", 1 + at * 5 % 12 / 100) for at in range(12)]
    folder = write_run(platforms=("container",), starts=0, ramps=0, blocks=0, extra=calm)
    assert comparisons.list_notes(read_run(RunFolder.open(folder))) == []


def test_the_json_has_comparisons_series_and_repetitions(write_run: WriteRun) -> None:
    run = read_run(RunFolder.open(write_run(platforms=("container", "kvm"))))
    data = json.loads(json.dumps(comparisons.as_json(run), allow_nan=False))
    assert {one["comparison"]["verdict"] for one in data["against_baseline"]} <= {"more", "cannot tell", "less"}
    assert data["against_baseline"][0]["comparison"]["ratio"]["n"] == 10
    assert {one["platform"] for one in data["over_the_run"]} == {"container", "kvm"}
    assert data["where_to_repeat"] == {}, "these starts have no requests"
    assert comparisons.as_json(read_run(RunFolder.open(write_run(platforms=(), name="empty")))) == {
        "against_baseline": [],
        "over_the_run": [],
        "where_to_repeat": {},
    }
