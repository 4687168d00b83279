"""What is asked for of a run, and whether it can be done: all that is found out before anything is built."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError
from runtime.home import store_root
from runtime.images.base import read_host
from runtime.images.releases import choose_release
from testbed.aliases import name_again
from testbed.levels import Level
from testbed.measures import design as designs
from testbed.measures.conditions import list_substituted
from testbed.measures.design import Design, choose_design
from testbed.measures.neighbours import require_neighbours
from testbed.measures.schedule import Group
from testbed.measures.trials import check_measures
from testbed.measures.work import require_work
from testbed.neighbours.cases import list_cases
from testbed.platforms import registry
from testbed.platforms.own_kernel import require_options
from testbed.platforms.registry import Machines
from testbed.platforms.requirements import list_not_restarted, require_services
from testbed.platforms.spaces import require_apart_on_host
from testbed.qemu.accelerator import check_accelerator
from testbed.qemu.variants import VARIANTS
from testbed.results import check_base
from testbed.scenario import consolidation as servers
from testbed.scenario.model import NOTHING_ASKED, Asked, Scenario, Service, Settings
from testbed.scenario.model import load as load_scenario
from testbed.services.mounts import describe_shared, list_unapplied, require_no_shared
from testbed.services.sharing import is_on_host, list_lines
from testbed.temperature import find_temperature, list_missing_cold
from vm_images.own_kernel import read_own_kernel

Progress = Callable[[str], None]

# Two ramps at once would fill the host together, and no ruler could tell whose memory that is; nor whose neighbour has
# slowed an application down.
ALONE_ONLY = ("density", "neighbours", "consolidation")
# Of --aa: no platform, and the one that a run without the option measures again.
NOT_AGAIN, AGAIN_BY_DEFAULT = "none", ""
FIRST = "first"


class Options(Struct, frozen=True):
    """What was asked for. ``trials`` None means at least as many as an interval needs, ``connect`` "" libvirt in our
    own process; ``wait``: for the end of another run on this host, instead of being refused; ``share``: measure beside
    it; ``base``: the release that images are built on, "" the host's. ``guest_kernel`` is the file of a kernel of one's
    own for virtual machines, "" for none; ``emulator_cpus`` are processors for QEMU's own threads. No ``measures`` are
    the scenario's own, and with no ``cap`` a ramp ends where the scenario says. With ``steps`` density is looked at
    with so many applications only, and ends at the last of them.

    ``until`` is the relative half-width of intervals to measure for, ``budget_s`` the seconds to do it in; ``again`` is
    the platform of A/A: its name, ``first``, ``none``, or "" as the run is long or short. ``duet``: two platforms at
    the same time; ``against``: a revision of this code to measure too, "" for none. ``resume`` is the folder of a run
    to go on with, None for a new one. ``packed`` is what was asked for of consolidation in place of the scenario's own,
    ``compose`` what was of its compose files.
    """

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
    until: float | None = None
    budget_s: float | None = None
    again: str = AGAIN_BY_DEFAULT
    duet: bool = False
    against: str = ""
    resume: Path | None = None
    cap: int | None = None
    steps: tuple[int, ...] = ()
    share: bool = False
    packed: servers.Asked = servers.Asked()
    compose: Asked = NOTHING_ASKED


class Request(Struct, frozen=True):
    """What was asked for, read and found possible: ``platforms`` with their aliases, in ``groups`` of those that run at
    the same time. ``said`` is what the user was told of its services besides the files' own notes."""

    scenario: Scenario
    settings: Settings
    platforms: tuple[str, ...]
    measures: tuple[str, ...]
    design: Design
    groups: tuple[Group, ...]
    said: tuple[str, ...] = ()

    @property
    def on_host(self) -> tuple[str, ...]:
        """The services that are in the host's network by their file, for which the run's own stands."""
        services = self.scenario.services
        return tuple(one.name for one in services if is_on_host(one, services))

    @property
    def levels(self) -> dict[str, tuple[Level, ...]]:
        """The levels of each measure that has any: rates (utilisation), cases (neighbours), mixes (consolidation)."""
        cases = tuple(case.name for case in list_cases(self.settings.neighbours.kinds))
        mixes = tuple(mix.name for mix in self.settings.consolidation.mixes)
        return {"utilisation": self.settings.load.rates_per_s, "neighbours": cases, "consolidation": mixes}


