"""x-testbed.neighbours: what it means, and all that can be wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.scenario.model import Scenario, load
from testbed.scenario.neighbours import KINDS, QUICK_KINDS, Neighbours

BEGINNING = """\
services:
  web: {build: ., deploy: {resources: {limits: {memory: 64M, cpus: 1}}}}
x-testbed:
  ready: {service: web, port: 80}
  load: {rates_per_s: [10, 80, 20, 40], duration_s: 30}
"""


def _load(folder: Path, lines: str = "") -> Scenario:
    (folder / "Dockerfile").write_text("FROM testbed/base\n")
    (folder / "compose.yaml").write_text(BEGINNING + lines)
    return load(f"{folder}/", folder)


def test_without_a_word_all_kinds_stand_beside_the_middle_of_the_rates(tmp_path: Path) -> None:
    scenario = _load(tmp_path)
    assert scenario.settings.neighbours == Neighbours(tuple(KINDS), 20.0, 30.0)
    assert scenario.quick.neighbours == Neighbours(QUICK_KINDS, 20.0, 4.0)
    assert set(QUICK_KINDS) <= KINDS.keys()
    assert "neighbours" not in scenario.settings.measures, "they are measured when they are asked for"


def test_what_is_said_holds_and_quick_may_say_something_else(tmp_path: Path) -> None:
    scenario = _load(
        tmp_path,
        "  neighbours: {kinds: [disk, spin], rate_per_s: 5, window_s: 60}\n"
        "  quick: {neighbours: {kinds: [mmap], window_s: 9}}\n",
    )
    assert scenario.settings.neighbours == Neighbours(("disk", "spin"), 5.0, 60.0)
    assert scenario.quick.neighbours == Neighbours(("mmap",), 5.0, 9.0)


def test_the_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _load(
            tmp_path, "  neighbours:\n    kinds: [spin, virus]\n    rate_per_s: 0\n    window_s: -1\n    colour: red\n"
        )
    message = str(caught.value)
    for part in (
        ":7: x-testbed.neighbours.kinds[1]: is 'virus'; expected one of spin, fork,",
        ":8: x-testbed.neighbours.rate_per_s: is '0'",
        ":9: x-testbed.neighbours.window_s: is '-1'",
        ":10: x-testbed.neighbours.colour: is not supported",
    ):
        assert part in message, message


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("kinds: []", "names none, or one twice"),
        ("kinds: [spin, spin]", "names none, or one twice"),
        ("rate_per_s: 100000, window_s: 3600", "makes too many requests; expected at most"),
    ],
)
def test_none_twice_and_too_much_are_told(lines: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        _load(tmp_path, f"  neighbours: {{{lines}}}\n")
