"""One run of the testbed, from a scenario's name to a finished run folder."""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType

from msgspec import Struct, to_builtins
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError
from runtime.home import store_root
from runtime.images.base import read_host
from runtime.images.model import Image
from runtime.images.releases import choose_release
from runtime.lease import CGROUP_ROOT, lease
from testbed.bare import time_work
from testbed.host import kvm
from testbed.host.facts import read_facts, read_source, read_versions
from testbed.host.noise import Watch
from testbed.host.quiet import watch_noise
from testbed.host.turn import take_turn
from testbed.images import build_images, find_base
from testbed.lab import Lab
from testbed.measures.context import RunContext
from testbed.measures.pace import Pace
from testbed.measures.schedule import plan_trials
from testbed.measures.trials import check_measures, choose_exit_code, run_trials
from testbed.measures.work import require_work
from testbed.platforms import registry
from testbed.platforms.own_kernel import explained, require_options, try_kernel
from testbed.platforms.protocol import Platform
from testbed.platforms.registry import Machines
from testbed.qemu.accelerator import check_accelerator
from testbed.qemu.connection import check_uri
from testbed.qemu.variants import VARIANTS
from testbed.results import RunFolder, check_base
from testbed.scenario.model import Scenario, Settings
from testbed.scenario.model import load as load_scenario
from testbed.temperature import find_temperature, list_missing_cold
from vm_images.kernel import GuestKernel
from vm_images.own_kernel import read_own_kernel

Progress = Callable[[str], None]

# A run's id is in the path of each machine's monitor, <run's folder>/libvirt/lib/qemu/domain-<4 digits>-<20 letters>/
# monitor.sock, and a socket's path has at most 107 bytes.
SCENARIO_LETTERS = 9


class Options(Struct, frozen=True):
    """What was asked for. ``trials`` None means the scenario's own number, and no ``measures`` the scenario's own;
    ``connect`` "" means libvirt in our own process;
    ``wait``: for the end of another run on this host, instead of being refused; ``base``: the release that images are
    built on, "" the host's. ``guest_kernel`` is the file of a kernel of one's own for virtual machines, "" for none;
    ``emulator_cpus`` are processors for QEMU's own threads."""

    scenario: str
    platforms: tuple[str, ...]
    accelerator: str
    measures: tuple[str, ...]
    trials: int | None
    quick: bool
    seed: int
    out: Path
    scenarios: Path
    command: tuple[str, ...]
    connect: str = ""
    wait: bool = False
    base: str = ""
    guest_kernel: str = ""
    emulator_cpus: float = 0.0


class Finished(Struct, frozen=True):
    """A run's folder and the exit code that its outcome means: 0, or 6 when a platform never worked."""

    path: Path
    exit_code: int


def _image_record(image: Image) -> dict[str, object]:
    """Return an image's name and digests, and those of the base image it stands on, if it does."""
    base = find_base(image)
    return {
        "reference": image.reference,
        "id": image.id,
        "layers": [layer.diff_id for layer in image.layers],
        "base": {"reference": base.reference, "id": base.id, "layer": base.layers[0].diff_id} if base else None,
    }


def filters(scenario: Scenario) -> dict[str, str]:
    """Return which filter of system calls stands before each service, on every platform."""
    return {service.name: "the default profile" if service.seccomp else "none" for service in scenario.services}


def _manifest(run_id: str, options: Options, request: Request, images: Mapping[str, Image]) -> dict[str, object]:
    """Return what the run is, as the run folder's manifest records it; platforms are added once they are prepared."""
    return {
        "run": run_id,
        "scenario": request.scenario.name,
        "quick": options.quick,
        "accelerator_asked_for": options.accelerator,
        "seed": options.seed,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(options.command),
        "measures": list(request.measures),
        "settings": to_builtins(request.settings),
        "images": {name: _image_record(image) for name, image in images.items()},
        "seccomp": filters(request.scenario),
        "source": read_source(),
        "versions": read_versions(),
        "host": {**read_facts(), "kvm": kvm.detect().words},
        "noise": list(watch_noise()),
    }


def _platform_record(platform: Platform) -> dict[str, object]:
    temperature = find_temperature(platform.name)
    return {"label": platform.label, "emulated": platform.emulated, "temperature": temperature, **platform.facts()}


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
    """Say of a run that is cut short where its trials are and what makes a report of them; for ``ExitStack.push``."""
    if kind is not None:
        count = len(folder.trials())
        progress(f"{count} trial{'' if count == 1 else 's'} in {folder.path}; for their report:")
        progress(f"  ./invoke report {shlex.quote(str(folder.path))}")
    return False


def make_run_id(scenario: str) -> str:
    """Return a run id that sorts by time: UTC to the second, the scenario's first letters, and a random end."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{scenario[:SCENARIO_LETTERS]}-{secrets.token_hex(2)}"


def choose_settings(scenario: Scenario, options: Options) -> Settings:
    """Return the scenario's settings, full or quick, with the number of trials that was asked for."""
    settings = scenario.chosen(options.quick)
    if options.trials is not None and options.trials < 1:
        raise UsageError(f"--trials {options.trials}: a number of trials is at least 1")
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: a seed is 0 or more")
    return settings if options.trials is None else replace(settings, trials=options.trials)


