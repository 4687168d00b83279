"""One run of the testbed, from a scenario's name to a finished run folder."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType

from msgspec import Struct, to_builtins

from runtime.images.model import Image
from runtime.lease import CGROUP_ROOT, lease
from testbed.aliases import find_original, is_of_revision
from testbed.bare import time_work
from testbed.duet.players import Players, check_settings, make_part
from testbed.duet.tree import ROOT, Revision, find_revision, make_tree
from testbed.host.noise import Watch
from testbed.host.turn import take_turn
from testbed.images import build_images
from testbed.interruption import Undo
from testbed.manifest import kernel_record, make_manifest
from testbed.measures.consolidation import MEASURE, check_servers
from testbed.measures.context import RunContext
from testbed.measures.course import Course, Perform, Plan, describe_plan, look_ahead
from testbed.measures.pace import Pace, guess_s
from testbed.measures.schedule import Group
from testbed.measures.trials import choose_exit_code, run_trials
from testbed.platforms import registry
from testbed.projects.record import list_projects
from testbed.qemu.connection import check_uri
from testbed.request import Options, Progress, Request, check_options, choose_machines
from testbed.results import RunFolder
from testbed.resume import check_same, open_resumed
from testbed.scenario.model import Settings
from testbed.services.copies import mount_copies
from testbed.stage import Stage, set_stage

# A run's id is in the path of each machine's monitor, <run's folder>/libvirt/lib/qemu/domain-<4 digits>-<20 letters>/
# monitor.sock, and a socket's path has at most 107 bytes.
SCENARIO_LETTERS = 9
# Below it, each player of a run has a lease of its own.
_PLAYERS_LEASE = "player"


class Finished(Struct, frozen=True):
    """A run's folder and the exit code that its outcome means: 0, or 6 when a platform never worked."""

    path: Path
    exit_code: int


def _time_bare(progress: Progress) -> dict[str, float] | None:
    """Return the seconds that pieces of work take as bare processes; None on a host that lacks one of the programs."""
    try:
        return time_work()
    except OSError as error:
        progress(f"bare processes are not timed: {error}")
        return None


def _say_where(
    folder: RunFolder,
    progress: Progress,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
) -> bool:
    """Say of a run that is cut short where its trials are, what makes a report of them, and what goes on with it; for
    ``ExitStack.push``."""
    if kind is not None:
        count = len(folder.trials())
        where = shlex.quote(str(folder.path))
        progress(f"{count} trial{'' if count == 1 else 's'} in {folder.path}; for their report:")
        progress(f"  ./invoke report {where}")
        progress(f"to measure the rest: ./invoke bench --resume {where}")
    return False


