"""What a run of the ladder has found out: ``ladder.json`` in its folder, of which ``ladder.html`` is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

from testbed.probes.model import Outcome

FORMAT = 1
FILE, PAGE = "ladder.json", "ladder.html"
_NOT_DONE = {"attack": "not attacked", "price": "not priced", "pressure": "not put under pressure"}
# Which clock figures are of: this host's, or the reference machine's, where a nanosecond is an instruction.
HOST, INSTRUCTIONS = "host", "instructions"


class Missing(Struct, frozen=True):
    """A rung that could not be run here, or the ``part`` of a run that could not be done on it, and why."""

    rung: str
    why: str
    part: Literal["", "attack", "price", "pressure"] = ""

    @property
    def words(self) -> str:
        """What is said of the rung."""
        return f"{_NOT_DONE[self.part]}: {self.why}" if self.part else self.why


class Cost(Struct, frozen=True):
    """A figure of a rung: every trial's value, in the order of the blocks. ``metric`` is one of start_s, memory_bytes,
    syscall_ns, fork_us, round_trip_us, requests_per_s, copies; ``clock`` is HOST or INSTRUCTIONS."""

    rung: str
    metric: str
    values: tuple[float, ...]
    clock: str = HOST


class StepCost(Struct, frozen=True):
    """What one step of a rung's start took, in microseconds, in every trial: ``step`` as the plan prints it, ``part``
    which of its walls it belongs to (a namespace, mounts, a cgroup, a filter). Without a ``rung``, it is what a kind of
    namespace costs this kernel by itself."""

    rung: str
    step: str
    part: str
    values_us: tuple[float, ...]


class Pressure(Struct, frozen=True):
    """What an attack on resources did: to itself, to a rung's neighbour and to the host. ``held`` whether the neighbour
    still did at least half of its work; ``figures`` in the unit of their names."""

    rung: str
    attack: str
    held: bool
    words: str
    figures: Mapping[str, float]


class Snippet(Struct, frozen=True):
    """Commands of the history as they were typed, run in this run: ``output`` is what a terminal would show, each
    command behind a dollar sign, and ``status`` that of the last. ``words`` say what is to be seen."""

    title: str
    year: int
    commands: tuple[str, ...]
    output: str
    status: int
    words: str


class Feature(Struct, frozen=True):
    """What else a rung had (one of testbed.rungs.model.FEATURES), shown on it: ``done`` whether it could be, and in
    ``words`` what was seen, or why not."""

    rung: str
    feature: str
    done: bool
    words: str


class Ladder(Struct, frozen=True):
    """A whole run. ``platforms`` are those that were attacked beside the rungs (peers, machines). ``labels`` are how
    figures call both, by name, with what must be said; ``emulated`` are those whose processors are. ``source`` is the
    checkout that measured, ``versions`` those of what it uses (testbed.host.facts); ``machine`` is what the reference
    machine was made of and must give again, empty for a run on the host."""

    id: str
    started: str
    host: Mapping[str, str]
    rungs: tuple[str, ...]
    platforms: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    costs: tuple[Cost, ...]
    steps: tuple[StepCost, ...]
    pressures: tuple[Pressure, ...]
    missing: tuple[Missing, ...] = ()
    snippets: tuple[Snippet, ...] = ()
    features: tuple[Feature, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    emulated: tuple[str, ...] = ()
    format: int = FORMAT
    took_s: float = 0.0
    source: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, object] = field(default_factory=dict)
    machine: Mapping[str, object] = field(default_factory=dict)
