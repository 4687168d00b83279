"""A run in the reference machine: its inputs, the machine emulated, and the run folder that comes back."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from runtime.errors import UsageError, WorkloadError
from runtime.lease import lease
from testbed.aliases import find_original
from testbed.bench import Finished, make_run_id
from testbed.host.facts import read_facts, read_source
from testbed.host.turn import take_turn
from testbed.images import build_images
from testbed.interruption import Undo
from testbed.machine.emulation import Emulated, emulate, read_tail
from testbed.machine.handover import unpack
from testbed.machine.inputs import (
    Inputs,
    combined_digest,
    file_digest,
    inputs,
    read_qemu_version,
    require_room,
)
from testbed.machine.job import Job
from testbed.machine.systems import list_absent, require_platforms
from testbed.measures.trials import choose_exit_code
from testbed.qemu.accelerator import ON_EMULATED_HOST
from testbed.request import Options, Request, check_options
from testbed.results import REFERENCE, TRIALS, RunFolder
from testbed.scenario.model import NOTHING_ASKED

NAME = REFERENCE
# Nothing varies there, so a second trial would tell what the first has told; another place in the order of trials, and
# so another state of caches in memory, is what more of them show.
TRIALS_ENOUGH = 1
# To emulate one more copy takes minutes of processor time, and what each adds is known exactly after a few.
COPIES_ENOUGH = 8
# Lightly used servers fill its one processor with these.
SERVERS_ENOUGH = 20
_CONSOLE = "machine.log"


def bench(options: Options, progress: Callable[[str], None]) -> Finished:
    """Run the scenario in the reference machine; parameters, result and errors are ``testbed.bench.bench``'s.

    Raises UsageError also for what the machine has not, PrerequisiteError without room for it, and WorkloadError with
    its console's last lines when it does not power off by itself.
    """
    refuse_what_varies(options)
    options = replace(options, trials=TRIALS_ENOUGH if options.trials is None else options.trials)
    request = check_options(options, progress, absent=list_absent(options.platforms))
    if options.compose != NOTHING_ASKED or not request.scenario.is_plain:
        raise UsageError(
            f"{request.scenario.name}: the reference machine gets the scenario's folder, which does not say all of it",
            "have all in its compose.yaml, with x-testbed, without variables, --file, --profile and --with",
        )
    require_platforms(list_originals(request))
    if options.connect:
        raise UsageError(f"--connect {options.connect}: the reference machine has libvirt in its own process")
    require_room()
    run_id = make_run_id(request.scenario.name)
    with Undo() as undo:
        undo.enter_context(take_turn(run_id, wait=options.wait, progress=progress, share=options.share))
        scratch = undo.enter_context(lease(run_id))
        images = build_images(request.scenario, progress, options.base, request.measures)
        kernel = Path(options.guest_kernel) if options.guest_kernel else None
        job = describe_job(request, options)
        made = undo.enter_context(inputs(job, request.scenario.folder, images, run_id, progress, kernel))
        progress(f"reference machine: {made.digest[:16]}; its time comes first in each line")
        emulated = emulate(made, run_id, scratch / "console", scratch / "results", progress)
        return _take_over(options, run_id, job, scratch, made, emulated)


def refuse_what_varies(options: Options) -> None:
    """Raise UsageError for an option that has no meaning where nothing varies and one processor does everything."""
    given = {
        "--resume": options.resume is not None,
        "--until": options.until is not None,
        "--budget": options.budget_s is not None,
        "--duet": options.duet,
        "--against": bool(options.against),
    }
    hints = {
        "--duet": "its one processor would run them by turns",
        "--against": "run it at each revision, and compare the runs: any difference is one",
    }
    for option in (name for name, is_given in given.items() if is_given):
        raise UsageError(
            f"{option}: not in the reference machine",
            hints.get(option, "nothing varies there: --trials N says how much is measured, and the same comes again"),
        )


def list_originals(request: Request) -> tuple[str, ...]:
    """Return the platforms of a request, each once and by its own name."""
    return tuple(dict.fromkeys(map(find_original, request.platforms)))


def describe_job(request: Request, options: Options) -> Job:
    """Return what the machine is to do for these options."""
    servers = options.cap or min(request.settings.consolidation.cap, SERVERS_ENOUGH)
    return Job(
        scenario=request.scenario.name,
        platforms=list_originals(request),
        measures=request.measures,
        trials=options.trials,
        quick=options.quick,
        seed=options.seed,
        cap=None if options.steps else options.cap or min(request.settings.density.cap, COPIES_ENOUGH),
        steps=options.steps,
        again=options.again,
        emulator_cpus=options.emulator_cpus,
        guest_kernel=bool(options.guest_kernel),
        packed=replace(options.packed, cap=servers) if "consolidation" in request.measures else options.packed,
    )


def results_digests(run: Path) -> dict[str, str]:
    """Return the sha256 of each file with results in a run folder: its trials and their time series."""
    paths = [run / TRIALS, *sorted((run / "samples").glob("*"))]
    return {str(path.relative_to(run)): file_digest(path) for path in paths if path.is_file()}


def hand_over(scratch: Path) -> Path:
    """Return the folder of the run that the machine handed over, unpacked below ``scratch``.

    Raises what ended its experiment, if that did not end well, and WorkloadError when it handed over nothing.
    """
    taken = scratch / "taken"
    with (scratch / "results").open("rb") as source:
        outcome = unpack(source, taken)
    if outcome is None:
        said = read_tail(scratch / "console")
        raise WorkloadError(
            "the reference machine powered off (exit code 0) without results", f"its console's last lines:\n{said}"
        )
    if (error := outcome.error()) is not None:
        raise error
    return taken / "run"


def _take_over(options: Options, run_id: str, job: Job, scratch: Path, made: Inputs, emulated: Emulated) -> Finished:
    """Make the run folder of what the machine handed over. Raises as ``hand_over``."""
    inside = RunFolder.open(hand_over(scratch))
    folder = RunFolder.create(options.out, run_id, _manifest(options, run_id, job, inside, made, emulated))
    for name in (TRIALS, "samples", "logs"):
        source = inside.path / name
        if source.is_dir():
            shutil.copytree(source, folder.path / name, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copyfile(source, folder.path / name)
    shutil.copyfile(scratch / "console", folder.path / "logs" / _CONSOLE)
    folder.finish(inside.manifest["status"])
    return Finished(folder.path, choose_exit_code(folder.trials()))


def _relabel(platforms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the platforms without the host's emulation in their labels: here containers run on the same."""
    return {
        name: {**one, "label": str(one.get("label", name)).replace(ON_EMULATED_HOST, "")}
        for name, one in platforms.items()
    }