def make_run_id(scenario: str) -> str:
    """Return a run id that sorts by time: UTC to the second, the scenario's first letters, and a random end."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{scenario[:SCENARIO_LETTERS]}-{secrets.token_hex(2)}"


# What a run's folder makes of a measurement that is ready: the function that performs what is planned.
Begin = Callable[[RunFolder], Perform]


def bench(options: Options, progress: Progress) -> Finished:
    """Run the scenario and return its run folder, with metrics.csv but without a report.

    Raises UsageError for an unknown name or a run that cannot be resumed, PrerequisiteError for what the host lacks,
    WorkloadError when an image does not build. Whatever happens, nothing that was started is left; the trials that
    ended are in the folder.
    """
    asked = options
    resumed = None if options.resume is None else open_resumed(options)
    options = options if resumed is None else resumed.options
    revision = find_revision(options.against) if options.against else None
    request = check_options(options, progress, revision.name_platforms if revision else lambda names: ())
    if MEASURE in request.measures:
        check_servers(request.settings, request.scenario)
    if options.connect:
        check_uri(options.connect)
    own = tuple(dict.fromkeys(map(find_original, request.platforms)))
    machines = choose_machines(options, own, progress)
    registry.require_programs(own)
    run_id = make_run_id(request.scenario.name) if resumed is None else resumed.run_id
    with Undo() as undo:
        undo.enter_context(take_turn(run_id, wait=options.wait, progress=progress, share=options.share))
        if resumed is not None:
            resumed = open_resumed(asked)  # somebody else may have gone on with it while we waited
            resumed.clean()
        for project in list_projects():
            progress(f"{project.name} is up on this host and disturbs the run: ./invoke down {project.name} ends it")
        scratch = undo.enter_context(lease(run_id))
        images = build_images(request.scenario, progress, options.base, request.measures)
        manifest = make_manifest(run_id, options, request, images)
        manifest["bare"] = _time_bare(progress)  # while this process has no threads yet, and nothing else runs
        manifest["guest_kernel"] = kernel_record(options.guest_kernel, machines.kernel)
        if options.duet or revision is not None:
            records, begin = _prepare_players(undo, scratch, request, options, revision, progress)
            manifest["duet"] = options.duet
            manifest["against"] = revision and to_builtins(revision)
        else:
            stage = set_stage(undo, run_id, scratch, request.platforms, request, images, machines, options)
            records = stage.records
            begin = partial(_begin_alone, undo, stage, run_id, request, images, options, progress)
        manifest["platforms"] = records
        if resumed is None:
            folder = RunFolder.create(options.out, run_id, manifest)
        else:
            folder = resumed.folder
            check_same(folder.manifest, manifest)
            folder.begin_session(str(manifest["command"]))
        progress(f"run folder: {folder.path}")
        undo.push(partial(_say_where, folder, progress))
        undo.push(folder.conclude)
        labels = {name: str(record["label"]) for name, record in records.items()}
        _measure(request, options, folder, begin(folder), labels, progress, resumed.spent_s if resumed else 0.0)
    return Finished(folder.path, choose_exit_code(folder.trials()))


def _begin_alone(
    undo: ExitStack,
    stage: Stage,
    run_id: str,
    request: Request,
    images: Mapping[str, Image],
    options: Options,
    progress: Progress,
    folder: RunFolder,
) -> Perform:
    """Enter the lab and return what performs one trial after the other in this process."""
    undo.enter_context(stage.lab)
    watch = Watch(f"{CGROUP_ROOT}/{run_id}")
    context = RunContext(
        request.scenario,
        request.settings,
        images,
        stage.platforms,
        stage.lab,
        folder,
        options.seed,
        progress,
        watch,
        mounts=mount_copies(undo, run_id, request.scenario, images),
    )
    return lambda unit: run_trials(context, unit[0])


def _prepare_players(
    undo: ExitStack,
    scratch: Path,
    request: Request,
    options: Options,
    revision: Revision | None,
    progress: Progress,
) -> tuple[Mapping[str, Mapping[str, object]], Begin]:
    """Start a process for each platform; return what the manifest records of these, and how to begin with them."""
    other = None
    if revision is not None:
        progress(f"making a second tree at {revision.commit[:12]}")
        other = make_tree(revision, scratch / "tree")
    parts = {}
    for name in request.platforms:
        tree = other if other is not None and is_of_revision(name) else ROOT
        parts[name] = tree, make_part(name, make_run_id(_PLAYERS_LEASE), options, request, tree)
    players = undo.enter_context(Players(parts, progress))
    for name, ready in players.ready.items():
        check_settings(name, request.settings, ready)

    def begin(folder: RunFolder) -> Perform:
        players.begin(folder)
        return players.perform

    return players.records, begin


def _measure(
    request: Request,
    options: Options,
    folder: RunFolder,
    perform: Perform,
    labels: Mapping[str, str],
    progress: Progress,
    spent_s: float,
) -> None:
    """Take the run's course, and note in its manifest how long that took and why it ended."""
    plan = Plan(request.groups, request.measures, request.levels, options.seed, request.design)
    pace = Pace(partial(_guess_s, request.settings))
    for sentence in describe_plan(plan, look_ahead(plan, folder.trials()), pace):
        progress(sentence)
    course = Course(plan, folder, perform, pace, labels, progress, spent_s)
    try:
        course.run()
    finally:
        folder.note_session(measured_s=round(course.spent_s - spent_s, 3), unfinished_block=course.unfinished)
        folder.manifest["ended"] = dict(course.ended)


def _guess_s(settings: Settings, measure: str, group: Group) -> float:
    """Return what a measure of a group takes on an ordinary host: as long as the slowest of it."""
    return max(guess_s(measure, settings, find_original(name) in registry.MACHINES) for name in group)
