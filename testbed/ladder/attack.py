"""Attacks one platform with all probes, and tells what came of each.

The probes run in one instance of the platform, one after the other: first those that take resources, each of which is
alone, then the others, which stay where they got to until the host has looked (testbed.probes.reached). An instance
that ends before its probes do is followed by another with the rest.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.config.types import Mount
from runtime.errors import TestbedError
from runtime.images.merging import directories
from runtime.images.model import Image
from runtime.lease import cgroup_name
from runtime.spec import Process, Resources, Spec
from testbed.interruption import defer_signals
from testbed.lab import Lab
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.oci import OciPeer
from testbed.platforms.protocol import Instance, Metered, Platform, Saving
from testbed.probes.canaries import Canaries
from testbed.probes.image import PROGRAM
from testbed.probes.lines import Printed, Trace, parse_lines, read_printed
from testbed.probes.model import VERDICTS, Counted, Outcome, Probe
from testbed.probes.place import VOLUME, Evidence, Place, Untestable
from testbed.probes.reached import PACKET, PROCESSORS, find_reached
from testbed.probes.read import read_probes
from testbed.probes.sight import Seen, look
from testbed.probes.verdicts import judge, set_aside
from testbed.rungs.model import Rung
from testbed.sample import CLOCK_TICKS_PER_S

MIB = 1 << 20
# An instance's limits: more than what stays of all attempts, less than what those take that try to take more. A
# machine has a whole processor, which it needs to boot.
LIMITS = Resources(memory_bytes=160 * MIB, cpus=0.5, pids=256)
MACHINE_LIMITS = replace(LIMITS, cpus=1.0)
# A machine that used so much of its processors was given them.
_GIVEN = 0.75
SERVICE = "probe"
# The number of the application, and so the address, that no other of a run has.
APPLICATION = 60
# Of an attempt: how long it may take; how long one that is alone stays, for a few looks of the host's, which where they
# take long is twice as long; and how long the others do.
_LIMIT_MS, _EACH_MS, _HOLD_MS = 2500, 200, 300_000
_MOST_PATIENCE = 2.0
_START_S, _STALL_S, _LOOK_S = 60.0, 6.0, 0.03
# A packet waits in its kernel until it is known which card it is for, which is asked again each second.
_ON_ITS_WAY_S = 2.5
_MOST_INSTANCES = 12
# All of an attack, by the host's clock: some ten times what one takes that goes well.
BUDGET_S = 150.0
# Processors that idle for this part of the time are had by whoever wants more, unless a limit keeps it from them.
_IDLE = 0.1
_ALONE = "resources"


class Attempt(Struct, frozen=True):
    """A probe that is to be made, its number in the attack, and what its words are filled with."""

    probe: Probe
    index: int
    fills: dict[str, str]

    @property
    def words(self) -> tuple[str, ...]:
        """What the program is called with."""
        filled = (word.format_map(self.fills) for word in self.probe.words)
        return ("--alone" if self.is_alone else "--", str(self.index), self.probe.name, *filled)

    @property
    def is_alone(self) -> bool:
        """Whether nothing of others may be left of it: it takes what they need."""
        return self.probe.kind == _ALONE


class _Watched(Struct):
    """What is known of the attempts of an instance so far, by number."""

    seen: dict[int, Seen]
    clocks: dict[int, dict[int, float]]
    used: dict[int, float]
    held_back: dict[int, bool]
    begun: dict[str, _Took]
    unseen_s: dict[int, float]
    looked_s: float
    missed: set[int] = field(default_factory=set)


class _Took(Struct, frozen=True):
    """When it was looked (CLOCK_MONOTONIC, seconds), and what the instance had used then: processor time, in how many
    periods its quota had held it back and, where no cgroup says that, how long processors had been idle."""

    at_s: float
    used_ns: int = 0
    held_back: int = 0
    idle_s: float = 0.0

    def was_held_back(self, before: _Took) -> bool:
        """Return whether a limit held it back since ``before``, so that processors were idle or its cgroup counted
        that."""
        return self.held_back > before.held_back or self.idle_s - before.idle_s > _IDLE * (self.at_s - before.at_s)


def attack(
    platform: Platform,
    rung: Rung | None,
    lab: Lab,
    image: Image,
    lease: Path,
    tell: Callable[[str], None] = lambda line: None,
    *,
    probes: Sequence[Probe] | None = None,
    application: int = APPLICATION,
    is_over: Callable[[], bool] = lambda: False,
    budget_s: float = BUDGET_S,
) -> tuple[Outcome, ...]:
    """Run the probes (all without ``probes``) on a platform that has been prepared with the ``image`` of
    testbed.probes.image among its images; call it in the lab. ``lease`` is the run's directory. ``rung`` says what was
    meant; None for a peer or a machine. No two attacks at a time have the same ``application``. What has not been tried
    after ``budget_s``, times the platform's patience, is untestable, which says so.

    Raises TestbedError when no instance can be started at all, and soon after it ``is_over``; what a probe does to its
    instance is an outcome.
    """
    wanted = read_probes() if probes is None else tuple(probes)
    link = lab.link(application, 0)
    token = secrets.token_hex(4)
    hostname = f"probed-{token}"
    limits = choose_limits(platform)
    place = Place(
        lease,
        token,
        str(link.address.network.network_address + 1),
        str(link.address.ip),
        hostname,
        shares_directories(platform),
        getattr(platform, "host_root", ""),
        cgroup_name(lease.name, SERVICE),
        limits.memory_bytes or 0,
        limits.pids or 0,
        limits.cpus or 0.0,
        platform.patience,
    )
    outcomes: dict[str, Outcome] = {}
    with Canaries(place) as canaries:
        attempts = []
        for index, probe in enumerate(wanted):
            try:
                attempts.append(Attempt(probe, index, canaries.fill(probe, index)))
            except Untestable as problem:
                outcomes[probe.name] = set_aside(probe, platform.name, rung, str(problem))
        attacker = _Attacker(platform, rung, lab, image, application, canaries, tell, is_over, budget_s)
        outcomes |= attacker.make_all(sorted(attempts, key=lambda one: not one.is_alone))
    return tuple(outcomes[probe.name] for probe in wanted)


def count(outcomes: Sequence[Outcome]) -> tuple[Counted, ...]:
    """Count the verdicts on each rung, in the order of the rungs' first outcomes."""
    rungs = dict.fromkeys(one.rung for one in outcomes)
    counts = {rung: Counter(one.verdict for one in outcomes if one.rung == rung) for rung in rungs}
    return tuple(Counted(rung, {verdict: counts[rung][verdict] for verdict in VERDICTS}) for rung in rungs)


