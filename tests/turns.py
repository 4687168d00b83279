"""Modules of tests that several pytests have in common: each is run by the one that comes to it first.

    python -m pytest -p tests.turns --turns=DIRECTORY [--from-the-end]

All that share the directory select the same tests. What another has begun is passed over without a word, so that the
counts of all together are those of one. Which module a pytest has come to is an empty file in the directory.
"""

from __future__ import annotations

from pathlib import Path

import pytest


class Turns:
    """A hook of pytest's that leaves out the tests of modules that another pytest has come to before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ours: dict[Path, bool] = {}

    def is_ours(self, module: Path) -> bool:
        """Whether it is for this process to run the module; from now on it is for nobody else."""
        if module not in self._ours:
            try:
                (self._directory / str(module).replace("/", "%")).touch(exist_ok=False)
            except FileExistsError:
                self._ours[module] = False
            else:
                self._ours[module] = True
        return self._ours[module]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Say that a test has been run, when another pytest does it."""
        return None if self.is_ours(item.path) else True


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("turns")
    group.addoption("--turns", type=Path, help="where pytests that run the same tests tell each other which they do")
    group.addoption("--from-the-end", action="store_true", help="run the last module first")


def pytest_configure(config: pytest.Config) -> None:
    if directory := config.getoption("turns"):
        config.pluginmanager.register(Turns(directory))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("from_the_end"):
        modules = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
        items.sort(key=lambda item: -modules[item.path])
