"""The tasks of the command line: parse, call the testbed, print. `./invoke --list` shows them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Collection, Context, task

from reports.commands import builds, bundles, images, lists, projects, roots, rungs, runs, testing, unions
from reports.commands import fleet as fleets
from reports.commands import ladder as ladders
from reports.commands import plan as plans
from reports.commands.exits import reporting
from reports.commands.front import QuietProgram
from reports.commands.options import ROOT
from runtime import __version__
from runtime.errors import PrerequisiteError, TestbedError, UsageError
from testbed.progress import print_progress, show_progress

if TYPE_CHECKING:
    from testbed.runs.compare import Comparison


def _scenario(task_name: str, scenario: str) -> str:
    """The scenario that is asked for. Raises UsageError without one, with those that there are."""
    if not scenario:
        from testbed.scenario.model import list_scenarios

        listed = ", ".join(list_scenarios(ROOT / "scenarios"))
        raise UsageError(
            f"{task_name}: which scenario? {listed}, or the path of one",
            f"./invoke {task_name} NAME; all options: ./invoke {task_name} --help",
        )
    return scenario


@task(
    help={
        "scenario": "name of a folder below scenarios/, or the path of one, or of any compose file",
        "file": "a compose file to merge over the scenario's, as -f of Compose does; may be given again",
        "profile": "a profile whose services are started, too; may be given again",
        "env-file": "a file of variables in place of .env beside the compose file; may be given again",
        "with": "a file with x-testbed: how to measure a scenario that does not say so itself",
        "platforms": "comma-separated: container, vm, a peer (crun, podman...), peers, all (a wrong name lists them)",
        "accel": "what runs virtual machines: kvm, tcg, tcg-single, or auto for the best that works",
        "base": "release that images are built on: bookworm, trixie or noble (default: the host's own)",
        "machine": "where to measure: native (this host) or reference (deterministic, in instruction time)",
        "guest-kernel": "a vmlinux or bzImage of your own, drivers built in, for machines that are given a kernel",
        "cap": "a ramp ends with so many applications (default: the scenario's; in the reference machine: 8 or 20)",
        "steps": "of density: look only at so many applications, such as 12,24, and end there",
        "emulator-cpus": "processors for QEMU's own threads, on top of the services' limits (default: 0)",
        "measures": "comma-separated: start,density,utilisation,work,neighbours,consolidation (default: its own)",
        "fractions": "of consolidation: percent of a machine that each server uses alone (default: 5,8,12; quick: 8)",
        "shape": "of consolidation: constant, diurnal (peak over mean 2.5, phases spread) or trace (the scenario's)",
        "packing": "of consolidation: used (overcommitted, until the service level breaks) or declared (sum of limits)",
        "zombies": "of consolidation: percent of servers without load in one more mix, 0 for none (default: 30)",
        "trials": "exactly so many trials of each measure on each platform (in the reference machine: default 1);"
        " otherwise at least 6, after one as a warm-up",
        "until": "measure until each median is known to so much of itself, at most 40 trials (default: 5%)",
        "budget": "no block of trials begins that would not end in this time: 90s, 30m, 2h (default: 30m for what goes"
        " beyond the least number)",
        "resume": "go on with a run that was interrupted: its folder, or its id in results/",
        "aa": "measure this platform once more, as it is, or the first, or none: the difference is the noise floor"
        " (default: first, unless --quick, --trials, --duet or --against)",
        "duet": "two platforms at the same time, compared in pairs; or one with --aa or --against",
        "against": "measure each platform with the code of another revision, too, block by block",
        "quick": "the scenario's quick settings: few trials, at most 3 minutes, orders of magnitude only",
        "seed": "decides the order of trials and the arrival of requests",
        "connect": "libvirt's URI for virtual machines: qemu:///system, qemu+ssh://... (default: no daemon)",
        "wait": "wait while another run is measured on this host, instead of being refused",
        "share": "measure beside other runs on this host, which disturb each other: to see that something works",
        "out": "where run folders are made (default: results/)",
        "json": "print the answer as JSON on standard output",
        "baseline": "compare the run with this one: a run (folder or id), a folder of runs, or several with commas",
        "gate": "exit with 3 when a figure got worse than the baseline's, with 4 when that cannot be told",
        "limit": "by how much a figure may get worse: 5% (default), or 5%,latency_p99=20%; instruction time: 0",
        "metrics": "comma-separated: judge these only (a wrong name lists all)",
        "html": "also write a page of the comparison to this file",
        "junit": "also write the comparison as JUnit XML to this file",
    },
    iterable=["file", "profile", "env_file"],
)
@reporting
def bench(
    context: Context,
    scenario: str = "",
    platforms: str = "container,vm,vm-containers",
    base: str = "",
    measures: str = "",
    fractions: str = "",
    shape: str = "",
    packing: str = "",
    zombies: str = "",
    accel: str = "auto",
    machine: str = "native",
    guest_kernel: str = "",
    emulator_cpus: str = "",
    cap: str = "",
    steps: str = "",
    trials: str = "",
    until: str = "",
    budget: str = "",
    resume: str = "",
    aa: str = "",
    duet: bool = False,
    against: str = "",
    quick: bool = False,
    seed: str = "1",
    connect: str = "",
    wait: bool = False,
    share: bool = False,
    out: str = "",
    json: bool = False,
    baseline: str = "",
    gate: bool = False,
    limit: str = "",
    metrics: str = "",
    html: str = "",
    junit: str = "",
    file: Sequence[str] | None = None,
    profile: Sequence[str] | None = None,
    env_file: Sequence[str] | None = None,
    with_: str = "",
) -> int:
    """Measure a scenario on every platform, then print the answer and the report's path."""
    given = dict(locals())
    from reports.commands.gate import Planned, Wishes, compare_with, conclude, read_baseline
    from reports.commands.request import read_options
    from testbed.machine.choice import choose_machine

    if resume:
        _check_resumed(given)
    options = read_options({**given, "scenario": "" if resume else _scenario("bench", scenario)}, tuple(sys.argv))
    wishes = Wishes(gate, html, junit, json=json)
    planned = None if resume else Planned(scenario, ROOT / "scenarios", quick, machine, options.compose)
    earlier = read_baseline(baseline, limit, metrics, wishes, planned)
    with show_progress() as progress:
        run = choose_machine(machine)(options, progress)
    try:
        comparison = compare_with(earlier, run.path) if earlier else None
    except TestbedError:  # the answer is worth having all the same
        _conclude(run.path, json)
        raise
    code = _conclude(run.path, json, comparison)
    return run.exit_code or code or (conclude(comparison, wishes, print_json=False) if comparison else 0)


