"""A history, probes and a record of the ladder, made up for tests: small, with one of everything that a page shows."""

from __future__ import annotations

from testbed.ladder.model import Cost, Ladder, Missing, Pressure, Snippet, StepCost
from testbed.probes.model import Intention, Outcome, Probe, Verdict
from testbed.rungs.model import CLASSES, FEATURES, Cell, Explained, History, Isolation, Rung, Source, Statement

_WALL = {
    "files": "root", "processes": "pid", "signals": "pid", "network": "network", "names": "uts", "time": "time",
    "users": "user", "devices": "devices", "mounts": "mount", "kernel_settings": "masks",
    "kernel_interfaces": "seccomp", "memory": "limits", "resources": "limits", "covert": "kernel",
}  # fmt: skip
PROBES = tuple(
    Probe(
        f"{kind}-{number}", kind, f"It tries way {number} of {kind.replace('_', ' ')}.",
        "Whoever can do that can see what others do.", _WALL[kind], "file", ("try", kind, "{path}"),
    )
    for kind in CLASSES
    for number in range(1, 7)
)  # fmt: skip
SOURCES = {
    "poh": Source("poh", "Jails: Confining the omnipotent root", "P.-H. Kamp, R. N. M. Watson", "SANE", 2000,
                  "https://papers.freebsd.org/2000/phk-jails/", "read", "section 5"),
    "man": Source("man", "chroot(2)", "The NetBSD Project", "manual page", 1982, "", "cited", "not at hand"),
}  # fmt: skip


def make_rung(name: str, title: str, year: int, *, walls: int = -1, platform: str = "", machine: bool = False) -> Rung:
    """One that has as many features as ``walls`` says, out of all; below 0 it is only told of."""
    cells = {
        feature: Cell(
            "own, by the kernel's table" if at < walls else "the host's", ("poh", "man")[at % 2],
            "Linux has no such call; a cgroup filter stands for it" if at == walls else "",
        )
        for at, feature in enumerate(FEATURES)
    }  # fmt: skip
    return Rung(
        name, title, year, "machines" if machine else "containers",
        f"{title} was the first that let a whole group of programs believe that it had a computer of its own.",
        cells, Isolation("chroot") if walls >= 0 and not platform else None, platform,
        forbids=(Statement(("files", "processes"), "poh", "neither files nor processes of others"),),
        permits=(Statement(("network",), "man", "all of its own network"),),
        leaves=(Statement(("time",), "man", "the clock is for its owner to set"),),
        explains={"files-2": Explained("It was found a year later.", "poh")}, needs="root",
    )  # fmt: skip


RUNGS = (
    make_rung("process", "A process", 1970, walls=0, platform="process"),
    make_rung("chroot-1982", "chroot", 1982, walls=1),
    make_rung("jail-2000", "FreeBSD jail", 2000, walls=4),
    make_rung("vserver-2001", "Linux-VServer", 2001, walls=5),
    make_rung("zones-2005", "Solaris Zones", 2005, walls=7),
    make_rung("openvz-2005", "OpenVZ", 2005, walls=8),
    make_rung("lxc-2008", "LXC", 2008, walls=8),
    make_rung("lmctfy-2013", "lmctfy", 2013, walls=3),
    make_rung("docker-2013", "Docker", 2013, walls=9),
    make_rung("container", "A container of ours", 2025, walls=10, platform="container"),
    make_rung("sandboxed", "A sandbox of today", 2025, walls=11),
    make_rung("cp-67", "CP-67", 1967, machine=True),
    make_rung("emulated-1988", "SoftPC", 1988, walls=12, platform="vm-emulated", machine=True),
    make_rung("paravirtual-2003", "Xen", 2003, walls=12, platform="xen", machine=True),
    make_rung("hardware-2006", "KVM", 2006, walls=12, platform="vm", machine=True),
)
HISTORY = History(tuple(sorted(RUNGS, key=lambda one: one.year)), SOURCES)
RUN = (*(one.name for one in HISTORY.rungs if one.runs and one.side == "containers"), "hardware-2006")
PLATFORMS = ("crun", "runc", "bwrap")


def _outcome(name: str, strength: int, at: int, probe: Probe) -> Outcome:
    verdict: Verdict = "blocked" if at % 12 < strength else "permitted"
    intention: Intention = "unsaid"
    if name == "jail-2000" and probe.name in ("files-1", "files-2"):
        verdict, intention = "leaked", "forbidden"
    elif (name, probe.name) == ("jail-2000", "network-2"):
        verdict, intention = "broken", "permitted"
    elif probe.kind == "covert":
        verdict = "untestable"
    return Outcome(name, probe.name, verdict, intention, "EPERM" if verdict == "blocked" else "", "its file is there")


def make_ladder() -> Ladder:
    """A run of all of it, with six trials of each figure."""
    strength = {one.name: sum(cell.had.startswith("own") for cell in one.cells.values()) for one in RUNGS}
    names = (*RUN, *PLATFORMS)
    outcomes = [_outcome(name, strength.get(name, 9), at, probe) for name in names for at, probe in enumerate(PROBES)]
    costs, steps = [], []
    for number, name in enumerate(names):
        slow = 400.0 if name == "hardware-2006" else 1.0 + number
        figures = {
            "start_s": 0.001 * slow, "memory_bytes": 2.0e5 * slow, "syscall_ns": 90.0 + 9 * number,
            "fork_us": 80.0 + number, "round_trip_us": 20.0 + number, "requests_per_s": 2200.0 - 20 * number,
            "copies": 4000.0 / slow,
        }  # fmt: skip
        costs += [
            Cost(name, metric, tuple(value * (1 + 0.02 * trial) for trial in range(6)))
            for metric, value in figures.items()
        ]
        if name not in PLATFORMS and name != "hardware-2006":
            for step, part, took in (
                ("mkdir /sys/fs/cgroup/testbed/x", "cgroup", 60.0),
                ("clone3 with new namespaces: mount, pid", "namespaces", 180.0 + 40 * number),
                ("mount overlay on /", "mounts", 90.0 + 10 * number),
                ("execve /testbed-gauge", "exec", 300.0),
            ):
                steps.append(StepCost(name, step, part, (took, took * 1.1, took * 0.9)))
    for kind in ("none", "pid"):
        steps.append(StepCost("", f"clone3 with a new namespace: {kind}", "namespaces", (50.0, 52.0)))
    pressures = [
        Pressure(name, attack, attack != "fork_bomb" or number > 3, f"its neighbour did {90 - number} % of its work",
                 {"neighbour_share": 0.9})
        for attack in ("fork_bomb", "memory_hog", "disk_filler")
        for number, name in enumerate(RUN)
    ]  # fmt: skip
    return Ladder(
        id="20261126T210000Z-ladder-abcd", started="2026-11-26T21:00:00+00:00",
        host={"kernel": "6.1.0", "processors": "2"}, rungs=RUN, platforms=PLATFORMS, outcomes=tuple(outcomes),
        costs=tuple(costs), steps=tuple(steps), pressures=tuple(pressures),
        missing=(Missing("paravirtual-2003", "no Xen here"),),
        snippets=(Snippet("chroot, as 4.4BSD had it", 1993, ("chroot /tmp/root /bin/ls /",),
                          "$ chroot /tmp/root /bin/ls /\nbin\netc\n", 0,
                          "Only the root directory changes."),),
        labels={"hardware-2006": "vm (TCG, emulated)"}, emulated=("hardware-2006",), took_s=171.0,
    )  # fmt: skip