def choose_limits(platform: Platform) -> Resources:
    """Return the limits of an instance that is attacked: what a hypervisor caps boots with a part of a processor."""
    return MACHINE_LIMITS if platform.virtual and not isinstance(platform, Metered) else LIMITS


def shares_directories(platform: Platform) -> bool:
    """Return whether an instance can be given a directory of the host's."""
    if platform.virtual or platform.name in ("docker", "libvirt-lxc", "vm-containers"):
        return False
    return platform.name not in PEERS or isinstance(PEERS[platform.name], OciPeer)


def _make_instance(
    platform: Platform,
    image: Image,
    name: str,
    hostname: str,
    lab: Lab,
    application: int,
    args: tuple[str, ...],
    folder: Path,
    mounts: tuple[Mount, ...] = (),
) -> Instance:
    process = Process(args=(PROGRAM, *args))
    layers = directories(image.layers)
    spec = Spec(process, layers, hostname, choose_limits(platform), lab.link(application, 0), mounts=mounts)
    return Instance(name, application, {SERVICE: spec}, folder / f"{name}.log")


class _Attacker:
    """Makes attempts in instances of one platform."""

    def __init__(
        self,
        platform: Platform,
        rung: Rung | None,
        lab: Lab,
        image: Image,
        application: int,
        canaries: Canaries,
        tell: Callable[[str], None],
        is_over: Callable[[], bool],
        budget_s: float,
    ) -> None:
        self._is_over = is_over
        self._budget_s = budget_s * platform.patience
        self._end_s = time.monotonic() + self._budget_s
        self._platform, self._rung, self._lab, self._image = platform, rung, lab, image
        self._application, self._canaries, self._tell = application, canaries, tell
        self._started = 0
        self._unseen: list[Attempt] = []

    def make_all(self, attempts: Sequence[Attempt]) -> dict[str, Outcome]:
        """Make the attempts and return their outcomes; those of which a busy host saw too little are made once more."""
        outcomes = self._make_each(attempts)
        if unseen := self._unseen:
            self._unseen = []
            outcomes |= self._make_each(unseen)
        return outcomes

    def _make_each(self, attempts: Sequence[Attempt]) -> dict[str, Outcome]:
        """Make each once: those that an instance did not come to are made in the next."""
        outcomes: dict[str, Outcome] = {}
        left = list(attempts)
        while left:
            try:
                made, why = self._make_some(left), f"{self._started} instances ended before it came to its turn"
            except TestbedError as error:
                if not outcomes or self._is_over():
                    raise
                made, why = {}, str(error).splitlines()[0]
            outcomes |= made
            left = [one for one in left if one.probe.name not in outcomes]
            if is_late := time.monotonic() > self._end_s:
                why = f"the attack was not finished within {self._budget_s:.0f} s"
            elif not outcomes:
                raise TestbedError(f"attack {self._platform.name}: nothing was printed", "see ./invoke doctor")
            if is_late or not made or self._started >= _MOST_INSTANCES:
                for one in left:
                    outcomes[one.probe.name] = set_aside(one.probe, self._platform.name, self._rung, why)
                break
        return outcomes

    def _make_some(self, attempts: Sequence[Attempt]) -> dict[str, Outcome]:
        place, platform = self._canaries.place, self._platform
        self._started += 1
        limit_ms = round(_LIMIT_MS * platform.patience)
        words = [word for one in attempts for word in one.words]
        each_ms = round(_EACH_MS * min(max(platform.patience, 1.0), _MOST_PATIENCE))
        args = ("run", place.token, str(limit_ms), str(each_ms), str(_HOLD_MS), *words)
        if isinstance(platform, Saving):  # what is saved has another name, and waits
            args = ("await", place.hostname, place.own, *args)
        mounts = (Mount(VOLUME, "bind", str(place.volume), ("bind", "rw")),) if place.shares else ()
        name = f"{SERVICE}{self._started}-{place.token}"
        instance = _make_instance(
            platform, self._image, name, place.hostname, self._lab, self._application, args, place.folder, mounts
        )
        if isinstance(platform, Saving):
            platform.save_for(instance)
        with ExitStack() as undo:
            undo.callback(platform.stop, instance)
            with defer_signals():
                platform.start(instance)
            left_s = max(self._end_s - time.monotonic(), 0.0)
            platform.started(instance, min(_START_S * platform.patience, left_s))
            watched = _Watched({}, {}, {}, {}, {}, {}, time.monotonic())
            printed = self._follow(instance, attempts, watched)
            return self._judge(attempts, printed, watched)

    def _follow(self, instance: Instance, attempts: Sequence[Attempt], watched: _Watched) -> Printed:
        """Watch the attempts until all are over, the instance has ended or nothing goes on."""
        names = {one.probe.name: one.index for one in attempts}
        patience_s = _STALL_S * self._platform.patience
        moved_s, known = time.monotonic(), 0
        printed = Printed({}, False)
        while True:
            if self._is_over():
                raise TestbedError(f"attack {self._platform.name}: it was interrupted")
            alive = self._platform.alive(instance)
            if not alive:
                self._platform.ending(instance)  # its last lines are in the log then
            self._canaries.tick()
            printed = parse_lines(read_printed(instance.log), names, self._canaries.place.token)
            self._note(instance, printed, names, watched)
            lines = sum(2 if one.state != "begun" else 1 for one in printed.traces.values())
            if lines != known:
                moved_s, known = time.monotonic(), lines
            now_s = time.monotonic()
            if printed.done or not alive or now_s - moved_s > patience_s or now_s > self._end_s:
                self._look(names.values(), watched)
                self._await_packets(attempts, printed)
                self._canaries.settle()
                return printed
            time.sleep(_LOOK_S)

    def _await_packets(self, attempts: Sequence[Attempt], printed: Printed) -> None:
        """Wait for packets that a machine's kernel has taken and nobody has seen yet."""
        taken = {name for name, trace in printed.traces.items() if not trace.errno}
        sent = [one.fills["token"] for one in attempts if one.probe.canary == PACKET and one.probe.name in taken]
        deadline_s = time.monotonic() + (_ON_ITS_WAY_S if self._platform.virtual else 0.0)
        while time.monotonic() < deadline_s and not all(map(self._canaries.wire.has_seen, sent)):
            time.sleep(_LOOK_S)
            self._canaries.tick()

    def _note(self, instance: Instance, printed: Printed, names: dict[str, int], watched: _Watched) -> None:
        running = [names[one.name] for one in printed.traces.values() if one.state == "begun"]
        over: list[int] = []
        now = None
        for trace in printed.traces.values():
            index = names[trace.name]
            if trace.name not in watched.begun:
                now = now or self._read_taken(instance)
                watched.begun[trace.name] = now
            if trace.state != "begun" and index not in watched.clocks:
                watched.clocks[index] = {number: time.clock_gettime(number) for number in (0, 1, 7)}
                watched.unseen_s[index] = time.monotonic() - watched.looked_s
                before, after = watched.begun[trace.name], self._read_taken(instance)
                took_s = max(after.at_s - before.at_s, _LOOK_S)
                watched.used[index] = (after.used_ns - before.used_ns) / took_s / 1e9
                watched.held_back[index] = after.was_held_back(before)
                over.append(index)
        watched.looked_s = time.monotonic()
        there = self._look((*running, *over), watched)
        if not self._platform.virtual:
            watched.missed.update(index for index in over if index not in there)

    def _read_taken(self, instance: Instance) -> _Took:
        try:
            if isinstance(self._platform, Metered):
                host = self._platform.read_host()
                idle_s = (host.total_ticks - host.busy_ticks - host.steal_ticks) / CLOCK_TICKS_PER_S
                return _Took(time.monotonic(), self._platform.meter(instance).cpu_usage_ns(), idle_s=idle_s)
            cgroup = self._platform.cgroup(instance)
            return _Took(time.monotonic(), cgroup.cpu_usage_ns(), cgroup.throttling().throttled)
        except OSError:
            return _Took(time.monotonic())

    def _look(self, indices: Iterable[int], watched: _Watched) -> frozenset[int]:
        wanted = tuple(indices)
        if wanted and not self._platform.virtual:
            return look(self._canaries.place.token, wanted, watched.seen)
        return frozenset()

    def _judge(self, attempts: Sequence[Attempt], printed: Printed, watched: _Watched) -> dict[str, Outcome]:
        outcomes = {}
        for one in attempts:
            trace = printed.traces.get(one.probe.name)
            if trace is None:
                continue
            outcomes[one.probe.name] = outcome = self._judge_one(one, trace, watched)
            if outcome.verdict in ("leaked", "broken"):
                self._tell(f"  {outcome.rung}: {outcome.probe}: {outcome.verdict}: {outcome.words}")
        return outcomes

    def _was_held(self, one: Attempt, evidence: Evidence, watched: _Watched) -> bool:
        """Whether an attempt on processor time came up against its limit: that of a machine is its processors."""
        limits = choose_limits(self._platform)
        is_full = limits is MACHINE_LIMITS and evidence.used_processors > _GIVEN * (limits.cpus or 0.0)
        return is_full or watched.held_back.get(one.index, False)

    def _judge_one(self, one: Attempt, trace: Trace, watched: _Watched) -> Outcome:
        evidence = Evidence(
            one.fills,
            trace,
            watched.seen.get(one.index),
            watched.clocks.get(one.index, {}),
            watched.used.get(one.index, 0.0),
            watched.unseen_s.get(one.index, 0.0),
        )
        reached = find_reached(self._canaries, one.probe.canary, evidence)
        if one.probe.canary == PROCESSORS and not reached and not self._was_held(one, evidence, watched):
            why = f"the host had {evidence.used_processors:.2f} processors for it, and no quota held it back"
            self._unseen.append(one)
            return set_aside(one.probe, self._platform.name, self._rung, why)
        if not reached and trace.state == "ended" and not trace.errno and one.index in watched.missed:
            why = "the kernel answered it, and it had gone before this busy host looked at it"
            self._unseen.append(one)
            return set_aside(one.probe, self._platform.name, self._rung, why)
        return judge(one.probe, self._platform.name, self._rung, trace, reached)
