"""Configurations of containers, their plans, and how tests ask which of a plan's steps come before which."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from runtime.cgroups import Hierarchies
from runtime.cgroups.hierarchy import ALL
from runtime.config.process import Process
from runtime.config.types import Config, Hook, IDMapping, Linux, Namespace, Root
from runtime.plan import steps as s
from runtime.plan.bundle import Choices, bundle_plan

T = TypeVar("T", bound=s.Step)
Matcher = s.Step | type[s.Step] | Callable[[s.Step], bool]

_OF_V1 = {name: Path("/cg") / name for name in ("memory", "cpu", "pids", "devices")}
V1 = Hierarchies(_OF_V1, None, frozenset(), ALL)
V2 = Hierarchies({}, Path("/cg"), frozenset({"memory", "cpu", "pids"}), ALL)
# v1 with v2 beside it, which has a controller, or none
HYBRID = Hierarchies(_OF_V1, Path("/cg/unified"), frozenset({"hugetlb"}), ALL)
BARE_HYBRID = Hierarchies(_OF_V1, Path("/cg/unified"), frozenset(), ALL)
HOSTS = {"v1": V1, "v2": V2, "hybrid": HYBRID, "bare hybrid": BARE_HYBRID}

BUNDLE, ROOTFS = "/b", "/b/rootfs"
PROCESS = Process("/", ("sh",), no_new_privileges=True)
HOOK = Hook("/bin/true")
IDS = (IDMapping(0, 100_000, 1000),)
MAPPED = Linux(uid_mappings=IDS, gid_mappings=IDS)
NO_LINUX = Linux()


def config(kinds: str = "mount", process: Process | None = PROCESS, linux: Linux = NO_LINUX, **others: Any) -> Config:
    """A configuration with new namespaces of these ``kinds``; ``uts=/path`` joins one."""
    namespaces = tuple(Namespace(*word.split("=", 1)) for word in kinds.split())
    return Config("1.3.0", Root("rootfs"), process, linux=replace(linux, namespaces=namespaces), **others)


def planned(of: Config, found: Hierarchies = V1, **choices: Any) -> s.Plan:
    """The plan of a container, without a cgroup unless ``choices`` name one."""
    return bundle_plan(of, found, BUNDLE, Choices(**{"rootfs": ROOTFS, "cgroup": "", **choices}))


def of_type(steps: Iterable[s.Step], kind: type[T]) -> list[T]:
    """The steps of a class, in their order."""
    return [step for step in steps if isinstance(step, kind)]


def positions(steps: Iterable[s.Step], wanted: Matcher) -> list[int]:
    """Where the steps are that ``wanted`` is, is the class of, or is true of."""

    def fits(step: s.Step) -> bool:
        if isinstance(wanted, type):
            return isinstance(step, wanted)
        return step == wanted if isinstance(wanted, s.Step) else wanted(step)

    return [index for index, step in enumerate(steps) if fits(step)]


def assert_order(steps: Iterable[s.Step], *wanted: Matcher) -> None:
    """All steps of each kind are there and precede all of the next kind."""
    steps = tuple(steps)
    places = [positions(steps, each) for each in wanted]
    assert all(places), f"missing: {[each for each, found in zip(wanted, places, strict=True) if not found]}"
    for earlier, later in pairwise(places):
        assert earlier[-1] < later[0], f"{steps[earlier[-1]]} comes after {steps[later[0]]}"


def sync(number: int) -> Matcher:
    """The point ``number`` at which the runtime is waited for."""
    return lambda step: isinstance(step, s.Sync) and step.number == number


def made(directory: str) -> Matcher:
    """The step that makes ``directory``."""
    return lambda step: isinstance(step, s.Mkdir) and step.path == directory
