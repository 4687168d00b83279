"""What copies take: the first apart from the others, and an interval that covers what it promises."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from testbed.copies import Columns, copy_memory, first_bytes, further_bytes, taken_bytes
from testbed.statistics import FEWEST_TO_SHOW, Estimate, MeanEstimate

FIRST, EACH = 95.0, 25.0
TRIALS = 2000


def ramp(taken: list[float]) -> Columns:
    return {"applications": list(range(len(taken))), "pss_bytes": taken}


def test_the_first_copy_is_no_part_of_what_a_further_one_takes() -> None:
    memory = copy_memory([ramp([0, 95, 120, 146, 170])], "memory_pss")
    assert memory is not None
    assert memory.first == Estimate(95, 95, 95, 1, 0.0)
    assert memory.further is not None
    assert (memory.further.value, memory.further.n) == (25, 3)
    assert memory.further.low is not None
    assert memory.further.low < 25


def test_what_is_left_counts_down() -> None:
    columns = {"applications": [0, 1, 2], "available_bytes": [1000, 880, 850]}
    assert taken_bytes(columns, "memory_available") == ((0, 0), (1, 120), (2, 150))
    assert first_bytes(columns, "memory_available") == 120
    assert further_bytes(columns, "memory_available") == (30,)


def test_all_ramps_count_and_fewer_than_three_differences_have_no_interval() -> None:
    one, two = ramp([0, 90, 116]), ramp([0, 100, 124])
    memory = copy_memory([one, two], "memory_pss")
    assert memory is not None
    assert (memory.first.value, memory.ramps) == (95, 2)
    assert memory.further == MeanEstimate(25, None, None, 2)
    memory = copy_memory([one, two, one], "memory_pss")
    assert memory is not None and memory.further is not None
    assert memory.further.is_interval


@pytest.mark.parametrize("taken", [[], [0.0]])
def test_a_ramp_without_a_copy_has_no_memory(taken: list[float]) -> None:
    assert copy_memory([ramp(taken)], "memory_pss") is None
    assert copy_memory([], "memory_pss") is None


def test_a_first_copy_alone_says_nothing_of_further_ones() -> None:
    memory = copy_memory([ramp([0.0, 95.0])], "memory_pss")
    assert memory is not None
    assert memory.further is None


def test_steps_that_are_missing_or_no_numbers_are_left_out() -> None:
    columns: Columns = {"applications": [0, 1, 2, 4, 5], "pss_bytes": [0, 95, float("nan"), 170, 195]}
    assert further_bytes(columns, "memory_pss") == (25,)


def test_no_copy_takes_less_than_nothing() -> None:
    shrinking = copy_memory([ramp([0, -5, -30, -55, -80])], "memory_pss")
    assert shrinking is not None
    assert shrinking.first.value == 0
    assert shrinking.further is None, "no value between its limits is one that a copy could have"
    about_zero = copy_memory([ramp([0, 5, 4, 7, 4, 5])], "memory_pss")
    assert about_zero is not None and about_zero.further is not None
    assert about_zero.further.low == 0
    assert about_zero.further.value == 0
    few = copy_memory([ramp([0, 5, 4])], "memory_pss")
    assert few is not None
    assert few.further is None


def ramps(chance: random.Random, kind: str, copies: int, count: int) -> Iterator[Columns]:
    """Ramps of copies that differ from each other (walk), of readings that have an error each (noise), or both."""
    walk, noise = {"walk": (3.0, 0.0), "noise": (0.0, 3.0), "both": (3.0, 3.0)}[kind]
    for _ in range(count):
        taken, real = [0.0], 0.0
        for copy in range(copies):
            real += (EACH if copy else FIRST) + chance.gauss(0, walk)
            taken.append(real + chance.gauss(0, noise))
        yield ramp(taken)


@pytest.mark.parametrize("copies", [24, 12, 6])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["walk", "noise", "both"])
def test_the_interval_covers_what_a_further_copy_takes(kind: str, count: int, copies: int) -> None:
    """Simulated: 95 % of the time where copies differ, and never less; its mean is not biased by the first copy. Where
    there are enough differences to show it, the interval allows for what they may have in common, and covers more."""
    chance = random.Random(f"{kind} {count} {copies}")
    hits, total = 0, 0.0
    for _ in range(TRIALS):
        memory = copy_memory(ramps(chance, kind, copies, count), "memory_pss")
        assert memory is not None and memory.further is not None
        assert memory.further.low is not None and memory.further.high is not None
        hits += memory.further.low <= EACH <= memory.further.high
        total += memory.further.value
    assert total / TRIALS == pytest.approx(EACH, rel=0.01)
    chance_of_simulation = 4 * (0.95 * 0.05 / TRIALS) ** 0.5
    assert hits / TRIALS > 0.95 - chance_of_simulation
    most = 0.95 if (copies - 1) * count < FEWEST_TO_SHOW else 0.98
    assert kind != "walk" or hits / TRIALS < most + chance_of_simulation
