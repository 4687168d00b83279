"""One run of the testbed, from a scenario's name to a finished run folder."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError
from runtime.images.model import Image
from runtime.lease import lease
from testbed import host, measures, platforms
from testbed.images import build_images
from testbed.lab import Lab
from testbed.measures.context import RunContext
from testbed.measures.schedule import schedule
from testbed.platforms.accelerator import known_accelerator
from testbed.platforms.connection import checked_uri
from testbed.platforms.protocol import Platform
from testbed.results import RunFolder
from testbed.scenario import Scenario, Settings
from testbed.scenario import load as load_scenario

Progress = Callable[[str], None]


class Options(Struct, frozen=True):
    """What was asked for. ``trials`` 0 means the scenario's own number, ``connect`` "" libvirt in our own process."""

    scenario: str
    platforms: tuple[str, ...]
    accelerator: str
    measures: tuple[str, ...]
    trials: int
    quick: bool
    seed: int
    out: Path
    scenarios: Path
    command: tuple[str, ...]
    connect: str = ""


class Finished(Struct, frozen=True):
    """A run's folder and the exit code that its outcome means: 0, or 6 when a platform never worked."""

    path: Path
    exit_code: int


def _image_record(image: Image) -> dict[str, object]:
    return {"reference": image.reference, "id": image.id, "layers": [layer.diff_id for layer in image.layers]}


def filters(scenario: Scenario) -> dict[str, str]:
    """Which filter of system calls stands before each service, on every platform."""
    return {service.name: "the default profile" if service.seccomp else "none" for service in scenario.services}


def _manifest(
    run_id: str, options: Options, settings: Settings, scenario: Scenario, images: Mapping[str, Image]
) -> dict[str, object]:
    """What the run is, as the run folder's manifest records it; platforms are added once they are prepared."""
    return {
        "run": run_id,
        "scenario": scenario.name,
        "quick": options.quick,
        "accelerator_asked_for": options.accelerator,
        "seed": options.seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(options.command),
        "measures": list(options.measures),
        "settings": to_builtins(settings),
        "images": {name: _image_record(image) for name, image in images.items()},
        "seccomp": filters(scenario),
        "versions": host.versions(),
        "host": host.facts(),
        "noise": list(host.noise()),
    }


def _platform_record(platform: Platform) -> dict[str, object]:
    return {"label": platform.label, "emulated": platform.emulated, **platform.facts()}


def new_run_id(scenario: str) -> str:
    """A run id that sorts by time: UTC to the second, the scenario, and a random end."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{scenario}-{secrets.token_hex(2)}"


def chosen_settings(scenario: Scenario, options: Options) -> Settings:
    """The scenario's settings, full or quick, with the number of trials that was asked for."""
    settings = scenario.chosen(options.quick)
    if options.trials < 0:
        raise UsageError(f"--trials {options.trials}: a number of trials is at least 1")
    return replace(settings, trials=options.trials) if options.trials else settings


def bench(options: Options, progress: Progress) -> Finished:
    """Run the scenario and return its run folder, with metrics.csv but without a report.

    Raises UsageError for an unknown name, PrerequisiteError for what the host lacks, WorkloadError when an image
    does not build. Whatever happens, nothing that was started is left; the trials that ended are in the folder.
    """
    scenario = load_scenario(options.scenario, options.scenarios)
    settings = chosen_settings(scenario, options)
    names = platforms.known(options.platforms)
    wanted = measures.known(options.measures)
    known_accelerator(options.accelerator)
    connect = checked_uri(options.connect) if options.connect else ""
    if os.geteuid() != 0:
        raise PrerequisiteError("bench needs root: namespaces, cgroups and QEMU", "run it with sudo")
    run_id = new_run_id(scenario.name)
    with ExitStack() as undo:
        scratch = undo.enter_context(lease(run_id))
        images = build_images(scenario, progress)
        lab = Lab()
        chosen: dict[str, Platform] = {}
        for name in names:
            chosen[name] = platforms.create(name, run_id, scratch, lab, options.accelerator, connect)
            undo.callback(chosen[name].close)
            chosen[name].prepare(scenario, images)
        manifest = _manifest(run_id, options, settings, scenario, images)
        manifest["platforms"] = {name: _platform_record(platform) for name, platform in chosen.items()}
        folder = RunFolder.create(options.out, run_id, manifest)
        undo.push(folder.conclude)
        undo.enter_context(lab)
        context = RunContext(scenario, settings, images, chosen, lab, folder, options.seed, progress)
        for planned in schedule(names, wanted, settings.trials, settings.load.rates_per_s, options.seed):
            measures.run(context, planned)
    return Finished(folder.path, measures.exit_code(folder.trials()))
