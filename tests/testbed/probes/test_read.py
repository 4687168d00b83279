"""The probes as data: what every one says, and that every mistake in a file is told."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.probes.build import FOLDER as PROGRAM
from testbed.probes.kinds import CANARIES
from testbed.probes.model import Probe
from testbed.probes.reached import _JUDGES
from testbed.probes.read import FOLDER, read_probes
from testbed.probes.verdicts import find_intention
from testbed.rungs.model import CLASSES, WALLS
from testbed.rungs.read import read_history

_OPERATION = re.compile(r'^  \{"([a-z_]+)", ([0-9]), [a-z_]+\},$', re.MULTILINE)


def test_every_class_has_probes_and_there_are_more_than_eighty() -> None:
    probes = read_probes()
    counted = Counter(probe.kind for probe in probes)
    assert len(probes) >= 80 and tuple(counted) == CLASSES and min(counted.values()) >= 4
    assert {file.stem for file in FOLDER.glob("*.yaml")} == set(CLASSES)


@pytest.mark.parametrize("probe", read_probes(), ids=lambda probe: probe.name)
def test_the_program_knows_what_each_probe_tries(probe: Probe) -> None:
    known = {name: int(words) for file in PROGRAM.glob("*.c") for name, words in _OPERATION.findall(file.read_text())}
    assert known[probe.words[0]] == len(probe.words) - 1
    assert len(probe.tries) > 15 and len(probe.why) > 15


def test_the_host_can_judge_every_kind_of_canary_and_each_is_used() -> None:
    assert set(_JUDGES) == set(CANARIES) == {probe.canary.partition(" ")[0] for probe in read_probes()}


def test_what_a_container_of_ours_keeps_has_probes_and_so_has_what_must_go_on() -> None:
    walls = Counter(probe.wall for probe in read_probes())
    ours = ("root", "pid", "ipc", "uts", "network", "cgroup", "capabilities", "seccomp", "devices", "masks")
    assert all(walls[wall] for wall in (*ours, "limits", "no_new_privileges", "user", "time", "kernel"))
    assert set(walls) <= {*WALLS, ""} and walls[""] >= 12


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "data")
    (tmp_path / "data" / "files.yaml").write_text(
        "probes:\n"
        "  - {name: files-a, tries: Reads., why: It matters., wall: root, canary: secret, words: [read, '{secret}']}\n"
        "  - {name: files-a, tries: Reads., why: It matters, wall: rot, canary: secret, words: [read, '{port}']}\n"
        "  - {name: Files, tries: Reads., wall: pid, canary: gold, words: ['a b'], also: [moat], speed: 3}\n"
    )
    with pytest.raises(UsageError) as caught:
        read_probes(tmp_path / "data")
    for part in (
        ":3: probes[1]: has the name 'files-a' of another",
        "probes[1].why: is no sentence",
        "probes[1].wall: is 'rot'; expected one of root, mount",
        "{port}, which the canary does not offer",
        ":4: probes[2].name: is 'Files'",
        "probes[2].why: is missing",
        "probes[2].canary: is 'gold'",
        "have 'a b'",
        "probes[2].also[0]: is 'moat'",
        "probes[2].speed: is not supported",
    ):
        assert part in caught.value.message


def test_a_class_without_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"files\.yaml"):
        read_probes(tmp_path)


def test_rungs_speak_of_probes_and_classes_that_are_there() -> None:
    known = {*CLASSES, *(probe.name for probe in read_probes())}
    for rung in read_history().rungs:
        spoken = {word for one in (*rung.forbids, *rung.permits, *rung.leaves) for word in one.of}
        assert spoken | set(rung.explains) <= known, rung.name


def test_what_is_known_of_a_finding_is_of_something_that_was_meant() -> None:
    probes = {probe.name: probe for probe in read_probes()}
    for rung in read_history().rungs:
        for name in rung.explains:
            assert find_intention(probes[name], rung) in ("forbidden", "permitted"), (rung.name, name)