def choose_settings(scenario: Scenario, options: Options) -> Settings:
    """Return the scenario's settings, full or quick, with the number of trials, the cap and the servers that were asked
    for."""
    settings = scenario.chosen(options.quick)
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: a seed is 0 or more")
    if options.cap is not None:
        if options.cap < 1:
            raise UsageError(f"--cap {options.cap}: a ramp has at least one application")
        settings = replace(
            settings,
            density=replace(settings.density, cap=options.cap),
            consolidation=replace(settings.consolidation, cap=options.cap),
        )
    if options.steps:
        if options.cap is not None or min(options.steps) < 1 or list(options.steps) != sorted(set(options.steps)):
            shown = ",".join(map(str, options.steps))
            raise UsageError(f"--steps {shown}", "numbers of applications, each greater than the one before; no --cap")
        settings = replace(settings, density=replace(settings.density, cap=options.steps[-1], steps=options.steps))
    settings = replace(settings, consolidation=options.packed.apply(settings.consolidation))
    return settings if options.trials is None else replace(settings, trials=options.trials)


def choose_machines(options: Options, names: Sequence[str], progress: Progress) -> Machines:
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


def choose_again(options: Options, names: Sequence[str], design: Design) -> str:
    """Return the platform that is measured once more, "" for none. Raises UsageError for one that is not measured."""
    if options.again == NOT_AGAIN:
        return ""
    cold = [name for name in names if find_temperature(name) == "cold"]
    first = cold[0] if cold else names[0]
    if options.again == AGAIN_BY_DEFAULT:
        return first if design.is_adaptive and not options.duet and not options.against else ""
    if options.again == FIRST:
        return first
    if options.again not in names:
        raise UsageError(
            f"--aa {options.again}: it is not among the platforms of this run",
            f"one of {', '.join(names)}, or {NOT_AGAIN}",
        )
    return options.again


def choose_measures(options: Options, scenarios: Sequence[str]) -> tuple[str, ...]:
    """Return the measures that were asked for, or the scenario's own. Raises UsageError for one that is none, or not
    possible at the same time on two platforms."""
    if not options.measures:
        return check_measures([name for name in scenarios if not (options.duet and name in ALONE_ONLY)])
    wanted = check_measures(options.measures)
    if options.duet and (alone := [name for name in wanted if name in ALONE_ONLY]):
        raise UsageError(
            f"--duet: {', '.join(alone)} fills the host, which two platforms cannot do at the same time",
            "measure start, utilisation, or leave --duet out",
        )
    return wanted


def make_groups(options: Options, names: Sequence[str], again: str, rivals: Sequence[str]) -> tuple[Group, ...]:
    """Return which platforms run at the same time: each alone, or in a duet with its rival.

    ``rivals`` are the same platforms at another revision, in the same order, or none. Raises UsageError for a duet
    that is not of two.
    """
    if not options.duet:
        return tuple((name,) for name in (*names, *([name_again(again)] if again else []), *rivals))
    if rivals:
        if again:
            raise UsageError("--duet with --against: each platform has its rival", "leave --aa out")
        return tuple(zip(names, rivals, strict=True))
    if again and len(names) == 1:
        return ((again, name_again(again)),)
    if again or len(names) != 2:
        said = f"{', '.join(names)}{f' and {again} again' if again else ''}"
        raise UsageError(
            f"--duet: two platforms run at the same time, not {said}",
            "name two, as in --platforms container,vm; or one with --aa or --against REV",
        )
    return (tuple(names),)