# Of a run that is gone on with, all else is what it was.
_BESIDE_RESUME = (
    "context",
    "resume",
    "budget",
    "wait",
    "json",
    "baseline",
    "gate",
    "limit",
    "metrics",
    "html",
    "junit",
)


def _check_resumed(given: Mapping[str, object]) -> None:
    """Raise UsageError for an option of ``bench`` that stands beside --resume though the run itself says it."""
    defaults = inspect.signature(bench.body).parameters
    others = [name for name in given if name not in _BESIDE_RESUME and given[name] not in ([], defaults[name].default)]
    if others:
        named = ", ".join(f"--{name.strip('_').replace('_', '-')}" for name in others)
        raise UsageError(f"--resume with {named}: a run goes on as it began", "leave it out; --budget may be new")


def _conclude(run: Path, as_json: bool, comparison: Comparison | None = None) -> int:
    """Render the report and print the answer; the JSON is all that goes to standard output when asked for, with the
    comparison if there is one."""
    import json

    import reports
    from reports import document, step_summary, summary
    from reports.commands.gate import append_step_summary
    from reports.runs.data import as_json as comparison_as_json

    try:
        report = reports.render(run)
    except PrerequisiteError:  # a run of somebody else's: it can be read all the same
        summary.print_answer(run)
        raise
    append_step_summary(lambda: step_summary.describe_run(run))
    if as_json:
        compared = {"comparison": comparison_as_json(comparison)} if comparison else {}
        print(json.dumps({**document.as_json(run), **compared}, indent=2))
    else:
        summary.print_answer(run)
        print(f"report: {report}")
    return 0


