"""What runtimes keep a container from: the probes of the ladder on peers, beside Docker's rung of 2013 and a container.

    sudo .venv/bin/python benchmarks/isolation.py [--platforms crun,runc,podman,nspawn,bwrap,lxc] [--json]

Each is attacked from inside with the same probes, one after the other; those that are not installed are named. Of peers
nobody is asked what they meant: a probe was done or it was not. Those that a container of ours keeps and another does
not, or the other way round, are listed by the wall that keeps them, beside what the host sees of that wall on both: the
capabilities that are there, whether there is a filter, which namespaces are the host's. A peer that is given our own
configuration (crun, runc) is measured by what it makes of it; the others by their own defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.command import perform  # noqa: E402
from runtime.cgroups import hierarchies  # noqa: E402
from runtime.errors import PrerequisiteError, TestbedError  # noqa: E402
from runtime.home import store_root  # noqa: E402
from runtime.images.model import Image  # noqa: E402
from runtime.images.store import Store  # noqa: E402
from runtime.kernel_files import parse_fields  # noqa: E402
from runtime.lease import lease  # noqa: E402
from runtime.plan.constants import CAPABILITIES  # noqa: E402
from runtime.spec import Process, Spec  # noqa: E402
from testbed.lab import Lab  # noqa: E402
from testbed.ladder.attack import LIMITS, attack  # noqa: E402
from testbed.platforms import registry  # noqa: E402
from testbed.platforms.peers.platform import PeerPlatform  # noqa: E402
from testbed.platforms.protocol import Instance, Platform  # noqa: E402
from testbed.platforms.rungs.platform import RungPlatform  # noqa: E402
from testbed.probes.image import PROGRAM, ensure_probe_image  # noqa: E402
from testbed.probes.model import Outcome  # noqa: E402
from testbed.probes.read import read_probes  # noqa: E402
from testbed.probes.sight import KINDS, find_mounts  # noqa: E402
from testbed.rungs.read import find_rung  # noqa: E402

PEERS = ("crun", "runc", "podman", "nspawn", "bwrap", "lxc")
BESIDE = ("docker-2013", "container")
APPLICATION = 62
_NAMESPACES = {"net": "network"}
_HIDDEN, _PROTECTED = ("/proc/keys", "/proc/kcore"), ("/proc/sys", "/sys")


class Result(Struct, frozen=True):
    """What came of a platform: its probes that were done and that were kept, those of which nothing can be known, and
    what the host sees of each wall."""

    name: str
    done: tuple[str, ...]
    kept: tuple[str, ...]
    untestable: tuple[str, ...]
    walls: Mapping[str, str]


def watch_walls(name: str, timeout_s: float = 20.0) -> dict[str, str]:
    """Return what the host sees of the walls of the process of this name. Raises TestbedError."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        for entry in Path("/proc").iterdir():
            with suppress(OSError):  # it has just ended
                if entry.name.isdigit() and (entry / "comm").read_text().rstrip() == name:
                    return dict(describe_walls(entry))
        time.sleep(0.05)
    raise TestbedError(f"find the process {name}: it is not there", "see ./invoke doctor")


def describe_walls(process: Path) -> Iterator[tuple[str, str]]:
    """Yield each wall of a process with what the host sees of it."""
    fields = parse_fields((process / "status").read_text())
    bounding = int(fields["CapBnd"], 16)
    held = [name.removeprefix("CAP_").lower() for at, name in enumerate(CAPABILITIES) if bounding >> at & 1]
    yield "capabilities", " ".join(held) or "none"
    yield "seccomp", "a filter" if fields.get("Seccomp") == "2" else "none"
    yield "no_new_privileges", "set" if fields.get("NoNewPrivs") == "1" else "not set"
    for kind in KINDS:
        own = os.readlink(process / "ns" / kind) != os.readlink(f"/proc/self/ns/{kind}")
        yield _NAMESPACES.get(kind, kind), "its own" if own else "the host's"
    if (devices := read_group(process, "devices", "devices.list")) is not None:
        yield "devices", "all" if devices.startswith("a ") else "a list"
    mounts = (process / "mountinfo").read_text().splitlines()
    covered = [path for path in _HIDDEN if find_mounts(mounts, path)]
    covered += [path for path in _PROTECTED if any("ro" in one.split(",") for one, _, _ in find_mounts(mounts, path))]
    yield "masks", " ".join(covered) or "none"


