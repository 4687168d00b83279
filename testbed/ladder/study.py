"""A whole run of the ladder: each rung is attacked, priced and put under pressure, and what came of it is recorded.

What is on record grows while it runs, so a run that is cut short leaves a record that can be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct, field

from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.images.model import Image
from runtime.lease import CGROUP_ROOT, lease
from testbed.bench import make_run_id
from testbed.host.facts import read_facts, read_source, read_versions
from testbed.host.noise import Watch
from testbed.host.turn import take_turn
from testbed.images import build_images
from testbed.interruption import Undo
from testbed.lab import Lab
from testbed.ladder import costs
from testbed.ladder.attacks import Ground, attack_all
from testbed.ladder.features import Stage, show_features
from testbed.ladder.gauge import PORT, make_instance
from testbed.ladder.image import REFERENCE as GAUGE
from testbed.ladder.image import ensure_gauge_image
from testbed.ladder.model import HOST, Ladder, Missing
from testbed.ladder.pressure import ATTACKS, QUICK_ATTACKS, press
from testbed.ladder.pricing import Pricing
from testbed.ladder.record import Record
from testbed.ladder.snippets import run_snippets
from testbed.ladder.targets import Target, choose_targets
from testbed.neighbours.image import REFERENCE as NEIGHBOUR
from testbed.neighbours.image import ensure_neighbour_image
from testbed.platforms import registry
from testbed.platforms.protocol import Metered, Platform, Saving
from testbed.probes.image import REFERENCE as PROBE
from testbed.probes.image import ensure_probe_image
from testbed.qemu.accelerator import AUTO
from testbed.results import check_base
from testbed.rungs.model import History
from testbed.scenario.model import Scenario, Settings, load
from testbed.services.specs import Mounts, mount_nothing

# The workload that every rung runs, and what a run's folder is called after.
SCENARIO, NAME = "clickme", "ladder"
PROGRAMS = MappingProxyType({GAUGE: ensure_gauge_image, PROBE: ensure_probe_image, NEIGHBOUR: ensure_neighbour_image})
# Exit codes: a wall that does not hold what its maker meant it to is a regression, a rung that never worked a failed
# workload.
OK, LEAKED, FAILED = 0, 3, 6
_LOG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Progress = Callable[[str], None]


class Wishes(Struct, frozen=True):
    """What is asked for: ``rungs`` by name, all that run here without any; ``platforms`` that are attacked and priced
    beside them. By another ``clock`` than the host's, no snippet is run: they are typed to this host.
    """

    out: Path
    scenarios: Path
    rungs: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    quick: bool = False
    seed: int = 1
    wait: bool = False
    share: bool = False
    clock: str = HOST


class Finished(Struct, frozen=True):
    """A run's folder, its record, and the exit code that it means."""

    path: Path
    ladder: Ladder
    exit_code: int


class _Folder(Struct, frozen=True):
    """Where what instances write goes."""

    path: Path

    def log_path(self, instance: str) -> Path:
        if not _LOG_NAME.fullmatch(instance):
            raise ValueError(f"{instance!r} is no name for a file")
        return self.path / "logs" / f"{instance}.log"


class _Surroundings(Struct, frozen=True):
    """What a copy of the application needs around it (testbed.measures.context)."""

    scenario: Scenario
    settings: Settings
    images: Mapping[str, Image]
    addresses: Lab
    folder: _Folder
    watch: Watch = field(default_factory=Watch)
    mounts: Callable[[str], AbstractContextManager[Mounts]] = mount_nothing
    meet: Callable[[], None] = lambda: None


class Begun(NamedTuple):
    """What a run has once it is the host's turn: its id and directory, the scenario and the images of all programs."""

    run_id: str
    scratch: Path
    scenario: Scenario
    images: Mapping[str, Image]


