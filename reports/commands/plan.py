"""The task that plans a host by a run's footprints: plan."""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Context, task

from reports.commands.exits import reporting
from reports.commands.fleet import read_source
from reports.commands.options import RESULTS, ROOT, parse_fraction, parse_number
from runtime.errors import UsageError
from testbed.progress import show_progress

if TYPE_CHECKING:
    from reports.fleets.data import Step
    from testbed.analysis import Run
    from testbed.fleet.capacity import Copies
    from testbed.fleet.demands import Host


@task(
    help={
        "host": "the host: processors and memory, such as 64c,512G (with --check: this host)",
        "from": "the run whose footprints are used: its folder, or its id in results/ (default: the newest there)",
        "scenario": "the scenario that is planned; the run must be one of it",
        "rate": "requests/s to each copy on average (default: what the run's density offered)",
        "peak-to-mean": "the busiest hour of a copy's day, times its mean",
        "headroom": "so many % of the host stay free",
        "overload": "chance in % that copies want more CPU than there is",
        "restart-within": "seconds in which all copies must be up after the host is",
        "bridges": "so many bridges of 1,023 ports each",
        "platforms": "comma-separated: these of the run only (default: all that have footprints)",
        "ruler": "memory by memory_cgroup, memory_pss or memory_available",
        "check": "measure here whether the service level holds with half of the planned copies and with all of them",
        "json": "print as JSON on standard output",
    }
)
@reporting
def plan(
    context: Context,
    host: str = "",
    from_: str = "",
    scenario: str = "",
    rate: str = "",
    peak_to_mean: str = "2",
    headroom: str = "10",
    overload: str = "1",
    restart_within: str = "300",
    bridges: str = "1",
    platforms: str = "",
    ruler: str = "memory_cgroup",
    check: bool = False,
    json: bool = False,
) -> int:
    """Say how many copies of a measured application a host holds, as containers and as machines, and what binds."""
    from reports.fleets import data, terminal
    from testbed.fleet.capacity import CopiesQuestion, find_copies
    from testbed.fleet.demands import Fit
    from testbed.fleet.distributions import find_variation
    from testbed.fleet.parsing import parse_percent, parse_size

    if not host and not check:
        raise UsageError("plan: for which host?", "./invoke plan --host 64c,512G; all options: ./invoke plan --help")
    if check and rate:
        raise UsageError(
            f"--check with --rate {rate}: copies are offered what the scenario's density says", "leave it out"
        )
    run, source = read_source(from_, ruler, platforms)
    if scenario and Path(scenario).name != source.scenario:
        raise UsageError(
            f"--scenario {scenario}: {source.run} is a run of {source.scenario or 'none'}",
            f"give a run of it, or measure it: ./invoke bench --scenario {scenario} --measures density,utilisation",
        )
    size = parse_size("--host", host) if host else _find_this_host()
    if check:
        _require_here(size, run)
    wanted = CopiesQuestion(
        size,
        Fit(parse_percent("--headroom", headroom), parse_percent("--overload", overload)),
        parse_fraction("--rate", rate) if rate else _find_rate(run),
        find_variation(parse_fraction("--peak-to-mean", peak_to_mean)),
        parse_fraction("--restart-within", restart_within),
        parse_number("--bridges", bridges),
    )
    copies = [find_copies(wanted, one, _find_own_host(run)) for one in source.footprints]
    steps = tuple(_measure_steps(scenario or source.scenario, copies)) if check else ()
    if json:
        print(json_module.dumps(data.copies_as_json(source, copies, steps), indent=2, allow_nan=False))
    else:
        terminal.print_copies(source, copies, steps)
    return 0


def _find_rate(run: Run) -> float:
    """Return the requests per second that each copy of the run's ramps had."""
    from testbed.analysis import get_mapping

    rate = get_mapping(get_mapping(run.manifest.get("settings")).get("density")).get("rate_per_s")
    if not isinstance(rate, int | float) or not 0 < rate < 1e9:
        raise UsageError(f"{run.folder.run_id} does not say what its density ramps offered", "give --rate")
    return float(rate)


def _find_own_host(run: Run) -> Host | None:
    """Return the host that the run was measured on; None where its manifest does not say."""
    from testbed.analysis import get_mapping
    from testbed.fleet.demands import Host

    facts = get_mapping(run.manifest.get("host"))
    cores = get_mapping(facts.get("cpu")).get("processors")
    memory = get_mapping(facts.get("memory")).get("total_bytes")
    if not (isinstance(cores, int | float) and isinstance(memory, int | float) and cores > 0 and memory > 0):
        return None
    return Host(float(cores), float(memory))


def _find_this_host() -> Host:
    """Return the processors and the memory of this host."""
    from runtime.kernel_files import parse_meminfo
    from testbed.fleet.demands import Host

    return Host(float(os.cpu_count() or 1), float(parse_meminfo(Path("/proc/meminfo").read_text())["MemTotal"]))


def _require_here(size: Host, run: Run) -> None:
    """Raise UsageError for a host that is larger than this one, and for a run whose seconds are instructions."""
    here = _find_this_host()
    if size.cores > here.cores or size.memory_bytes > here.memory_bytes:
        raise UsageError(
            f"--check on a host of {here.cores:g} processors and {here.memory_bytes / 2**30:.4g} GiB:"
            f" it is smaller than {size.cores:g} and {size.memory_bytes / 2**30:.4g} GiB",
            "leave out --host, which plans this host, or check where such a host is",
        )
    if run.instruction_time:
        raise UsageError(f"--check of {run.folder.run_id}: its seconds are instructions", "give a run of a host")


def _measure_steps(scenario: str, planned: Sequence[Copies]) -> Iterator[Step]:
    """Measure each platform's service level with half of the planned copies and with all of them."""
    from reports.fleets.data import Step
    from reports.fleets.wording import count_to_measure
    from testbed.aliases import find_original
    from testbed.analysis import read_run
    from testbed.bench import bench
    from testbed.ramps import select_ramps, summarise_steps
    from testbed.request import NOT_AGAIN, Options
    from testbed.results import RunFolder

    for one in planned:
        counts, platform = count_to_measure(one), find_original(one.platform)
        options = Options(
            scenario=scenario,
            platforms=(platform,),
            accelerator="auto",
            measures=("density",),
            trials=1,
            quick=False,
            seed=1,
            out=RESULTS,
            scenarios=ROOT / "scenarios",
            command=tuple(sys.argv),
            wait=True,
            again=NOT_AGAIN,
            steps=counts,
        )
        with show_progress() as progress:
            finished = bench(options, progress)
        ramps = select_ramps(read_run(RunFolder.open(finished.path)), platform)
        seen = {step.applications: step.verdicts for step in summarise_steps(ramps, counts)}
        ended = ramps[0].reason if ramps else "no ramp succeeded"
        for count in counts:
            verdict = next(iter(seen.get(count, ())), "")
            yield Step(one.label, count, verdict, "" if verdict in ("held", "undecided") else ended, str(finished.path))