def read_group(process: Path, controller: str, file: str) -> str | None:
    """Return what a file of cgroup v1 says of the group that a process is in; None where that cannot be read."""
    mount = hierarchies().v1.get(controller)
    for line in (process / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if mount is not None and controller in controllers.split(","):
            with suppress(OSError):
                return Path(f"{mount}{path}/{file}").read_text()
    return None


def see_walls(platform: Platform, lab: Lab, image: Image, scratch: Path) -> dict[str, str]:
    """Start a process that waits, and return what the host sees of its walls."""
    token = secrets.token_hex(4)
    name, attempt = f"walls-{token}", ("--", "0", "users-hosts-root", "nothing")
    layers = tuple(str(layer.path) for layer in image.layers)
    spec = Spec(
        Process(args=(PROGRAM, "run", token, "2500", "0", "60000", *attempt)),
        layers,
        "walls",
        LIMITS,
        lab.link(APPLICATION, 0),
    )
    instance = Instance(name, APPLICATION, {"walls": spec}, scratch / f"{name}.log")
    with ExitStack() as undo:
        undo.callback(platform.stop, instance)
        platform.start(instance)
        platform.started(instance, 60.0)
        return watch_walls(f"{token}-0")


def measure(name: str, run: str, lab: Lab, image: Image, scratch: Path) -> Result:
    """Attack one platform. Raises PrerequisiteError where it is not here."""
    with ExitStack() as undo:
        platform = registry.create(name, run, scratch, lab)
        undo.callback(platform.close)
        if isinstance(platform, RungPlatform):
            platform.prepare_rung()
        elif isinstance(platform, PeerPlatform):
            platform.prepare_program()
        rung = find_rung(name) if name in BESIDE else None
        outcomes = attack(platform, rung, lab, image, scratch)
        return sort_outcomes(name, outcomes, see_walls(platform, lab, image, scratch))


def sort_outcomes(name: str, outcomes: Sequence[Outcome], walls: Mapping[str, str]) -> Result:
    """Sort the probes by whether they were done, whoever meant what."""
    kinds = (("leaked", "permitted"), ("blocked", "broken"), ("untestable",))
    done, kept, untestable = (tuple(one.probe for one in outcomes if one.verdict in kind) for kind in kinds)
    return Result(name, done, kept, untestable, walls)


def explain_wall(wall: str, one: Result, ours: Result) -> str:
    """Return what differs of a wall; of capabilities, which are there on one side only."""
    theirs, own = one.walls.get(wall), ours.walls.get(wall)
    if theirs is None or own is None:
        return "not seen from outside"
    if wall == "capabilities":
        more, less = set(theirs.split()) - set(own.split()), set(own.split()) - set(theirs.split())
        said = [f"{word} {' '.join(sorted(names))}" for word, names in (("more:", more), ("less:", less)) if names]
        return "; ".join(said) or "the same"
    return "the same" if theirs == own else f"{theirs}, ours: {own}"


def print_differences(one: Result, ours: Result) -> None:
    """Print by wall which probes differ from those of a container of ours, and what differs of the wall."""
    probes = {probe.name: probe for probe in read_probes()}
    for word, names in (
        ("done there, and not in a container of ours", [name for name in one.done if name in ours.kept]),
        ("kept there, and not by a container of ours", [name for name in one.kept if name in ours.done]),
    ):
        by_wall: dict[tuple[str, ...], list[str]] = {}
        for name in names:
            probe = probes[name]
            by_wall.setdefault((probe.wall, *probe.also), []).append(name)
        if by_wall:
            print(f"  {word}:")
        for walls, those in by_wall.items():
            reasons = "; ".join(f"{wall or 'none'}: {explain_wall(wall, one, ours)}" for wall in walls)
            print(f"    {', '.join(those)}\n      {reasons}")


def main() -> None:
    """Attack all that are here, and print the counts and the differences."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--platforms", default=",".join(PEERS), help="comma-separated peers")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        raise PrerequisiteError("benchmarks/isolation.py needs root", "run it with sudo")
    run = f"isolation-{os.getpid()}"
    image = ensure_probe_image(Store(store_root() / "images"), lambda line: None)
    results, missing = [], {}
    with lease(run) as scratch, Lab() as lab:
        for name in dict.fromkeys((*BESIDE, *chosen.platforms.split(","))):
            print(f"attacking {name}", file=sys.stderr)
            try:
                results.append(measure(name, run, lab, image, scratch))
            except TestbedError as error:
                missing[name] = error.message.splitlines()[0]
    if chosen.json:
        print(json.dumps({"results": [asdict(one) for one in results], "missing": missing}, indent=1))
        return
    print(f"{'':<14}{'kept':>6}{'done':>6}{'untestable':>12}")
    for one in results:
        print(f"{one.name:<14}{len(one.kept):>6}{len(one.done):>6}{len(one.untestable):>12}")
    ours = next((one for one in results if one.name == "container"), None)
    for one in results if ours is not None else ():
        if ours is not None and one is not ours:
            print(f"\n{one.name}")
            print_differences(one, ours)
    for name, why in missing.items():
        print(f"\nwithout {name}: {why}")


if __name__ == "__main__":
    perform(main)