def begin(undo: Undo, wishes: Wishes, missing: Iterable[Missing], progress: Progress) -> Begun:
    """Say what is missing, wait for the host's turn as wished, and build the images. Raises UsageError and
    PrerequisiteError."""
    for one in missing:
        progress(f"without {one.rung}: {one.why}")
    check_base(wishes.out)
    run_id = make_run_id(NAME)
    scenario = load(SCENARIO, wishes.scenarios)
    undo.enter_context(take_turn(run_id, wait=wishes.wait, progress=progress, share=wishes.share))
    scratch = undo.enter_context(lease(run_id))
    return Begun(run_id, scratch, scenario, build_images(scenario, progress, programs=PROGRAMS))


def run_ladder(wishes: Wishes, history: History, progress: Progress) -> Finished:
    """Run the ladder. Nothing that was started is left, whatever happens; what is known by then is in the folder.

    Raises UsageError and PrerequisiteError for what was asked for and is not there, before anything is built.
    """
    targets, missing = choose_targets(history, wishes.rungs, wishes.platforms, progress)
    with Undo() as undo:
        run_id, scratch, scenario, images = begin(undo, wishes, missing, progress)
        lab = Lab()
        accelerator = AUTO if wishes.clock == HOST else "kvm"
        here, refused = _prepare(
            undo, targets, run_id, scratch, lab, scenario, images, progress, bool(wishes.rungs), accelerator
        )
        folder = _make_folder(wishes.out / run_id)
        progress(f"run folder: {folder.path}")
        targets = tuple(one for one in targets if one.name in here)
        record = _begin_record(folder.path, run_id, targets, wishes.clock)
        record.missing += [*missing, *refused]
        record.labels = {name: one.label for name, one in here.items()}
        record.emulated = [name for name, one in here.items() if one.emulated]
        record.save()
        undo.callback(record.save)
        served = images[scenario.settings.load.service]
        if wishes.clock == HOST:
            record.snippets = run_snippets(served, scratch)
        undo.enter_context(lab)
        stages = {name: Stage(one, lab, images[PROBE], served, scratch, run_id) for name, one in here.items()}
        record.features = show_features(stages)
        surroundings = _Surroundings(
            scenario, scenario.chosen(wishes.quick), images, lab, folder, Watch(f"{CGROUP_ROOT}/{run_id}")
        )
        attack_all(targets, here, Ground(run_id, scratch, lab, images[PROBE], progress), record)
        efforts = {name: costs.choose_effort(one, wishes.quick, wishes.clock) for name, one in here.items()}
        for name, platform in here.items():
            if isinstance(platform, Saving):
                _save(name, platform, surroundings, images[GAUGE], bool(efforts[name].loads), progress)
        pricing = Pricing(surroundings, images[GAUGE], here, efforts, record, progress)
        pricing.run(wishes.seed)
        pricing.price_namespaces(min(one.rounds for one in efforts.values()))
        chosen = QUICK_ATTACKS if wishes.quick else tuple(ATTACKS)
        for name, platform in here.items():
            if why := explain_unpressed(platform, wishes):
                record.missing.append(Missing(name, why, "pressure"))
            else:
                _press(name, platform, lab, (images[PROBE], images[NEIGHBOUR]), scratch, chosen, record, progress)
        ladder = record.save()
    return Finished(folder.path, ladder, choose_exit_code(ladder))


def explain_unpressed(platform: Platform, wishes: Wishes) -> str:
    """Return why a platform is not put under pressure, empty where it is: a machine starts anew for each attack."""
    if not platform.virtual:
        return ""
    if isinstance(platform, Saving):
        return "its machines begin as what was saved, and each attack and its neighbour would be saved first"
    if isinstance(platform, Metered):
        return "a ceiling over all guests, which keeps the host well, is a cgroup's, and none has all of these"
    if platform.emulated:
        return "each attack is a start, which takes ten seconds and more where a processor is emulated"
    return "each attack is a start, and the run is a quick one" if wishes.quick and wishes.clock == HOST else ""


def _save(
    name: str, platform: Saving, surroundings: _Surroundings, gauge: Image, loads: bool, progress: Progress
) -> None:
    """Save what the instances that are priced are copies of: the gauge, and the application where it gets ``loads``.
    What cannot be saved shows when it is priced."""
    progress(f"saving the gauge of {name}")
    label = f"gauge-{name}"
    link, log = surroundings.addresses.link(0, 0), surroundings.folder.log_path(label)
    try:
        platform.save_for(make_instance(label, 0, gauge, link, log), (PORT,))
        if loads:
            platform.save_services(surroundings.scenario, surroundings.images)
    except TestbedError as error:
        progress(f"the gauge of {name} is not saved: {str(error).splitlines()[0]}")


