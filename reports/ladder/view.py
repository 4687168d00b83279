"""What a record of the ladder says, arranged: who is in it, what came of each class of probes, and what all cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from reports.figures.marks import Look
from reports.quantities import Quantity
from reports.theme import HUES, MARKERS
from testbed.ladder.model import INSTRUCTIONS, Cost, Ladder, Pressure, StepCost
from testbed.probes.model import VERDICTS, Outcome, Probe
from testbed.rungs.model import CLASSES, Explained, History, Rung
from testbed.statistics import Estimate, estimate_median_of_series

# What a rung costs, in the order in which a reader meets it; less is better but for the last two.
QUANTITIES: Mapping[str, Quantity] = {
    "start_s": Quantity("start", "ms", 1e3, most_decimals=2),
    "memory_bytes": Quantity("memory, idle", "KiB", 1 / 1024, most_decimals=0),
    "syscall_ns": Quantity("system call", "ns", most_decimals=0),
    "fork_us": Quantity("fork and exit", "µs", most_decimals=0),
    "round_trip_us": Quantity("round trip", "µs", most_decimals=0),
    "requests_per_s": Quantity("requests", "/s", most_decimals=0),
    "copies": Quantity("copies in a GiB", "", most_decimals=0),
}
EXPLAINED: Mapping[str, str] = {
    "start_s": "from the request until the program inside runs",
    "memory_bytes": "what the kernel charges to a program that only waits, and to its emulator; of a guest of Xen's or"
    " VirtualBox's, what that counts for it",
    "syscall_ns": "one getppid(2), the least that a program can ask of a kernel",
    "fork_us": "a child that ends at once, waited for",
    "round_trip_us": "a line over TCP and its answer, from the host",
    "requests_per_s": "clickme's answers in a closed loop of eight connections: an upper bound",
    "copies": "idle copies, by what the kernel charges for each further one",
}


class Subject(Struct, frozen=True):
    """A rung of the ladder, or a platform beside it, that is in a record."""

    name: str
    label: str
    look: Look
    rung: Rung | None = None


class Tally(Struct, frozen=True):
    """How many probes had each verdict."""

    verdicts: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, verdict: str) -> int:
        return self.verdicts.get(verdict, 0)

    @property
    def tried(self) -> int:
        """How many probes could be tried."""
        return sum(self.verdicts.values()) - self["untestable"]


class View(Struct, frozen=True):
    """A record of the ladder with what it speaks of. What it names that nobody knows is left out."""

    ladder: Ladder
    history: History
    probes: Mapping[str, Probe]
    subjects: tuple[Subject, ...]
    outcomes: Mapping[tuple[str, str], Outcome]
    costs: Mapping[tuple[str, str], Estimate]

    @property
    def counts_instructions(self) -> bool:
        """Whether its times are the reference machine's."""
        return any(one.clock == INSTRUCTIONS for one in self.ladder.costs)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The classes that a probe of is on record, in their own order."""
        seen = {self.probes[probe].kind for _, probe in self.outcomes}
        return tuple(kind for kind in CLASSES if kind in seen)

    def tally(self, subject: str, kind: str = "") -> Tally:
        """Count what came of the probes of a class, or of all, on a subject."""
        verdicts = Counter(
            one.verdict
            for (name, probe), one in self.outcomes.items()
            if name == subject and kind in ("", self.probes[probe].kind)
        )
        return Tally({verdict: verdicts[verdict] for verdict in VERDICTS if verdicts[verdict]})

    @property
    def findings(self) -> list[Outcome]:
        """What leaked though the maker meant to forbid it, and what is broken that he meant to permit."""
        wrong = [one for verdict in ("leaked", "broken") for one in self.outcomes.values() if one.verdict == verdict]
        order = {one.name: at for at, one in enumerate(self.subjects)}
        return sorted(wrong, key=lambda one: (one.verdict != "leaked", order[one.rung], one.probe))

    def explain(self, finding: Outcome) -> Explained | None:
        """Return why a finding is what is to be expected; None of one that nobody has explained."""
        rung = next((one.rung for one in self.subjects if one.name == finding.rung), None)
        return rung.explains.get(finding.probe) if rung is not None else None

    def steps_of(self, subject: str) -> list[tuple[StepCost, float]]:
        """Return the steps of a start in their order, each with its median in microseconds."""
        return [(one, _median(one.values_us)) for one in self.ladder.steps if one.rung == subject and one.values_us]

    def parts_of(self, subject: str) -> dict[str, float]:
        """Return what the parts of a start take, in microseconds: sums of their steps' medians."""
        parts: dict[str, float] = {}
        for step, median_us in self.steps_of(subject):
            parts[step.part] = parts.get(step.part, 0.0) + median_us
        return parts

    def pressures_of(self, attack: str) -> dict[str, Pressure]:
        return {one.rung: one for one in self.ladder.pressures if one.attack == attack}

    def list_unpressed(self) -> list[tuple[str, str]]:
        """Return who was not put under pressure, each by its label with the reason."""
        labels = {one.name: one.label for one in self.subjects}
        return [(labels.get(one.rung, one.rung), one.why) for one in self.ladder.missing if one.part == "pressure"]

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks on resources that are on record, in their order."""
        return tuple(dict.fromkeys(one.attack for one in self.ladder.pressures))


def make_view(ladder: Ladder, history: History, probes: Sequence[Probe]) -> View:
    """Arrange a record."""
    known = {one.name: one for one in probes}
    subjects = list_subjects(ladder, history)
    names = {one.name for one in subjects}
    outcomes = {(one.rung, one.probe): one for one in ladder.outcomes if one.rung in names and one.probe in known}
    return View(ladder, history, known, subjects, outcomes, estimate_costs(ladder.costs, names))


def list_subjects(ladder: Ladder, history: History) -> tuple[Subject, ...]:
    """Return the rungs of a record in the order of their years, then the platforms beside them."""
    rungs = [one for one in history.rungs if one.name in ladder.rungs]
    unknown = [name for name in ladder.rungs if name not in {one.name for one in rungs}]
    named: list[tuple[str, Rung | None]] = [(one.name, one) for one in rungs]
    named += [(name, None) for name in dict.fromkeys((*unknown, *ladder.platforms))]
    return tuple(
        Subject(name, label, Look(at % len(HUES), at % len(MARKERS), name in ladder.emulated, label), rung)
        for at, (name, rung) in enumerate(named)
        for label in (_choose_label(name, rung, ladder),)
    )


def _choose_label(name: str, rung: Rung | None, ladder: Ladder) -> str:
    """A rung goes by its own name, and by what must be said of the platform that stands for it."""
    label = ladder.labels.get(name, name)
    if rung is None:
        return label
    if name in ladder.emulated:
        return f"{name} (emulated)"
    said = label[label.index("(") :] if "(" in label else ""
    return f"{name} {said}".rstrip()


def estimate_costs(costs: Sequence[Cost], names: set[str]) -> dict[tuple[str, str], Estimate]:
    """Return the median of each figure, by rung and metric."""
    return {
        (one.rung, one.metric): estimate_median_of_series(one.values)
        for one in costs
        if one.rung in names and one.metric in QUANTITIES and one.values
    }


def _median(values: Sequence[float]) -> float:
    return estimate_median_of_series(values).value
