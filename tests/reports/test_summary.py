"""The answer says what was measured, and never sets emulation against hardware."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import reports
from reports import document, summary
from reports.quantities import START, Quantity, format_number
from reports.rows import make_table
from testbed.analysis import read_run
from testbed.results import Metric, RunFolder, Trial
from testbed.statistics import estimate_median_of_series

WriteRun = Any
FAILED = Trial(900, 90, "vm", "start", "failed", "not ready within 120 s")


def test_an_emulated_platform_is_labelled_and_never_compared(full_run: Path) -> None:
    found = summary.compose(read_run(RunFolder.open(full_run)))
    assert found.headline.startswith("From request to first correct answer, clickme took 0.6")
    assert "as containers (median of 10; 95 % interval" in found.headline
    assert "virtual machine" not in found.headline
    assert "TCG" not in found.headline
    assert "no hardware virtualisation" in found.warnings[0]
    assert "times as long" not in summary.describe_answer(full_run)
    emulated = [sentence for sentence in found.details if "13." in sentence]
    assert len(emulated) == 1
    assert emulated[0].startswith("vm (TCG, emulated): first correct answer after")
    for sentence in found.details:
        assert "virtual machines" not in sentence


def test_hardware_platforms_are_compared_with_an_interval(write_run: WriteRun) -> None:
    run = write_run(platforms=("container", "kvm"))
    found = summary.compose(read_run(RunFolder.open(run)))
    assert found.warnings == ()
    assert "as containers" in found.headline
    assert "as vm (KVM)" in found.headline
    assert "times as long (95 % interval" in found.headline
    text = "\n".join(found.details)
    assert "The first copy of it took 87" in text or "The first copy of it took 88" in text
    assert "each further one 44" in text or "each further one 43" in text
    assert "12 as containers (the cap) and 5 as vm (KVM) (then the service level broke)" in text
    assert "At 200 requests/s a request took 0.5" in text


def test_slow_requests_are_told_by_the_percentile_that_their_number_allows(write_run: WriteRun) -> None:
    path = write_run(starts=0, ramps=0)
    run = read_run(RunFolder.open(path))
    assert "99 % were answered within" in summary.compose(run).headline
    text = (path / "trials.jsonl").read_text()
    (path / "trials.jsonl").write_text(text.replace('"latency_p99"', '"latency_p90"'))
    run = read_run(RunFolder.open(path))
    assert "90 % were answered within" in summary.compose(run).headline
    (path / "trials.jsonl").write_text(text.replace('"latency_p99"', '"latency_other"'))
    run = read_run(RunFolder.open(path))
    assert "half were answered within" in summary.compose(run).headline


def test_a_saturated_platform_says_so_and_gives_no_latency(write_run: WriteRun) -> None:
    figures = (Metric("saturated", 1, "1"), Metric("achieved_rate", 151.0, "1/s"), Metric("cpu_per_request", 1e-3, "s"))
    behind = [Trial(800 + n, n, "container", "utilisation", "ok", "", {"rate_per_s": 300.0}, figures) for n in range(3)]
    run = write_run(platforms=("container", "kvm"), extra=behind)
    text = summary.describe_answer(run)
    assert "It was saturated as containers at 300 requests/s (in 3 of 3 trials), where it answered 151 /s." in text
    assert "At 200 requests/s a request took" in text, "the highest rate that both keep up with"
    rows = {(row.measure, row.figure): row.cells for row in make_table(run)}
    assert rows["at 300/s", "latency p99"] == {"container": "saturated"}
    found = document.as_json(run)["platforms"]["container"]["utilisation"][-1]
    assert found["saturated"] is True
    assert "latency_p99" not in found


def test_few_trials_have_a_range_and_one_says_so(write_run: WriteRun) -> None:
    assert "(median of 3; range " in summary.describe_answer(write_run(starts=3, name="three"))
    assert "as containers (one trial)" in summary.describe_answer(write_run(starts=1, name="one"))


def test_only_emulation_is_no_answer(write_run: WriteRun) -> None:
    text = summary.describe_answer(write_run(platforms=("vm",)))
    assert "This run has no figure of clickme on hardware, only emulated ones." in text


def test_without_starts_the_next_measure_is_the_headline(write_run: WriteRun) -> None:
    run = write_run(platforms=("container",), starts=0)
    assert summary.compose(read_run(RunFolder.open(run))).headline.startswith("The first copy of it took")


def test_a_run_without_success_says_why(write_run: WriteRun) -> None:
    run = write_run(starts=0, ramps=0, blocks=0, extra=[FAILED])
    assert "none of 1 trials succeeded. First reason: not ready within 120 s" in summary.describe_answer(run)
    assert "no trial has ended" in summary.describe_answer(write_run(platforms=(), name="empty"))


@pytest.mark.parametrize(("status", "said"), [("interrupted", "was interrupted"), ("failed", "ended by an error")])
def test_a_run_that_did_not_finish_says_so(write_run: WriteRun, status: str, said: str) -> None:
    assert said in summary.describe_answer(write_run(platforms=("container",), starts=2, status=status))


def test_the_table_has_a_cell_for_each_figure_that_there_is(write_run: WriteRun) -> None:
    rows = {(row.measure, row.figure): row.cells for row in make_table(write_run(extra=[FAILED]))}
    assert set(rows["start", "first correct answer"]) == {"container", "vm"}
    assert set(rows["at 200/s", "latency p99"]) == {"container"}
    assert rows["trials", "ok / failed / void"] == {"container": "26 / 0 / 0", "vm": "23 / 1 / 0"}
    assert rows["density", "copies within the SLO"]["container"] == "12 (the cap)"


def test_the_printed_answer_goes_to_standard_output(write_run: WriteRun, capsys: pytest.CaptureFixture[str]) -> None:
    summary.print_answer(write_run(noise=["[red]loud[/red]"]))
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "Note: Emulated, no hardware virtualisation" in printed.out
    assert "first correct answer" in printed.out
    assert "vm (TCG, emulated)" in printed.out
    assert all(len(line) <= 100 for line in printed.out.splitlines())


def test_the_json_has_every_estimate_in_base_units(full_run: Path) -> None:
    found = json.loads(json.dumps(document.as_json(full_run), allow_nan=False))
    container = found["platforms"]["container"]
    assert found["run"] == full_run.name
    assert container["start"]["ready"]["n"] == 10
    assert container["start"]["ready"]["low"] < container["start"]["ready"]["value"] < 1
    assert container["start_services"]["web"]["first_process"]["value"] > 0
    assert container["density"]["applications"] == [12]
    assert container["density"]["bytes"]["memory_cgroup"]["further"]["value"] > 2**20
    assert container["density"]["bytes"]["memory_cgroup"]["first"]["value"] > 60 * 2**20
    assert [entry["rate_per_s"] for entry in container["utilisation"]] == [10, 25, 50, 100, 200]
    assert found["platforms"]["vm"]["emulated"] is True


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (0.5, "0.500"),
        (13.06, "13.1"),
        (442.4, "442"),
        (25165.8, "25 166"),
        (-2.5, "−2.50"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert format_number(value) == text.replace("25 166", "25\N{NARROW NO-BREAK SPACE}166")


def test_an_interval_has_the_decimals_of_its_estimate() -> None:
    quantity = Quantity("latency", "ms", 1e3)
    assert quantity.show(0.01234) == "12.3 ms"
    assert quantity.span(0.0119, 0.01306, 0.01234) == "11.9–13.1"
    assert quantity.span(-0.001, 0.002, 0.0005) == "−1.000 to 2.000"


def test_the_conditions_of_a_run_are_told_and_are_data(write_run: WriteRun) -> None:
    seen = {"steal": 0.03, "foreign_cpu": 0.2, "throttled_periods": 0.4}
    disturbed = [
        Trial(900 + number, 90, "container", "start", "ok", window=seen, disturbances=(f"noise {number}",))
        for number in range(5)
    ]
    folder = write_run(extra=disturbed, noise=["the load average is 9"], host={"hypervisor": "kvm"}, platforms=["kvm"])
    text = summary.describe_answer(folder)
    assert "not quiet before the run: the load average is 9" in text
    assert "5 were disturbed" in text and "trial 900: noise 0" in text and "and 2 more" in text
    assert "container in up to 40% of a trial's periods" in text
    assert "itself a virtual machine (kvm), so the guests of vm (KVM) are nested" in text
    data = document.as_json(folder)["conditions"]
    assert data["hypervisor"] == "kvm" and data["before"] == ["the load average is 9"]
    assert [one["trial"] for one in data["trials"]] == [900, 901, 902, 903, 904]
    assert data["trials"][0] == {"trial": 900, "window": seen, "disturbances": ["noise 0"]}


@pytest.mark.parametrize(
    ("kind", "label", "where"),
    [
        ("kvm", "vm (KVM, nested)", "which is itself a virtual machine"),
        ("qemu", "vm (KVM on an emulated host)", "which is itself emulated"),
    ],
)
def test_the_headline_says_what_the_host_itself_is(kind: str, label: str, where: str, write_run: WriteRun) -> None:
    folder = write_run(platforms=("container", "kvm"), host={"hypervisor": kind})
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace("vm (KVM)", label))
    headline = document.as_json(folder)["answer"]["headline"]
    assert f"as {label}" in headline and headline.endswith(f" on this host, {where}.")


def test_other_walls_than_a_container_has_are_told(write_run: WriteRun) -> None:
    folder = write_run(platforms=("container", "kvm"))
    assert "the same walls" not in summary.describe_answer(folder)
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["platforms"]["container"]["other_walls"] = "none at all"
    file.write_text(json.dumps(manifest))
    told = summary.describe_answer(folder)
    assert "Not every platform has the same walls around a workload. container: none at all." in told


def test_what_stood_for_the_hosts_network_is_told(write_run: WriteRun) -> None:
    folder = write_run(platforms=("container",))
    assert "host's network" not in summary.describe_answer(folder)
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["host_network"] = ["agent", "side"]
    file.write_text(json.dumps(manifest))
    told = summary.describe_answer(folder)
    assert "By their files agent, side would be in the host's network. The run's own stood for it" in told
    assert "would be in the host" in reports.render(folder).read_text()


def test_what_services_share_is_told_with_its_driver(write_run: WriteRun) -> None:
    folder = write_run(platforms=("container", "kvm"))
    assert "share directories" not in summary.describe_answer(folder)
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["platforms"]["container"]["shares"] = "bind mounts: volume data (app, web)"
    manifest["platforms"]["kvm"]["shares"] = "virtiofs: volume data (app, web)"
    file.write_text(json.dumps(manifest))
    told = summary.describe_answer(folder)
    assert "container: bind mounts: volume data (app, web); vm (KVM): virtiofs: volume data (app, web)." in told


def test_what_counts_in_a_cgroup_s_stead_is_told(write_run: WriteRun) -> None:
    folder = write_run(platforms=("container", "kvm"))
    assert "are a cgroup's" not in summary.describe_answer(folder)
    assert "Given by its hypervisor" not in reports.render(folder).read_text()
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["platforms"]["kvm"]["counted"] = "by Xen. Not in it: domain 0"
    file.write_text(json.dumps(manifest))
    told = summary.describe_answer(folder)
    assert (
        "Not every platform's processor time and memory are a cgroup's. vm (KVM): by Xen. Not in it: domain 0." in told
    )
    assert "Given by its hypervisor" in reports.render(folder).read_text()


def test_memory_that_a_hypervisor_gave_has_a_ruler_of_its_own(write_run: WriteRun) -> None:
    folder, ruler = write_run(platforms=("container", "kvm")), "counted by its hypervisor"
    assert ruler not in reports.render(folder).read_text() + summary.describe_answer(folder)
    for trial in read_run(RunFolder.open(folder)).trials:
        if (trial.platform, trial.measure) == ("kvm", "density"):
            file = folder / "samples" / str(trial.samples)
            file.write_text(file.read_text().replace("cgroup_bytes,pss_bytes", "metered_bytes,nothing", 1))
    first, second = re.findall(r"The first copy of it took .*?(?=\.(?: |\n))", summary.describe_answer(folder))
    assert "vm" not in first and first.endswith(", by cgroup charge")
    assert "as containers" not in second and "MiB as vm (KVM), each " in second and second.endswith(f", {ruler}")
    assert f"Memory of copies: {ruler}" in reports.render(folder).read_text()


def test_an_older_run_has_no_conditions(write_run: WriteRun) -> None:
    data = document.as_json(write_run(noise=None))["conditions"]
    assert data == {"before": [], "hypervisor": None, "trials": []}


def test_an_interval_of_trials_that_resemble_each_other_has_a_mark() -> None:
    seconds = START["ready"]
    wandering = estimate_median_of_series([1 + at / 20 for at in range(24)])
    assert seconds.qualify(wandering) == "1.00–2.15†"
    assert "95 % interval 1.00–2.15† s" in seconds.basis(wandering)
    assert "†" not in seconds.qualify(estimate_median_of_series([1 + at / 20 for at in range(9)]))
