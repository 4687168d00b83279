"""The schedule: complete randomised blocks, drawn one after the other, and nothing left to chance but the seed."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from testbed.measures.schedule import MOST_REPEATS, Block, Group, PlannedTrial, draw_rounds, list_open
from testbed.results import Outcome, Trial

MEASURES = ("start", "density", "utilisation")
GROUPS: tuple[Group, ...] = (("container",), ("vm",), ("peer",))
RATES = (10.0, 25.0, 50.0, 100.0)


def draw(rounds: int, seed: int, groups: tuple[Group, ...] = GROUPS) -> list[tuple[Block, ...]]:
    return list(islice(draw_rounds(groups, MEASURES, {"utilisation": RATES}, seed), rounds))


def ended(
    number: int, platform: str, outcome: Outcome = "ok", rate: float | None = None, measure: str = "start"
) -> Trial:
    parameters = {} if rate is None else {"rate_per_s": rate}
    return Trial(number, 1, platform, measure, outcome, parameters=parameters)


def test_the_seed_decides_everything() -> None:
    assert draw(10, 1) == draw(10, 1)
    assert draw(10, 1) != draw(10, 2)


def test_a_longer_run_has_the_shorter_one_as_its_beginning() -> None:
    assert draw(40, 5)[:7] == draw(7, 5)


def test_each_round_has_every_measure_once_and_each_block_every_platform_once() -> None:
    for blocks in draw(20, 3):
        assert sorted(block.measure for block in blocks) == sorted(MEASURES)
        for block in blocks:
            assert sorted(block.groups) == sorted(GROUPS)


def test_blocks_are_numbered_without_gaps_or_doubles() -> None:
    numbers = [block.number for blocks in draw(9, 4) for block in blocks]
    assert numbers == list(range(1, 28))
    assert [block.round for block in draw(9, 4)[6]] == [7, 7, 7]


def test_no_platform_and_no_measure_has_a_fixed_place() -> None:
    rounds = draw(300, 5)
    for position in range(3):
        platforms = Counter(blocks[0].groups[position] for blocks in rounds)
        assert all(70 < platforms[group] < 130 for group in GROUPS), "100 expected of each"
        measures = Counter(blocks[position].measure for blocks in rounds)
        assert all(70 < measures[measure] < 130 for measure in MEASURES)


def test_the_two_of_a_duet_change_places_too() -> None:
    firsts = Counter(blocks[0].groups[0][0] for blocks in draw(300, 6, (("container", "vm"),)))
    assert 120 < firsts["vm"] < 180


def test_rates_are_shuffled_in_each_block_and_alike_for_its_platforms() -> None:
    blocks = [block for blocks in draw(30, 7) for block in blocks]
    rates = [block.levels for block in blocks if block.measure == "utilisation"]
    assert all(sorted(one) == sorted(RATES) for one in rates) and len(set(rates)) > 1
    assert all(block.levels == () for block in blocks if block.measure != "utilisation")
    (unit, *_) = list_open(next(block for block in blocks if block.levels), (), 8)
    assert (unit[0].trial, unit[0].count) == (8, 4)


def test_a_new_block_is_open_as_a_whole_and_numbers_follow_each_other() -> None:
    block = Block(1, 1, "utilisation", (("a",), ("b",)), (20.0, 40.0))
    assert list_open(block, (), 5, warmup=True) == (
        (PlannedTrial(5, 1, "a", "utilisation", (20.0, 40.0), True, (0, 0)),),
        (PlannedTrial(7, 1, "b", "utilisation", (20.0, 40.0), True, (0, 0)),),
    )


def test_what_is_on_record_is_not_done_again() -> None:
    block = Block(1, 1, "start", (("a",), ("b",)))
    assert list_open(block, [ended(1, "a"), ended(2, "b", "failed")], 3) == ()
    ((planned,),) = list_open(block, [ended(1, "a")], 2)
    assert (planned.platform, planned.trial, planned.repeats) == ("b", 2, (0,))


def test_a_block_goes_on_at_the_rate_where_it_was_cut_short() -> None:
    block = Block(1, 1, "utilisation", (("a",),), (20.0, 40.0, 10.0))
    record = [ended(1, "a", "ok", 20.0, "utilisation"), ended(2, "a", "interrupted", 40.0, "utilisation")]
    ((planned,),) = list_open(block, record, 4)
    assert (planned.levels, planned.repeats) == ((40.0, 10.0), (2, 0))
    assert [planned.repeats_of(index) for index in range(2)] == [2, 0]


def test_void_trials_are_repeated_after_the_others_and_not_for_ever() -> None:
    block = Block(1, 1, "start", (("a",), ("b",)))
    record = [ended(1, "a", "void")]
    first, again = list_open(block, record, 2)
    assert (first[0].platform, again[0].platform, again[0].repeats) == ("b", "a", (1,))
    record += [ended(2, "b"), ended(3, "a", "void")]
    assert [unit[0].repeats for unit in list_open(block, record, 4)] == [(3,)]
    record += [ended(4, "a", "void")]
    assert MOST_REPEATS == 2 and list_open(block, record, 5) == ()
    assert list_open(block, [ended(1, "a", "void"), ended(2, "a"), ended(3, "b")], 4) == ()


def test_both_of_a_duet_are_repeated_unless_one_has_failed() -> None:
    block = Block(1, 1, "start", (("a", "b"),))
    ((one, other),) = list_open(block, (), 1)
    assert (one.beside, other.beside, one.trial, other.trial) == ("b", "a", 1, 2)
    ((one, other),) = list_open(block, [ended(1, "a", "void"), ended(2, "b", "void")], 3)
    assert (one.repeats, other.repeats, one.trial, other.trial) == ((1,), (2,), 3, 4)
    assert list_open(block, [ended(1, "a", "failed"), ended(2, "b", "void")], 3) == ()


def test_cases_are_a_blocks_levels_as_rates_are() -> None:
    cases = ("alone", "spin, limits on", "spin, limits off")
    drawn = draw_rounds(GROUPS, ("neighbours", "start"), {"neighbours": cases}, 1)
    blocks = [block for blocks in islice(drawn, 6) for block in blocks if block.measure == "neighbours"]
    assert all(sorted(map(str, block.levels)) == sorted(cases) for block in blocks)
    assert len({block.levels for block in blocks}) > 1, "in an order of its own in each"
    block = Block(1, 1, "neighbours", (("container",),), cases)
    ((planned,),) = list_open(block, (), 7)
    assert (planned.levels, planned.count) == (cases, 3)
    outcomes: tuple[Outcome, ...] = ("ok", "void", "failed")
    done = [
        Trial(7 + at, 1, "container", "neighbours", outcome, parameters={"case": case, "rate_per_s": 50.0})
        for at, (case, outcome) in enumerate(zip(cases, outcomes, strict=True))
    ]
    ((again,),) = list_open(block, done, 10)
    assert (again.levels, again.repeats) == (("spin, limits on",), (8,)), "what was void; what has failed is over"
