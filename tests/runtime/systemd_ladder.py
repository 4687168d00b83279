"""What is checked of the ladder on a host with systemd, where the whole tree is shared and there is cgroup v2 alone: an
attack comes to what it comes to elsewhere, a rung is priced and put under pressure, and the host's mounts and cgroups
stay as they were. See ``systemd_checks``."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from runtime.images.model import Image, ImageConfig, Layer
from runtime.launcher.times import time_steps
from runtime.lease import lease
from testbed.lab import Lab
from testbed.ladder.costs import list_steps
from testbed.ladder.gauge import Gauge, make_instance
from testbed.ladder.model import Pressure
from testbed.ladder.pressure import press
from testbed.platforms.rungs.platform import RungPlatform
from testbed.probes.read import read_probes
from testbed.rungs.read import find_rung
from tests.runtime.systemd_applications import on_a_host_unchanged
from tests.testbed.ladder.walls import (
    CONTAINER,
    OPEN,
    RUNG,
    attacking,
    choose_probes,
    find_expected,
    find_impossible,
    find_leaked,
)

# The layer with the programs that attack, are priced and take what they can get.
PROBES = Path("/layers/probes")
IMAGE, GAUGE, NEIGHBOUR = (
    Image(f"testbed/{name}", "sha256:0", ImageConfig(entrypoint=(f"/testbed-{name}",)), (Layer("sha256:1", PROBES),))
    for name in ("probe", "gauge", "neighbour")
)
RUN = "ladder-checks"


@on_a_host_unchanged
def a_whole_container_leaks_nothing() -> None:
    """With users that are mapped, too, which the layers' file system does."""
    mapped = replace(RUNG, isolation=replace(CONTAINER, namespaces=(*CONTAINER.namespaces, "user")))
    with lease(RUN), attacking(IMAGE, RUN) as attacked:
        outcomes = attacked("rung", mapped, read_probes())
    assert find_leaked(outcomes) == set(), find_leaked(outcomes)
    wrong = {name for name in OPEN if outcomes[name].verdict == "blocked"} - {
        one.name for one in read_probes() if one.wall == "user"
    }
    assert wrong == set(), wrong
    said = {name: one.words for name, one in outcomes.items() if one.verdict == "untestable"}
    assert all(words.startswith(("this kernel has no /", "this host ", "the host ")) for words in said.values()), said


@on_a_host_unchanged
def without_three_walls_exactly_their_probes_leak() -> None:
    """Among them the one that leaves its group, on a hierarchy that is the only one."""
    walls = ("cgroup", "capabilities", "seccomp")
    probes = choose_probes(walls)
    with lease(RUN), attacking(IMAGE, RUN) as attacked:
        outcomes = attacked("rung", RUNG, probes, without=walls)
    expected = find_expected(walls, probes) - find_impossible(outcomes, walls)
    assert find_leaked(outcomes) == expected, find_leaked(outcomes) ^ expected
    assert "resources-leave-group" in expected


@on_a_host_unchanged
def one_address_of_the_hosts_is_held() -> None:
    """By programs of the one hierarchy that there is, which systemd has, too: nothing leaks but what is known."""
    rung = find_rung("jail-2000")
    probes = [one for one in read_probes() if one.kind == "network"]
    with lease(RUN), attacking(IMAGE, RUN) as attacked:
        whole, without = attacked("rung", rung, probes), attacked("rung", rung, probes, without=("address",))
    assert {name for name, one in whole.items() if one.verdict == "leaked"} <= rung.explains.keys(), whole
    leaked = {name for name, one in without.items() if one.verdict == "leaked"}
    assert {"network-take-host-address", "network-take-loopback"} <= leaked, leaked


def price_and_press(name: str, attacks: tuple[str, ...]) -> tuple[Pressure, ...]:
    """What the attacks did on a rung, whose start was taken apart before; raises AssertionError when it was not."""
    with lease(RUN) as scratch, Lab() as lab:
        platform = RungPlatform(find_rung(name), RUN, scratch, lab)
        try:
            platform.prepare_rung()
            instance = make_instance("gauge", 0, GAUGE, lab.link(0, 0), scratch / "gauge.log")
            with time_steps() as times, Gauge(platform, instance, 60.0) as gauge:
                assert gauge.started_s > 0 and (gauge.read_memory_bytes() or 0) > 0 and gauge.ask("forks 3") > 0
            assert {"launcher", "cgroup", "exec"} <= {step.part for step in list_steps(times)}
            pressures, untried = press(platform, name, lab, IMAGE, NEIGHBOUR, scratch, attacks=attacks)
            assert not untried, untried
            return pressures
        finally:
            platform.close()


@on_a_host_unchanged
def rungs_are_priced_and_put_under_pressure() -> None:
    """One with an address of the host's and a quota, and one with users that are mapped, on layers that are."""
    (disk,) = price_and_press("vserver-2001", ("disk",))
    assert disk.figures["refused"] > 0 == disk.figures["killed"], disk
    (fork,) = price_and_press("rootless", ("fork",))
    assert fork.held and fork.figures["refused"] > 0, fork


CHECKS = (
    a_whole_container_leaks_nothing,
    without_three_walls_exactly_their_probes_leak,
    one_address_of_the_hosts_is_held,
    rungs_are_priced_and_put_under_pressure,
)
