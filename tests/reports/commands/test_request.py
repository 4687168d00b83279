"""What the words after bench become."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from reports.commands.options import RESULTS
from reports.commands.request import read_options
from runtime.errors import UsageError
from tasks import bench
from testbed.request import Options


def read(**words: Any) -> Options:
    parameters = inspect.signature(bench.body).parameters
    usual = {name: one.default for name, one in parameters.items() if name != "context"}
    return read_options({**usual, **words}, ("inv", "bench"))


def test_what_is_not_given_is_the_scenarios_own() -> None:
    options = read(scenario="clickme")
    assert (options.platforms, options.seed, options.out) == (("container", "vm", "vm-containers"), 1, RESULTS)
    assert (options.trials, options.until, options.budget_s, options.cap, options.resume) == (None,) * 5
    assert (options.measures, options.steps, options.packed.fractions, options.compose.files) == ((),) * 4


def test_words_become_numbers_and_lists() -> None:
    options = read(
        scenario="a.yaml", trials="3", until="5%", budget="2m", steps="12, 24", fractions="5,8", zombies="0",
        emulator_cpus="0.5", file=["b.yaml"], env_file=[".env"], with_="measure.yaml",
    )  # fmt: skip
    assert (options.trials, options.until, options.budget_s, options.steps) == (3, 0.05, 120.0, (12, 24))
    assert (options.packed.fractions, options.packed.zombies, options.emulator_cpus) == ((0.05, 0.08), 0.0, 0.5)
    compose = options.compose
    assert (compose.files, compose.env_files, compose.settings) == (("b.yaml",), (".env",), "measure.yaml")


def test_a_word_that_is_none_is_refused_by_its_options_name() -> None:
    with pytest.raises(UsageError, match=r"--steps 1\.5: not a whole number"):
        read(steps="1.5")
    with pytest.raises(UsageError, match="--emulator-cpus few: not a number"):
        read(emulator_cpus="few")