@task(help={"run": "a run folder, or the id of a run in results/ (default: the newest there)"})
@reporting
def report(context: Context, run: str = "") -> int:
    """Render a run's report again, byte for byte the same, and print its answer."""
    from testbed.run_folders import locate

    return _conclude(locate(run, ROOT / "results"), False)


@task(
    help={
        "json": "print as JSON",
        "connect": "also try this libvirt URI, as bench --connect would",
        "guest-kernel": "boot this kernel to find out, as bench --guest-kernel would",
    }
)
@reporting
def doctor(context: Context, json: bool = False, connect: str = "", guest_kernel: str = "") -> int:
    """Say what this host can do, what it cannot, and how to fix that."""
    from testbed.doctor import print_checks, run_checks

    return print_checks(run_checks(connect, guest_kernel), as_json=json)


@task(help={"check": "only list; exit 1 when there is something", "store": "also remove images, kernels and disks"})
@reporting
def clean(context: Context, check: bool = False, store: bool = False) -> int:
    """Remove everything that dead runs left on this host, and only that."""
    from testbed import leftovers
    from testbed.projects.record import list_projects

    remains = leftovers.find()
    for project in list_projects():
        if project.alive:
            print_progress(f"{project.name} is up and stays: ./invoke down {project.name} ends it")
    for leftover in remains:
        print(leftover)
    if check:
        return 1 if remains else 0
    leftovers.remove(remains)
    print(f"removed {len(remains)} leftovers" if remains else "nothing was left behind")
    for pid in leftovers.end_planners():
        print(f"ended the planner, process {pid}")
    if store:
        print(f"removed {leftovers.remove_store()}")
    return 0


@task(
    help={
        "scenario": "name of a folder below scenarios/, or a path to one",
        "service": "the service to explain (default: the first)",
        "platform": "container, vm or another kind of vm",
    }
)
@reporting
def explain(context: Context, scenario: str = "", service: str = "", platform: str = "container") -> int:
    """Print the plan that starts a service: each step with its system call and arguments."""
    from testbed.explain import explain_service

    print(explain_service(ROOT / "scenarios", _scenario("explain", scenario), service, platform, print_progress))
    return 0


@task(help={"name": "the scenario's name, and that of its folder below scenarios/"})
@reporting
def new(context: Context, name: str) -> int:
    """Write a new scenario, small and complete, to be changed into one's own."""
    from testbed.scenario.new import create_scenario

    for path in create_scenario(name, ROOT / "scenarios"):
        print(path)
    print_progress(f"measure it: ./invoke bench --scenario {name} --quick")
    return 0


@task(positional=["shell"], help={"shell": "bash, zsh or fish"})
@reporting
def completion(context: Context, shell: str) -> int:
    """Print a script that completes tasks, options and their values: eval "$(./invoke completion bash)"."""
    from reports.commands.completion import write_script

    print(write_script(shell, namespace.tasks), end="")
    return 0


# The tasks so far stand by themselves; those of a group come after it.
namespace = Collection.from_module(sys.modules[__name__])
for more in (bundles, fleets, plans, ladders, lists, projects, rungs, runs, testing):
    for one in Collection.from_module(more).tasks.values():
        namespace.add_task(one)

group = Collection.from_module(images, name="images")
for one in (builds.build, builds.shell):
    group.add_task(one)
namespace.add_collection(group)
namespace.add_collection(Collection.from_module(roots, name="roots"))
namespace.add_collection(Collection.from_module(unions, name="union"))

# `testbed` in .venv/bin: the same tasks, without the set-up that ./invoke makes before.
program = QuietProgram(version=__version__, namespace=namespace, name="testbed", binary="testbed")
