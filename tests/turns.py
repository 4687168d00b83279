"""The streams that tests are run in, and whose turn it is where several pytests help with one.

    python -m pytest -p tests.turns --turns=DIRECTORY --stream=OWN [--stream=ANOTHER ...]

runs the tests of the first stream, and then those of the others from their ends, module by module. Of the pytests that
share the directory, each module of a stream is run by the one that comes to it first, and passed over by the others
without a word, so that the counts of all together are those of one. What somebody has come to is an empty file there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

GUESTS = "guests"
LONG = "the emulated machine, package sources and runs"
REST = "the rest"


def stream_of(markers: Collection[str]) -> str:
    """Return which stream a test with these markers (pyproject.toml) is in."""
    if "machine" in markers or ("network" in markers and "vm" not in markers):
        return LONG
    return GUESTS if "vm" in markers else REST


class Turns:
    """A hook of pytest's that orders the tests of some streams, and leaves out modules that another has come to."""

    def __init__(self, directory: Path, streams: Sequence[str]) -> None:
        self._directory = directory
        self._streams = streams
        self._ours: dict[tuple[str, Path], bool] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Put our own stream first, and the others after it, each with its last module first."""
        modules = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}

        def turn(item: pytest.Item) -> tuple[int, int]:
            stream, module = self._streams.index(_stream_of(item)), modules[item.path]
            return stream, -module if stream else module

        others = [item for item in items if _stream_of(item) not in self._streams]
        config.hook.pytest_deselected(items=others)
        items[:] = sorted((item for item in items if _stream_of(item) in self._streams), key=turn)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Say that a test has been run, when another pytest does it."""
        if not self._is_ours(_stream_of(item), item.path):
            return True
        # The one before this was told of another that would follow it, and left what that would have needed.
        item.session._setupstate.teardown_exact(item)
        return None

    def _is_ours(self, stream: str, module: Path) -> bool:
        """Return whether it is for this process to run the module's tests; from now on it is for nobody else."""
        if (stream, module) not in self._ours:
            try:
                (self._directory / f"{stream}: {module}".replace("/", "%")).touch(exist_ok=False)
            except FileExistsError:
                self._ours[stream, module] = False
            else:
                self._ours[stream, module] = True
        return self._ours[stream, module]


def _stream_of(item: pytest.Item) -> str:
    return stream_of({marker.name for marker in item.iter_markers()})


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("turns")
    group.addoption("--turns", type=Path, help="where pytests that run the same tests tell each other which they do")
    group.addoption("--stream", action="append", default=[], help="whose tests are run; after the first's, others'")


def pytest_configure(config: pytest.Config) -> None:
    if directory := config.getoption("turns"):
        config.pluginmanager.register(Turns(directory, config.getoption("stream")))
