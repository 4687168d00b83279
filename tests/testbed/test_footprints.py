"""What is read of a run's footprints, and what is said of a run that has none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.analysis import Run, read_run
from testbed.footprints import estimate_cpu, fit_line, read_footprints
from testbed.results import Metric, RunFolder, Trial

MIB = 2**20
HEADER = ("applications", "cgroup_bytes", "pss_bytes", "available_bytes")


def load(number: int, block: int, platform: str, rate: float, cpu: float, saturated: bool = False) -> Trial:
    metrics = (
        Metric("achieved_rate", rate, "1/s"),
        Metric("cpu_per_request", cpu, "s"),
        Metric("saturated", float(saturated), "1"),
    )
    return Trial(number, block, platform, "utilisation", "ok", "", {"rate_per_s": rate}, metrics)


def ramp(folder: RunFolder, number: int, platform: str, copies: int, each: float, reason: str = "cap: 4") -> Trial:
    rows = [(0, 0, 0, 1e9), *((count, each * (count + 1), each * count, 1e9) for count in range(1, copies + 2))]
    samples = folder.write_samples(f"t{number:03}", HEADER, rows)
    metrics = (Metric("applications", copies, "1"),)
    return Trial(number, number, platform, "density", "ok", reason, {}, metrics, samples)


def write_run(base: Path, measures: Sequence[str] = ("density", "utilisation"), copies: int = 4, ramps: int = 6) -> Run:
    manifest = {
        "run": "r", "scenario": "clickme", "settings": {"density": {"cap": 4, "rate_per_s": 5}}, "images": {"web": {}},
        "platforms": {"container": {"label": "container"}, "vm": {"label": "vm (TCG, emulated)", "emulated": True}},
    }  # fmt: skip
    folder = RunFolder.create(base, "r", manifest)
    number = 0
    for platform, each, cost in (("container", 40 * MIB, 0.001), ("vm", 300 * MIB, 0.002)):
        for block in range(ramps):
            if "density" in measures:
                folder.append(ramp(folder, number := number + 1, platform, copies, each * (1 + block / 100)))
            for rate in (10.0, 50.0) if "utilisation" in measures else ():
                cpu = cost * (1 + block / 50) + 0.02 / rate
                folder.append(load(number := number + 1, block, platform, rate, cpu))
    folder.append(Trial(number + 1, 0, "container", "start", "ok", metrics=(Metric("ready", 0.5, "s"),)))
    folder.finish("finished")
    return read_run(folder)


def test_a_footprint_has_what_its_trials_have_and_keeps_their_interval(tmp_path: Path) -> None:
    container, machine = read_footprints(write_run(tmp_path))
    assert (container.platform, machine.emulated, container.instances) == ("container", True, 1)
    assert container.memory_first.value == pytest.approx(2 * 41 * MIB, rel=0.01)
    assert container.memory_further.low < 41 * MIB < container.memory_further.high
    assert machine.cpu_per_request.value == pytest.approx(0.0021, rel=0.01)
    assert machine.cpu_idle is not None and machine.cpu_idle.value == pytest.approx(0.02)
    assert container.without_interval == () and container.cpu_per_request.is_interval
    assert container.start_s is not None and container.start_s.value == 0.5 and machine.start_s is None
    assert container.held == (4,) * 6 and container.capped


def test_an_idle_copy_that_was_looked_at_counts_as_it_was_seen(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for number in range(6):
        metrics = (Metric("servers", 3, "1"), Metric("idle_cpu", 0.007 + number / 1e4, "1"))
        run.folder.append(Trial(900 + number, number, "vm", "consolidation", "ok", "", {}, metrics))
    container, machine = read_footprints(read_run(run.folder))
    assert machine.cpu_idle is not None and machine.cpu_idle.value == pytest.approx(0.00725)
    assert container.cpu_idle is not None and container.cpu_idle.value == pytest.approx(0.02)


def test_few_trials_have_no_interval_and_say_so(tmp_path: Path) -> None:
    (container, _) = read_footprints(write_run(tmp_path, ramps=2))
    assert "CPU time per request" in container.without_interval


def test_a_run_without_a_measure_says_which_one_to_run_first(tmp_path: Path) -> None:
    run = write_run(tmp_path, measures=("density",))
    with pytest.raises(UsageError) as caught:
        read_footprints(run)
    assert "container has no successful trial of utilisation" in str(caught.value)
    assert "--measures density,utilisation" in str(caught.value)


def test_a_platform_that_is_asked_for_must_have_a_footprint(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert [one.platform for one in read_footprints(run, only=("vm",))] == ["vm"]
    with pytest.raises(UsageError, match="has no platform podman"):
        read_footprints(run, only=("podman",))


def test_a_service_level_that_breaks_with_one_copy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the service level of container does not hold with one copy"):
        read_footprints(write_run(tmp_path, copies=0))


def test_one_rate_cannot_tell_what_is_idle() -> None:
    per_request, idle = estimate_cpu([load(1, 0, "vm", 10.0, 0.003), load(2, 1, "vm", 10.0, 0.005)])
    assert (per_request.value, idle) == (0.004, None)


def test_rates_in_blocks_of_their_own_share_one_line() -> None:
    per_request, idle = estimate_cpu([load(1, 0, "vm", 10.0, 0.003), load(2, 1, "vm", 20.0, 0.002)])
    assert per_request.value == pytest.approx(0.001) and idle is not None and idle.value == pytest.approx(0.02)
    assert not per_request.is_interval


def test_figures_that_cannot_be_are_no_cost() -> None:
    damaged = [load(1, 0, "vm", 10.0, -5.0), load(2, 0, "vm", -10.0, 0.1), load(3, 0, "vm", 10.0, 0.002)]
    assert estimate_cpu(damaged)[0].value == 0.002


def test_a_saturated_platform_has_no_cost_of_a_request() -> None:
    with pytest.raises(UsageError, match="saturated in all"):
        estimate_cpu([load(1, 0, "vm", 10.0, 0.003, saturated=True)])


@pytest.mark.parametrize(
    ("points", "line"),
    [
        ([(1.0, 3.0), (3.0, 7.0)], (2.0, 1.0)),
        ([(1.0, 1.0), (2.0, 3.0)], (7 / 5, 0.0)),  # an intercept below 0: through the origin
        ([(1.0, 3.0), (3.0, 1.0)], (0.0, 2.0)),  # falling: all of it is idle
    ],
)
def test_neither_part_of_a_line_is_below_nothing(points: list[tuple[float, float]], line: tuple[float, float]) -> None:
    assert fit_line(points) == pytest.approx(line)
