"""The schedule: complete randomised blocks, reserved numbers, nothing left to chance but the seed."""

from __future__ import annotations

from collections import Counter

from testbed.measures.schedule import PlannedTrial, blocks_of, plan_trials

MEASURES = ("start", "density", "utilisation")
PLATFORMS = ("container", "vm", "peer")
RATES = (10.0, 25.0, 50.0, 100.0)


def by_block(planned: tuple[PlannedTrial, ...]) -> dict[int, list[PlannedTrial]]:
    blocks: dict[int, list[PlannedTrial]] = {}
    for trial in planned:
        blocks.setdefault(trial.block, []).append(trial)
    return blocks


def test_the_seed_decides_everything() -> None:
    first = plan_trials(PLATFORMS, MEASURES, 10, RATES, seed=1)
    assert first == plan_trials(PLATFORMS, MEASURES, 10, RATES, seed=1)
    assert first != plan_trials(PLATFORMS, MEASURES, 10, RATES, seed=2)


def test_each_block_has_every_platform_once_for_one_measure() -> None:
    blocks = by_block(plan_trials(PLATFORMS, MEASURES, 10, RATES, seed=3))
    assert list(blocks) == list(range(1, 10 + 3 + 3 + 1))
    for trials in blocks.values():
        assert sorted(trial.platform for trial in trials) == sorted(PLATFORMS)
        assert len({trial.measure for trial in trials}) == 1
    counted = Counter(trials[0].measure for trials in blocks.values())
    assert counted == {"start": 10, "density": 3, "utilisation": 3}


def test_trial_numbers_are_reserved_without_gaps_or_doubles() -> None:
    planned = plan_trials(PLATFORMS, MEASURES, 7, RATES, seed=4)
    numbers = [trial.trial + index for trial in planned for index in range(len(trial.rates_per_s) or 1)]
    assert numbers == list(range(1, 3 * (7 + 2 + 2 * len(RATES)) + 1))


def test_no_platform_has_a_fixed_place() -> None:
    blocks = by_block(plan_trials(PLATFORMS, ("start",), 300, RATES, seed=5))
    for position in range(len(PLATFORMS)):
        counts = Counter(trials[position].platform for trials in blocks.values())
        assert all(70 < counts[platform] < 130 for platform in PLATFORMS), "100 expected of each"


def test_measures_alternate_over_the_whole_run() -> None:
    measures = [trials[0].measure for trials in by_block(plan_trials(PLATFORMS, MEASURES, 30, RATES, seed=6)).values()]
    for measure in MEASURES:
        places = [position for position, one in enumerate(measures) if one == measure]
        for part in range(3):
            assert any(part * len(measures) / 3 <= position < (part + 1) * len(measures) / 3 for position in places)


def test_rates_are_shuffled_in_each_block_and_alike_for_its_platforms() -> None:
    planned = plan_trials(PLATFORMS, ("utilisation",), 30, RATES, seed=7)
    blocks = by_block(planned)
    assert all(sorted(trial.rates_per_s) == sorted(RATES) for trial in planned)
    assert all(len({trial.rates_per_s for trial in trials}) == 1 for trials in blocks.values())
    assert len({trials[0].rates_per_s for trials in blocks.values()}) > 1
    assert all(trial.rates_per_s == () for trial in plan_trials(PLATFORMS, ("start", "density"), 3, RATES, seed=8))


def test_the_quick_settings_have_one_block_of_the_long_measures() -> None:
    assert [blocks_of(measure, 3) for measure in MEASURES] == [3, 1, 1]
    assert [blocks_of(measure, 1) for measure in MEASURES] == [1, 1, 1]
