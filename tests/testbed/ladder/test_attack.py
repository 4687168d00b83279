"""An attack for real: on a container of ours, where every wall stands, and on a bare process, where there is none."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.images.model import Image
from testbed import leftovers
from testbed.ladder.attack import _Took, count
from testbed.probes.model import Outcome, Probe
from testbed.probes.objects import read_left
from testbed.probes.read import read_probes
from testbed.rungs.model import CLASSES, Rung, Statement
from tests.waiting import until

pytestmark = pytest.mark.root
Attack = Callable[..., dict[str, Outcome]]
ROOT = Path(__file__).resolve().parents[3]


def rung(**words: tuple[str, ...]) -> Rung:
    said = {key: (Statement(of, "ours", "as it is tested here"),) for key, of in words.items()}
    return Rung("container", "Container", 2026, "containers", "ours", {}, **said)  # type: ignore[arg-type]


def test_a_container_of_ours_keeps_what_its_walls_are_to_keep(attacked: Attack) -> None:
    probes = read_probes()
    open_ = {probe.name for probe in probes if probe.wall in ("", "user", "time", "kernel", "landlock", "quota")}
    outcomes = attacked("container", rung(forbids=CLASSES, permits=tuple(open_)), None)
    assert list(outcomes) == [probe.name for probe in probes]
    wrong = [one for one in outcomes.values() if one.verdict in ("leaked", "broken")]
    assert wrong == []
    blocked = {one.probe for one in outcomes.values() if one.verdict == "blocked"}
    untestable = {one.probe: one.words for one in outcomes.values() if one.verdict == "untestable"}
    assert blocked == {probe.name for probe in probes} - open_ - untestable.keys()
    assert all(words.startswith(("this kernel has no /", "the host ")) for words in untestable.values())
    (counted,) = count(tuple(outcomes.values()))
    assert counted.rung == "container" and sum(counted.verdicts.values()) == len(probes)
    assert counted.verdicts["leaked"] == 0


def test_a_bare_process_reaches_what_the_same_canaries_keep_from_a_container(attacked: Attack) -> None:
    outcomes = attacked("process", rung(forbids=CLASSES), None)
    leaked = {one.probe for one in outcomes.values() if one.verdict == "leaked"}
    assert leaked >= {
        *("files-second-chroot", "files-root-of-process", "processes-trace", "signals-pidfd", "network-join-host"),
        *("names-host", "names-host-file", "time-adjust", "users-setuid-program", "devices-disk-write"),
        *("mounts-memory", "settings-write", "interfaces-bpf", "memory-message", "memory-add-key", "covert-locks"),
    }
    kept = {probe.name for probe in read_probes() if probe.wall in ("network", "limits")}
    assert not leaked & kept, "it has an address of its own, and limits"


@pytest.mark.parametrize(
    ("after", "held"),
    [
        (_Took(11.0, 500_000_000, held_back=1), True),  # its cgroup says so
        (_Took(11.0, 500_000_000, idle_s=3.4), True),  # nobody had what it wanted
        (_Took(11.0, 500_000_000, idle_s=3.05), False),  # others had
        (_Took(11.0, 500_000_000, idle_s=3.0), False),
    ],
)
def test_who_was_held_back_is_told_by_its_cgroup_or_by_what_nobody_used(after: _Took, held: bool) -> None:
    assert after.was_held_back(_Took(10.0, idle_s=after.idle_s and 3.0)) == held


def make_probe(name: str, *words: str) -> Probe:
    return Probe(name, "signals", "Tries.", "It matters.", "pid", "answer", words)


def test_an_attempt_that_hangs_or_crashes_is_told_and_the_run_goes_on(attacked: Attack) -> None:
    probes = [make_probe("a-hang", "hang"), make_probe("a-crash", "crash"), make_probe("a-after", "nothing")]
    outcomes = attacked("container", rung(permits=("a-hang", "a-crash", "a-after")), probes)
    assert [(one.verdict, one.words) for one in outcomes.values()] == [
        ("broken", "it took longer than its time and was ended"),
        ("broken", "it was ended by SIGSEGV"),
        ("permitted", "it could"),
    ]


def test_an_attempt_that_ends_its_rung_is_told_and_the_others_are_made_in_another(attacked: Attack) -> None:
    probes = [make_probe("a-before", "nothing"), make_probe("a-end", "end_runner"), make_probe("a-after", "nothing")]
    outcomes = attacked("process", None, probes)
    assert [(one.verdict, one.words) for one in outcomes.values()] == [
        ("permitted", "it could"),
        ("blocked", "its instance ended with it"),
        ("permitted", "it could"),
    ]


def test_what_does_not_end_in_time_is_told_and_what_was_made_stays(attacked: Attack) -> None:
    probes = [make_probe("a-first", "nothing"), make_probe("b-hang", "hang"), make_probe("c-after", "nothing")]
    outcomes = attacked("container", None, probes, budget_s=1.0)
    assert outcomes["a-first"].verdict == "permitted"
    late = outcomes["c-after"]
    assert late.verdict == "untestable" and "was not finished within" in late.words


_KILLED = """
import sys, time
from pathlib import Path
from runtime.images.model import Image, ImageConfig, Layer
from runtime.lease import lease
from testbed.ladder.attack import attack
from testbed.lab import Lab
from testbed.platforms.container import ContainerPlatform
from testbed.probes.model import Outcome, Probe

run, layer = sys.argv[1], Path(sys.argv[2])
image = Image("testbed/probe", "sha256:0", ImageConfig(), (Layer("sha256:1", layer),))
hang = Probe("a-hang", "signals", "Hangs.", "It matters.", "pid", "answer", ("hang",))
with lease(run) as place, Lab() as lab:
    attack(ContainerPlatform(run, lab), None, lab, image, place, probes=[hang])
"""


def test_what_a_killed_attack_leaves_is_found_and_removed(probe_image: Image, run_name: str, tmp_path: Path) -> None:
    lease = Path("/run/testbed") / run_name
    layer = str(probe_image.layers[0].path)
    process = subprocess.Popen([sys.executable, "-c", _KILLED, run_name, layer], cwd=ROOT)
    try:
        until(lambda: any(log.stat().st_size for log in lease.glob("canaries-*/*.log")), 30, process.poll)
        assert process.poll() is None and read_left(lease)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = tuple(one for one in leftovers.find() if one.run == run_name)
    assert {"canary", "directory"} <= {one.kind for one in left}
    leftovers.remove(left)
    assert [one for one in leftovers.find() if one.run == run_name] == [] and not lease.exists()
