"""The platforms of a run against its baseline, and what its trials did over the run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from testbed.analysis import Run, read_run
from testbed.comparisons import Headline, compare_platforms, examine_series
from testbed.results import REFERENCE, Metric, Outcome, RunFolder, Trial

PLATFORMS = {
    "container": {"emulated": False},
    "crun": {"emulated": False},
    "vm": {"emulated": True},
    "container-pooled": {"emulated": False, "temperature": "pooled"},
}


def _start(block: int, platform: str, ready_s: float, outcome: Outcome = "ok", warmup: bool = False) -> Trial:
    metrics = (Metric("ready", ready_s, "s"),)
    return Trial(block, block, platform, "start", outcome, "", metrics=metrics, warmup=warmup)


def _load(block: int, platform: str, rate_per_s: float, cpu_s: float, saturated: bool = False) -> Trial:
    metrics = (Metric("cpu_per_request", cpu_s, "s"), Metric("saturated", float(saturated), "1"))
    return Trial(block, block, platform, "utilisation", "ok", "", {"rate_per_s": rate_per_s}, metrics)


def _run(base: Path, *trials: Trial) -> Run:
    folder = RunFolder.create(base, "run", {"run": "run", "scenario": "s", "platforms": PLATFORMS})
    for trial in trials:
        folder.append(trial)
    return read_run(folder)


def _starts(platform: str, scale: float, n: int = 12, seed: int = 1) -> list[Trial]:
    chance = random.Random(f"{platform} {seed}")
    return [_start(block, platform, scale * chance.lognormvariate(0, 0.02)) for block in range(1, n + 1)]


def test_what_may_be_compared_is_compared_with_the_first(tmp_path: Path) -> None:
    trials = [trial for name, scale in (("container", 1), ("crun", 2), ("vm", 9)) for trial in _starts(name, scale)]
    (only,) = compare_platforms(_run(tmp_path, *trials))
    assert (only.baseline, only.platform, only.headline) == ("container", "crun", Headline("start", "ready"))
    assert only.comparison.verdict == "more"
    assert only.comparison.ratio is not None and 1.9 < only.comparison.ratio.value < 2.1


def test_trials_that_are_no_evidence_are_left_out(tmp_path: Path) -> None:
    trials = _starts("container", 1) + _starts("crun", 1)
    trials += [_start(50 + at, "crun", 99.0, "void") for at in range(20)]
    trials += [_start(80 + at, "crun", 99.0, warmup=True) for at in range(20)]
    (only,) = compare_platforms(_run(tmp_path, *trials))
    assert (only.comparison.verdict, only.comparison.n_other) == ("equivalent", 12)


def test_load_is_compared_at_the_highest_rate_that_all_keep_up_with(tmp_path: Path) -> None:
    trials = [
        _load(block, platform, rate, (1 + (platform == "crun")) * (1 + block / 1000), rate == 50 and platform == "crun")
        for block in range(8)
        for platform in ("container", "crun")
        for rate in (10.0, 20.0, 50.0)
    ]
    (only,) = compare_platforms(_run(tmp_path, *trials))
    assert only.headline == Headline("utilisation", "cpu_per_request", 20.0)
    assert only.comparison.verdict == "more"


@pytest.mark.parametrize(
    ("reasons", "verdict"),
    [
        (("slo: p99", "memory: short"), "equivalent"),
        (("cap: 3 applications", "slo: p99"), "equivalent"),
        (("cap: 3 applications", "cap: 3 applications"), None),  # nobody knows how many more
    ],
)
def test_copies_are_compared_by_what_a_further_one_takes(
    reasons: tuple[str, str], verdict: str | None, tmp_path: Path
) -> None:
    folder = RunFolder.create(tmp_path, "run", {"run": "run", "scenario": "s", "platforms": PLATFORMS})
    for number in range(1, 17):
        platform, each = ("container", 100.0) if number % 2 else ("crun", 150.0)
        rows = [(copies, copies * each * (1 + number / 1000)) for copies in range(4)]
        samples = folder.write_samples(f"t{number}", ("applications", "cgroup_bytes"), rows)
        metrics = (Metric("applications", 3, "1"),)
        reason = reasons[number % 2]
        folder.append(Trial(number, number, platform, "density", "ok", reason, metrics=metrics, samples=samples))
    by_metric = {one.headline.metric: one.comparison for one in compare_platforms(read_run(folder))}
    assert by_metric["further_bytes"].verdict == "more"
    compared = by_metric.get("applications")
    assert (compared and compared.verdict) == verdict


def test_what_a_series_did_is_told(tmp_path: Path) -> None:
    drifting = [_start(block, "crun", 1 + block / 20) for block in range(1, 25)]
    cold = [_start(1, "container", 3.0), *_starts("container", 1, 30)[1:]]
    by_platform = {one.platform: one for one in examine_series(_run(tmp_path, *cold, *drifting))}
    assert by_platform["container"].warmup == 1 and not by_platform["container"].drifts
    assert by_platform["crun"].drifts and by_platform["crun"].is_related
    assert by_platform["crun"].drift.relative > 0.5
    assert by_platform["crun"].effective == 3


def test_a_run_with_little_in_it_has_nothing_to_compare(tmp_path: Path) -> None:
    assert compare_platforms(_run(tmp_path / "empty")) == ()
    assert examine_series(_run(tmp_path / "none")) == ()
    failed = [_start(1, name, 1.0, "failed") for name in ("container", "crun")]
    assert compare_platforms(_run(tmp_path / "failed", *failed)) == ()
    one_each = [_start(1, name, 1.0) for name in ("container", "crun")]
    (only,) = compare_platforms(_run(tmp_path / "one", *one_each))
    assert only.comparison.verdict == "cannot tell"


def test_in_instruction_time_any_difference_is_one(tmp_path: Path) -> None:
    manifest = {"run": "run", "scenario": "s", "platforms": PLATFORMS, "machine": {"kind": REFERENCE}}
    for name, seconds, verdict in (("more", 1.001, "more"), ("less", 0.5, "less"), ("same", 1.0, "equivalent")):
        folder = RunFolder.create(tmp_path / name, "run", manifest)
        folder.append(_start(1, "container", 1.0))
        folder.append(_start(1, "crun", seconds))
        (only,) = compare_platforms(read_run(folder))
        assert (only.comparison.verdict, only.comparison.why) == (verdict, "")


def test_an_application_s_work_is_compared_by_its_own_figures(tmp_path: Path) -> None:
    settings = {"work": {"figures": [["throughput", "1/s"], "damaged", []]}}
    manifest = {"run": "run", "scenario": "s", "platforms": PLATFORMS, "settings": settings}
    folder = RunFolder.create(tmp_path, "run", manifest)
    for block in range(8):
        for platform, scale in (("container", 1.0), ("crun", 0.5)):
            metrics = (Metric("throughput", scale * (100 + block), "1/s"), Metric("work_duration", 1.0, "s"))
            folder.append(Trial(block, block, platform, "work", "ok", metrics=metrics))
    (only,) = compare_platforms(read_run(folder))
    assert (only.headline, only.comparison.verdict) == (Headline("work", "throughput"), "less")


def test_a_duet_is_left_to_its_own_comparison(tmp_path: Path) -> None:
    pairs = (("container", "crun"), ("crun", "container"))
    trials = [
        replace(_start(block, platform, 1.0 + block / 1000), beside=beside)
        for block in range(1, 9)
        for platform, beside in pairs
    ]
    assert compare_platforms(_run(tmp_path, *trials)) == ()