def _manifest(
    options: Options, run_id: str, job: Job, inside: RunFolder, made: Inputs, emulated: Emulated
) -> Mapping[str, Any]:
    """Return the manifest that the machine wrote, with what is known outside only."""
    unknown_inside = {"format", "finished", "status"}
    manifest = {name: value for name, value in inside.manifest.items() if name not in unknown_inside}
    return {
        **manifest,
        "platforms": _relabel(manifest.get("platforms", {})),
        "run": run_id,
        "started": (datetime.now(UTC) - timedelta(seconds=emulated.real_s)).isoformat(timespec="seconds"),
        "command": shlex.join(options.command),
        "source": read_source(),
        "machine": describe_machine(
            job,
            {"scenario": options.scenario, "base": options.base, "guest_kernel": options.guest_kernel},
            made,
            results_digests(inside.path),
            emulated,
        ),
    }


def describe_machine(
    job: Job, made_of: Mapping[str, str], made: Inputs, results: Mapping[str, str], emulated: Emulated
) -> dict[str, Any]:
    """Return what a run's record says of the machine: what it was ``made_of``, as its user named it, the sha256 of each
    of its inputs and ``results`` by name, and what the emulation cost this host."""
    return {
        "kind": NAME,
        "qemu": read_qemu_version(made.emulator),
        "job": to_builtins(job),
        "made_of": dict(made_of),
        "inputs": made.digest,
        "inputs_by_name": dict(made.digests),
        "results": combined_digest(results),
        "results_by_name": dict(results),
        "emulated": to_builtins(emulated),
        "host": read_facts(),
    }