def _press(
    name: str,
    platform: Platform,
    lab: Lab,
    images: tuple[Image, Image],
    scratch: Path,
    attacks: Sequence[str],
    record: Record,
    progress: Progress,
) -> None:
    """Put one under pressure, and put on record who was hurt, and what could not be tried."""
    progress(f"putting {name} under pressure")
    try:
        pressures, untried = press(platform, name, lab, *images, scratch, progress, attacks=attacks)
        record.pressures += pressures
        record.missing += untried
    except TestbedError as error:
        first = str(error).splitlines()[0]
        progress(f"{name} is not put under pressure: {first}")
        record.missing.append(Missing(name, first, "pressure"))
    record.save()


def choose_exit_code(ladder: Ladder) -> int:
    """Return 3 when a probe leaked that a rung's maker meant to forbid, 6 when a rung never worked, else 0."""
    if any(one.verdict == "leaked" for one in ladder.outcomes):
        return LEAKED
    worked = {one.rung for one in ladder.costs} | {one.rung for one in ladder.outcomes}
    return OK if worked.issuperset((*ladder.rungs, *ladder.platforms)) else FAILED


def _prepare(
    undo: ExitStack,
    targets: Sequence[Target],
    run_id: str,
    scratch: Path,
    lab: Lab,
    scenario: Scenario,
    images: Mapping[str, Image],
    progress: Progress,
    is_asked: bool,
    accelerator: str,
) -> tuple[dict[str, Platform], list[Missing]]:
    """Return the platform of each target by the target's name, prepared, and what the host lacks for the others.

    Raises PrerequisiteError for one that was asked for by name, or when none is left.
    """
    here, refused = dict[str, Platform](), list[Missing]()
    for target in targets:
        try:
            platform = registry.create(target.platform, run_id, scratch, lab, accelerator)
            undo.callback(platform.close)
            progress(f"preparing {target.name}")
            if isinstance(platform, Saving):  # what it is attacked and priced by is saved when its turn comes
                platform.prepare_images(images.values())
            else:
                platform.prepare(scenario, images)
        except PrerequisiteError as error:
            if target.rung is None or is_asked:
                raise
            progress(f"without {target.name}: {error.message}")
            refused.append(Missing(target.name, error.message))
            continue
        here[target.name] = platform
    if not here:
        raise PrerequisiteError("no rung of the ladder can be run here", refused[-1].why)
    return here, refused


def _make_folder(path: Path) -> _Folder:
    try:
        (path / "logs").mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot make the run folder {path}: {error.strerror}", "use another --out") from error
    return _Folder(path)


def _begin_record(folder: Path, run_id: str, targets: Sequence[Target], clock: str) -> Record:
    rungs = [one.name for one in targets if one.rung is not None]
    platforms = [one.name for one in targets if one.rung is None]
    started = datetime.now(UTC).isoformat(timespec="seconds")
    made_by = read_source(), read_versions()
    return Record(folder, run_id, started, describe_host(read_facts()), rungs, platforms, clock, *made_by)


def describe_host(facts: Mapping[str, object]) -> dict[str, str]:
    """Return what the page says of the host, from its facts."""
    cpu, memory, cgroups = (facts.get(name) for name in ("cpu", "memory", "cgroups"))
    described: dict[str, object] = {
        "kernel": facts.get("kernel"),
        "distribution": facts.get("distribution"),
        "hypervisor": facts.get("hypervisor"),
    }
    if isinstance(cpu, Mapping):
        described |= {"processor": cpu.get("model"), "processors": cpu.get("processors")}
    if isinstance(memory, Mapping) and isinstance(total := memory.get("total_bytes"), int):
        described["memory"] = f"{total / 2**30:.1f} GiB"
    if isinstance(cgroups, Mapping):
        described["cgroups"] = cgroups.get("mode")
    return {name: str(value) for name, value in described.items() if value}
