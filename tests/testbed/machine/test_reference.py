"""The reference machine as a whole: what it measures is a function of its inputs, whatever the host does beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import PrerequisiteError
from testbed.machine.reference import COPIES_ENOUGH, NAME, SERVERS_ENOUGH, _relabel, bench, describe_job
from testbed.qemu.accelerator import Verdict
from testbed.request import Options, check_options
from testbed.results import TRIALS, RunFolder, counts_instructions
from testbed.scenario.consolidation import Asked
from testbed.scenario.new import create_scenario

PLATFORMS = ("container", "vm")
# Takes a processor that is left over, and its caches, from the emulator; what other tests make busy is busy enough.
_LOOP = "import hashlib, os\nos.nice(19)\nwhile True: hashlib.sha256(bytes(1 << 20)).digest()"


def run(scenarios: Path, out: Path) -> RunFolder:
    """One trial of the start of the template's web server, on both sides; it shares the host with whatever else is
    measured there."""
    options = Options(
        "tiny",
        PLATFORMS,
        "auto",
        ("start",),
        1,
        quick=True,
        seed=7,
        out=out,
        scenarios=scenarios,
        command=(),
        share=True,
    )
    try:
        finished = bench(options, print)
    except PrerequisiteError as error:
        pytest.skip(f"no reference machine: {error}")
    assert finished.exit_code == 0
    return RunFolder.open(finished.path)


@contextmanager
def busy_host() -> Iterator[None]:
    """Within, something else keeps a processor busy."""
    with subprocess.Popen([sys.executable, "-c", _LOOP]) as loop:
        try:
            yield
        finally:
            loop.kill()


@pytest.mark.parametrize(
    ("scenarios", "asked", "cap"), [(24, None, COPIES_ENOUGH), (24, 12, 12), (2, None, 2), (24, 1, 1)]
)
def test_a_ramp_ends_early_unless_another_cap_is_asked_for(
    scenarios: int, asked: int | None, cap: int, tmp_path: Path
) -> None:
    create_scenario("tiny", tmp_path)
    options = Options("tiny", PLATFORMS, "auto", (), 1, False, 7, tmp_path, tmp_path, (), cap=asked)
    request = check_options(options, print)
    density = replace(request.settings.density, cap=asked or scenarios)
    request = replace(request, settings=replace(request.settings, density=density))
    assert describe_job(request, options).cap == cap


def test_the_machine_may_do_what_it_is_told(tmp_path: Path) -> None:
    """A job has nothing that its own check of options refuses."""
    create_scenario("tiny", tmp_path)
    for measures, packed in ((("start",), Asked()), (("start", "consolidation"), Asked(cap=SERVERS_ENOUGH))):
        options = Options("tiny", PLATFORMS, "auto", measures, 1, False, 7, tmp_path, tmp_path, ())
        job = describe_job(check_options(options, print), options)
        assert job.packed == packed
        check_options(replace(options, measures=job.measures, packed=job.packed, cap=job.cap), print)


@pytest.mark.root
@pytest.mark.vm
@pytest.mark.machine
@pytest.mark.network
def test_two_runs_are_the_same_to_the_last_digit_on_a_quiet_host_and_a_busy_one(tmp_path: Path) -> None:
    scenarios = tmp_path / "scenarios"
    scenarios.mkdir()
    create_scenario("tiny", scenarios)
    quiet = run(scenarios, tmp_path / "quiet")
    with busy_host():
        busy = run(scenarios, tmp_path / "busy")
    assert {trial.platform for trial in quiet.trials()} == set(PLATFORMS)
    assert all(trial.outcome == "ok" for trial in quiet.trials())
    assert quiet.manifest["machine"]["inputs_by_name"] == busy.manifest["machine"]["inputs_by_name"]
    assert (quiet.path / TRIALS).read_bytes() == (busy.path / TRIALS).read_bytes()
    assert quiet.manifest["machine"]["results_by_name"] == busy.manifest["machine"]["results_by_name"]


def test_a_label_does_not_tell_of_emulation_that_containers_have_too() -> None:
    label = Verdict("kvm", "it booted", hardware=True).label("vm", "qemu")
    assert label == "vm (KVM on an emulated host)"
    relabelled = _relabel({"vm": {"label": label, "accelerator": "kvm"}, "container": {}})
    assert relabelled["vm"] == {"label": "vm (KVM)", "accelerator": "kvm"}
    assert relabelled["container"]["label"] == "container"


def test_a_manifest_says_whether_its_seconds_are_instructions() -> None:
    assert counts_instructions({"machine": {"kind": NAME}})
    assert not counts_instructions({"machine": None}) and not counts_instructions({})
