"""How servers are packed: what a scenario says, what the command line does, and what is none of the choices."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.scenario.consolidation import Asked, Consolidation, Mix, parse_fractions, parse_zombies
from testbed.scenario.model import Scenario, load
from testbed.scenario.new import create_scenario


def read(folder: Path, section: str, trace: str = "") -> Scenario:
    create_scenario("tiny", folder)
    compose = folder / "tiny" / "compose.yaml"
    compose.write_text(f"{compose.read_text()}\n  consolidation: {section}\n")
    (folder / "tiny" / "day.csv").write_text(trace)
    return load("tiny", folder)


def test_a_scenario_that_says_nothing_has_the_talk_s_rows(tmp_path: Path) -> None:
    scenario = read(tmp_path, "")
    assert scenario.settings.consolidation == Consolidation(fractions=(0.05, 0.08, 0.12), shape="constant")
    assert scenario.quick.consolidation.fractions == (0.08,)
    assert scenario.quick.consolidation.window_s < scenario.settings.consolidation.window_s


def test_every_setting_is_read(tmp_path: Path) -> None:
    text = (
        "{fractions: [0.2, 0.1], processors: 4, shape: diurnal, peak_to_mean: 3, zombies: 0, packing: declared,"
        " settle_s: 2, window_s: 7, idle_s: 3, cap: 9}"
    )
    packed = read(tmp_path, text).settings.consolidation
    assert packed == Consolidation((0.2, 0.1), 4, "diurnal", 3, 0, "declared", 2, 7, 3, 9)
    assert [mix.name for mix in packed.mixes] == ["20%", "10%"], "none with zombies"
    assert max(rate for _, rate in packed.make_curve()) == pytest.approx(3)


def test_a_trace_is_replayed(tmp_path: Path) -> None:
    packed = read(tmp_path, "{trace: day.csv}", "t_s,rate_per_s\n0,1\n10,3\n").settings.consolidation
    assert packed.shape == "trace" and packed.make_curve() == ((0.0, 0.5), (0.5, 1.5))


@pytest.mark.parametrize(
    ("section", "trace", "said"),
    [
        ("{fractions: []}", "", "consolidation.fractions: has no fractions"),
        ("{fractions: [0.1, 0.1]}", "", "consolidation.fractions: has 2 fractions; expected different ones"),
        ("{fractions: [-0.1]}", "", "-0.1"),
        ("{fractions: [0]}", "", "consolidation.fractions[0]"),
        ("{shape: square}", "", "consolidation.shape: is 'square'; expected one of constant, diurnal, trace"),
        ("{shape: trace}", "", "consolidation.shape: is a trace, and none is named"),
        ("{packing: tight}", "", "one of used, declared"),
        ("{peak_to_mean: 1}", "", "consolidation.peak_to_mean"),
        ("{zombies: 1}", "", "consolidation.zombies"),
        ("{processors: 0}", "", "consolidation.processors"),
        ("{what: 1}", "", "consolidation.what"),
        ("{trace: day.csv}", "t_s,rate_per_s\n0,0\n5,0\n", "makes no request"),
        ("{trace: day.csv}", "t_s,rate_per_s\n0,1\n5,\n9,2\n", "has '5,' on line 3"),
        ("{trace: day.csv}", "t_s,rate_per_s\n0,1\n9,2\n5,3\n", "has '5,3' on line 4"),
        ("{trace: ../day.csv}", "", "the name of a CSV file in the scenario's folder"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, section: str, trace: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        read(tmp_path, section, trace)
    assert said in str(error.value)


def test_the_command_line_comes_before_the_scenario() -> None:
    asked = Asked(parse_fractions("6, 12%"), "diurnal", "declared", parse_zombies("0"))
    packed = asked.apply(Consolidation())
    assert (packed.fractions, packed.shape, packed.packing, packed.zombies) == ((0.06, 0.12), "diurnal", "declared", 0)
    assert Asked().apply(packed) == packed


@pytest.mark.parametrize("text", ["", "0", "91", "8,8", "a", "-5", "5;8", "1e1", ",".join(["1"] * 30)])
def test_what_is_no_list_of_percentages_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="--fractions"):
        parse_fractions(text)


def test_other_choices_are_told() -> None:
    for asked, said in (
        (Asked(shape="square"), "--shape square: there is no such load"),
        (Asked(packing="tight"), "--packing tight: there is no such packing"),
        (Asked(shape="trace"), "--shape trace: the scenario has no trace of rates"),
    ):
        with pytest.raises(UsageError, match=said):
            asked.apply(Consolidation())
    with pytest.raises(UsageError, match="--zombies 95"):
        parse_zombies("95")


@pytest.mark.parametrize("zombies", [0.0, 0.1, 0.3, 0.5, 0.9])
def test_zombies_are_spread_and_the_first_server_is_none(zombies: float) -> None:
    mix = Mix(0.08, zombies)
    flags = [mix.is_zombie(server) for server in range(100)]
    assert sum(flags) == round(100 * zombies) and not flags[0]
    assert all(abs(sum(flags[:count]) - count * zombies) <= 1 for count in range(100))