def _choose_machines(options: Options, names: Sequence[str], progress: Progress) -> Machines:
    """Return what was asked for of virtual machines; a kernel is in the store then, and known to have its options."""
    machines = Machines(emulator_cpus=options.emulator_cpus)
    if options.guest_kernel:
        kernel = read_own_kernel(store_root() / "guest", Path(options.guest_kernel))
        machines = replace(machines, kernel=kernel)
        progress(f"guest kernel: {kernel.package}, {kernel.release}, {kernel.version}")
    for sentence in registry.check_machines(names, machines):
        progress(sentence)
    if machines.kernel is not None:
        given = {name: VARIANTS[name] for name in names if name in VARIANTS and VARIANTS[name].boots_kernel}
        require_options(machines.kernel, given)
    return machines


def _kernel_record(file: str, kernel: GuestKernel | None) -> dict[str, object] | None:
    """Return what the manifest records of a kernel of one's own: the file's digest is that of what was given."""
    if kernel is None:
        return None
    return {"file": file, "digest": kernel.version, "release": kernel.release, "booted_sha256": kernel.sha256}


def prepare(
    platform: Platform, kernel: GuestKernel | None, scenario: Scenario, images: Mapping[str, Image], scratch: Path
) -> None:
    """Prepare a platform, and try a kernel of one's own in it. Raises PrerequisiteError with what the kernel lacks."""
    variant = VARIANTS.get(platform.name)
    if kernel is None or variant is None or not variant.boots_kernel:
        platform.prepare(scenario, images)
        return
    cold = variant.start == "cold"
    with explained(kernel, variant, starts=not cold):
        platform.prepare(scenario, images)
    if cold:  # to save those that are restored, each service was booted
        try_kernel(platform, kernel, variant, scenario, images, scratch / f"kernel-{platform.name}.log")


class Request(Struct, frozen=True):
    """What was asked for, read and found possible."""

    scenario: Scenario
    settings: Settings
    platforms: tuple[str, ...]
    measures: tuple[str, ...]


def check_options(options: Options, progress: Progress) -> Request:
    """Return what the options ask for. Raises UsageError for what nobody can do, and PrerequisiteError without root or
    a place for run folders: before images are built for minutes."""
    scenario = load_scenario(options.scenario, options.scenarios)
    settings = choose_settings(scenario, options)
    asked = registry.check_names(registry.expand(options.platforms, progress))
    names = (*list_missing_cold(asked), *asked)
    if names != asked:
        progress(f"measured too, as warm starts are compared beside cold ones only: {', '.join(names[: -len(asked)])}")
    registry.require_memory(names, scenario.services)
    wanted = check_measures(options.measures or settings.measures)
    if "work" in wanted:
        require_work(settings.work, scenario.name)
    check_accelerator(options.accelerator)
    choose_release(options.base, read_host())
    if os.geteuid() != 0:
        raise PrerequisiteError("bench needs root: namespaces, cgroups and QEMU", "run it with sudo")
    check_base(options.out)
    return Request(scenario, settings, names, wanted)


def bench(options: Options, progress: Progress) -> Finished:
    """Run the scenario and return its run folder, with metrics.csv but without a report.

    Raises UsageError for an unknown name, PrerequisiteError for what the host lacks, WorkloadError when an image
    does not build. Whatever happens, nothing that was started is left; the trials that ended are in the folder.
    """
    request = check_options(options, progress)
    scenario, settings, names, wanted = request.scenario, request.settings, request.platforms, request.measures
    connect = check_uri(options.connect) if options.connect else ""
    machines = _choose_machines(options, names, progress)
    registry.require_programs(names)
    run_id = make_run_id(scenario.name)
    with ExitStack() as undo:
        undo.enter_context(take_turn(run_id, wait=options.wait, progress=progress))
        scratch = undo.enter_context(lease(run_id))
        images = build_images(scenario, progress, options.base)
        bare = _time_bare(progress)  # while this process has no threads yet, and nothing else runs
        lab = Lab()
        chosen: dict[str, Platform] = {}
        for name in names:
            chosen[name] = registry.create(name, run_id, scratch, lab, options.accelerator, connect, machines)
            undo.callback(chosen[name].close)
            prepare(chosen[name], machines.kernel, scenario, images, scratch)
        manifest = _manifest(run_id, options, request, images)
        manifest["bare"] = bare
        manifest["guest_kernel"] = _kernel_record(options.guest_kernel, machines.kernel)
        manifest["platforms"] = {name: _platform_record(platform) for name, platform in chosen.items()}
        folder = RunFolder.create(options.out, run_id, manifest)
        progress(f"run folder: {folder.path}")
        undo.push(partial(_say_where, folder, progress))
        undo.push(folder.conclude)
        undo.enter_context(lab)
        watch = Watch(f"{CGROUP_ROOT}/{run_id}")
        planned = plan_trials(names, wanted, settings.trials, settings.load.rates_per_s, options.seed)
        context = RunContext(
            scenario, settings, images, chosen, lab, folder, options.seed, progress, watch, Pace(planned)
        )
        for one in planned:
            run_trials(context, one)
    return Finished(folder.path, choose_exit_code(folder.trials()))
