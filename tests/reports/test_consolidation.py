"""Consolidation in the report: servers before and after, what it rests on, and what is damaged or broke."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from reports import consolidation, document
from reports.figures.consolidation import draw_consolidation
from reports.overview import make_overview
from reports.page import render_page
from reports.rows import make_rows
from reports.summary import compose
from testbed.analysis import Run, read_run
from testbed.consolidations import list_mixes, read_calibration, read_steps
from testbed.results import Metric, RunFolder, Trial

WriteRun = Callable[..., Path]
MIB = 1 << 20
NARROW = "\N{NARROW NO-BREAK SPACE}"
CALIBRATION = {
    "platform": "container",
    "processors": 2.0,
    "host_processors": 2,
    "rates": [{"fraction": 0.08, "rate_per_s": 150.0, "reached": 0.081, "memory_bytes": 60 * MIB}],
}
COLUMNS = ("applications", "p99_ms", "host_application", "host_utilisation")


def make_trial(
    number: int, platform: str, servers: int, alone: float, mix: str = "8%", zombies: float = 0.0, reason: str = ""
) -> Trial:
    metrics = {
        "servers": (servers, "1"), "servers_held": (servers, "1"), "servers_declared": (min(servers, 1), "1"),
        "utilisation_before": (0.081, "1"), "alone_cpu": (alone, "1"), "alone_memory": (60 * MIB, "bytes"),
        "idle_cpu": (0.001, "1"), "idle_wakeups": (50.0, "1/s"), "idle_memory": (50 * MIB, "bytes"),
    }  # fmt: skip
    if servers:
        metrics |= {"utilisation_after": (servers * alone, "1"), "packed_p99": (0.2, "s")}
    return Trial(
        number, number, platform, "consolidation", "ok",
        reason or "slo: 20 of 900 requests slower than 250 ms, more than 1%",
        {"mix": mix, "fraction": 0.08, "zombies": zombies, "rate_per_s": 150.0},
        tuple(Metric(name, value, unit) for name, (value, unit) in metrics.items()),
        f"t{number:03}.csv",
    )  # fmt: skip


@pytest.fixture
def read(write_run: WriteRun) -> Callable[..., Run]:
    """Reads a run of these trials, each with the samples of its ramp."""

    def make(trials: Sequence[Trial], names: Sequence[str] = ("container", "kvm"), **changes: object) -> Run:
        changes = {"calibration": CALIBRATION, "measures": ["consolidation"], **changes}
        path = write_run(platforms=names, starts=0, ramps=0, blocks=0, extra=trials, **changes)
        folder = RunFolder.open(path)
        for trial in trials:
            most = int(trial.value("servers") or 0) + 1
            rows = [(n, 10.0 * n, 0.08 * n, 0.09 * n) for n in range(most + 1)]
            folder.write_samples(f"t{trial.trial:03}", COLUMNS, rows)
        return read_run(folder)

    return make


TRIALS = [
    *(make_trial(number, "container", 9 + number % 3, 0.08 + number / 1e3) for number in range(1, 8)),
    *(make_trial(number, "kvm", 4 + number % 2, 0.16 + number / 1e3) for number in range(11, 18)),
    make_trial(21, "container", 14, 0.081, "8% + 30% zombies", 0.3, "cap: 14 applications"),
]


def test_servers_stand_with_their_intervals_before_and_after(read: Callable[..., Run]) -> None:
    run = read(TRIALS)
    plain, mixed = list_mixes(run)
    assert [(one.platform, one.figures["servers"].value, one.ramps) for one in plain.packed] == [
        ("container", 10, 7),
        ("kvm", 5, 7),
    ]
    container, machine = plain.packed
    assert container.overhead is None and machine.overhead is not None
    assert 1.9 < machine.overhead.low < machine.overhead.value < machine.overhead.high < 2.3
    assert mixed.packed[0].is_capped and not container.is_capped
    said = consolidation.describe_middle(run, run.platforms)
    assert "Of servers that use 8 % of a machine with 2 processors, this host held 10 (then the service level" in said
    assert "and 5 (" in said and "as vm (KVM)" in said and "idle" not in said
    assert "at least 14 (as many as were to be added" in consolidation.describe_others(run, run.platforms)
    assert "times the processor time each; 95 % interval 4–5" in said
    assert consolidation.describe_idle(run, run.platforms).startswith(
        f"In an hour an idle server takes 3.60 s of processor time, 180{NARROW}000 wake-ups, 50.0 MiB of memory as"
        " container"
    )
    assert compose(run).headline.startswith("Of servers that use 8 %")
    assert any("servers within the SLO (8% each) less" in one for one in compose(run).details)


def test_the_table_the_page_and_the_json_have_them(read: Callable[..., Run]) -> None:
    run = read(TRIALS)
    rows = {(row.measure, row.figure): row.cells for row in make_rows(run)}
    assert rows["8 % servers", consolidation.SERVERS.title] == {"container": "10 (9–11)", "kvm": "5 (4–5)"}
    assert rows["8 % servers, 30 % idle", consolidation.SERVERS.title] == {"container": "14"}
    assert rows["an idle server", "wake-ups per hour"]["kvm"].startswith(f"180{NARROW}000")
    page = render_page(run)
    for text in (
        "Before and after",
        "What these figures rest on",
        "Use of the host: 8%",
        "packed as declared",
        "Latency",
    ):
        assert text.lower() in page.lower()
    found = document.as_json(run.folder.path)["consolidation"]
    assert found["calibration"]["rates"][0]["rate_per_s"] == 150.0
    assert found["mixes"][0]["packed"][1]["figures"]["servers"]["value"] == 5
    assert found["idle"]["kvm"]["idle_cpu"]["value"] == 0.001 and len(found["assumptions"]) >= 6
    json.dumps(found, allow_nan=False)


def test_the_first_picture_has_the_servers_of_the_mix_in_the_middle(read: Callable[..., Run]) -> None:
    (measure,) = (one for one in make_overview(read(TRIALS)).measures if one.name == "servers")
    assert measure.note.startswith("at 8 % of a machine each") and measure.mix == "8%"
    assert measure.figures["kvm"].ratio == 0.5 and measure.figures["kvm"].verdict == "less"
    capped = [make_trial(1, "container", 9, 0.08, reason="cap: 9 applications"), make_trial(2, "kvm", 5, 0.1)]
    other = read(capped, name="20260301T120000Z-clickme-cd34")
    (measure,) = (one for one in make_overview(other).measures if one.name == "servers")
    assert measure.figures["container"].text == "\N{GREATER-THAN OR EQUAL TO} 9"
    assert measure.figures["kvm"].verdict == "at most"
    both = [make_trial(1, "container", 9, 0.08, reason="cap: 9"), make_trial(2, "kvm", 9, 0.1, reason="cap: 9")]
    third = read(both, name="20260301T120000Z-clickme-ef56")
    assert not any("servers within the SLO" in one for one in compose(third).details), "both reached the cap"


def test_a_platform_that_was_measured_twice_gives_the_noise_floor(read: Callable[..., Run]) -> None:
    again = [make_trial(number, "container@again", 10, 0.081 + number / 1e3) for number in range(1, 8)]
    run = read([*TRIALS[:7], *again], ("container",))
    assert any("processor time of one server alone (8% each) ±" in one for one in compose(run).details)
    assert [mix.packed[0].platform for mix in list_mixes(run)] == ["container"], "it stands beside no other"
    assert render_page(run)


def test_one_that_broke_with_one_server_is_told(read: Callable[..., Run]) -> None:
    run = read([*TRIALS[:2], make_trial(30, "vm", 0, 0.7)], ("container", "vm"))
    assert "vm (TCG, emulated): of servers that use 8 %" in "\n".join(compose(run).details)
    assert "an idle server takes 3.60 s of processor time" in "\n".join(compose(run).details)
    assert "0 (the service level broke with one" in "\n".join(compose(run).details)
    assert list_mixes(run)[0].packed[1].overhead is None, "it has not done the work"
    assert draw_consolidation(run) and "the service level broke with one" in render_page(run)


def test_a_run_without_servers_has_no_section(read: Callable[..., Run]) -> None:
    run = read([], measures=["start"], calibration=None)
    assert draw_consolidation(run) == [] and 'id="consolidation"' not in render_page(run)
    assert consolidation.as_json(run)["mixes"] == ()


@pytest.mark.parametrize(
    "record",
    [7, [], {"rates": 7}, {"rates": [{"fraction": "x"}], "processors": 2, "host_processors": 2},
     {"rates": [{"fraction": 0.1, "rate_per_s": 1e308, "reached": -1, "memory_bytes": None}]},
     {**CALIBRATION, "processors": float("nan")}, {**CALIBRATION, "host_processors": True}],
)  # fmt: skip
def test_a_damaged_calibration_is_none(read: Callable[..., Run], record: Mapping[str, object]) -> None:
    run = read(TRIALS[:3], calibration=record)
    assert read_calibration(run) is None
    assert "no sound record" in consolidation.list_assumptions(run)[0]
    assert list_mixes(run)[0].packed[0].overhead is None and render_page(run)


def test_samples_that_are_gone_or_damaged_are_no_ramp(read: Callable[..., Run]) -> None:
    run = read(TRIALS[:3])
    (run.folder.path / "samples" / "t001.csv").write_text("applications,p99_ms\n1,x\n")
    (run.folder.path / "samples" / "t002.csv").unlink()
    platform = run.platforms[0]
    (ramp,) = read_steps(run, platform, "8%")
    assert [step.servers for step in ramp] == list(range(1, 11))
    assert render_page(run)