def _list_said(names: Sequence[str], services: Sequence[Service]) -> tuple[str, ...]:
    """Return a line for each thing that files say of services and that is otherwise in a run on these platforms."""
    return (
        *list_unapplied(services),
        *list_not_restarted(names, services, measured=True),
        *list_substituted(services),
        *list_lines(services, measured=True),
    )


def check_options(
    options: Options,
    progress: Progress,
    rivals: Callable[[Sequence[str]], Sequence[str]] = lambda names: (),
    absent: Mapping[str, str] | None = None,
) -> Request:
    """Return what the options ask for; ``rivals`` names the platforms of another revision, given this one's. ``absent``
    are those that the reference machine lacks, for a run there, with the reasons.

    Raises UsageError for what nobody can do, and PrerequisiteError without root or a place for run folders: before
    images are built for minutes.
    """
    scenario = load_scenario(options.scenario, options.scenarios, options.compose)
    for note in scenario.application.notes:
        progress(f"{scenario.name}: {note}")
    settings = choose_settings(scenario, options)
    if not settings.ready.service:
        raise UsageError(
            f"{scenario.name}: no service publishes a port, so there is nothing to measure it by",
            "say where it answers: --with FILE, with x-testbed.ready.service and port",
        )
    look = registry.find_missing if absent is None else partial(registry.find_missing_in, absent)
    asked = registry.check_names(registry.expand(options.platforms, progress, look))
    names = asked if options.duet else (*list_missing_cold(asked), *asked)
    if names != asked:
        progress(f"measured too, as warm starts are compared beside cold ones only: {', '.join(names[: -len(asked)])}")
    require_services(names, scenario.services)
    _check_shared(names, scenario, progress)
    said = _list_said(names, scenario.services)
    for line in said:
        progress(line)
    wanted = choose_measures(options, settings.measures)
    registry.require_countable(names, wanted)
    require_apart_on_host(wanted, scenario.services)
    if not settings.ready.path and set(wanted) - {"start"}:
        where = f"{settings.ready.service}:{settings.ready.port}"
        raise UsageError(
            f"{scenario.name}: no load can be offered at {where}, a port that is not HTTP's",
            "--measures start, or say where HTTP is answered: --with FILE, with x-testbed.ready.service and port",
        )
    if "work" in wanted:
        require_work(settings.work, scenario.name)
    _check_consolidation(options, wanted)
    if "neighbours" in wanted:
        require_neighbours(names)
    check_accelerator(options.accelerator)
    choose_release(options.base, read_host())
    design = choose_design(
        wanted, settings.trials, designs.Asked(options.quick, options.trials, options.until, options.budget_s)
    )
    groups = make_groups(options, names, choose_again(options, names, design), rivals(names))
    if os.geteuid() != 0:
        raise PrerequisiteError("bench needs root: namespaces, cgroups and QEMU", "run it with sudo")
    check_base(options.out)
    measured = tuple(name for group in groups for name in group)
    return Request(scenario, settings, measured, wanted, design, groups, said)


def _check_shared(names: Sequence[str], scenario: Scenario, progress: Callable[[str], None]) -> None:
    """Raise UsageError when services share what one of the platforms cannot have; say what they do share."""
    shared = describe_shared(scenario.services)
    for name in names if shared else ():
        if refusal := registry.find_share_refusal(name):
            require_no_shared(scenario.services, name, refusal)
    if shared:
        progress(f"{shared}: a directory of the host for each copy, mounted in containers and lent to machines")


def _check_consolidation(options: Options, measures: Sequence[str]) -> None:
    """Raise UsageError for servers that nobody would pack, or that no two revisions could pack alike."""
    if "consolidation" not in measures:
        if options.packed != servers.Asked():
            raise UsageError(
                "--fractions, --shape, --packing, --zombies: they are of the measure consolidation",
                f"--measures {','.join((*measures, 'consolidation'))}",
            )
        return
    if options.against:
        raise UsageError(
            "--against: consolidation has one calibration for all platforms, and each revision would have its own",
            "leave --against out, or consolidation",
        )
