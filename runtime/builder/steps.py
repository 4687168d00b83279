"""The steps of one stage of a build: what they share, how each is reported, and the cache of their layers."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from runtime.builder import words
from runtime.builder.context import Context, Files
from runtime.builder.dockerfile import Dockerfile
from runtime.builder.image_files import ImageFiles
from runtime.builder.instruction import Instruction
from runtime.builder.runs import Runs
from runtime.builder.stage import Pairs, Stage
from runtime.builder.stages import Planned
from runtime.errors import UsageError, WorkloadError
from runtime.images.layers import await_tick, settle
from runtime.images.model import Image, Layer
from runtime.images.oci import EPOCH_S
from runtime.images.store import Store

SHOWN_COLUMNS = 60


class Reporter:
    """Reports lines of several threads; those of steps that were cached are held back until there is anything to do."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._held: list[str] | None = []

    def cached(self, line: str) -> None:
        """Report a step that had nothing to do."""
        with self._lock:
            if self._held is None:
                self._progress(line)
            else:
                self._held.append(line)

    def working(self, line: str) -> None:
        """Report what has to be done, after all that was held back."""
        with self._lock:
            for held in self._held or ():
                self._progress(held)
            self._held = None
            self._progress(line)


class Build(Struct, frozen=True):
    """What all stages of a build share.

    ``arguments`` are the caller's values for ARG, ``defaults`` those given before FROM and the builder's own.
    ``finished`` has the stages that were executed, by number. ``secrets`` and ``agents`` are for RUN --mount, by id:
    the content, and the path of the socket of ssh-agent(1). ``options`` is how a command line repeats this build.
    """

    store: Store
    file: Dockerfile
    context: Context
    name: str
    reporter: Reporter
    arguments: Mapping[str, str]
    defaults: Pairs
    runs: Runs
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    agents: Mapping[str, Path] = field(default_factory=dict)
    options: str = ""
    finished: dict[int, Stage] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Steps:
    """The execution of one stage; ``number`` and ``total`` count the steps of the whole build."""

    def __init__(self, build: Build, planned: Planned, number: int, total: int) -> None:
        self.build, self.planned = build, planned
        self.number, self.total = number, total

    def begin(self) -> Stage:
        """Return the stage with which FROM begins."""
        parent = self.planned.parent
        return self.build.finished[parent].child() if isinstance(parent, int) else Stage.on(parent)

    def files(self, name: str) -> Files:
        """Return the files of what a ``from`` names: "" is the build context, else a stage, an image or a context."""
        source = self.planned.sources[name] if name else self.build.context
        if isinstance(source, Context):
            return source
        layers = source.layers if isinstance(source, Image) else self.build.finished[source].layers
        return ImageFiles(layers, f"{name!r}")

    def error(self, instruction: Instruction, error: Exception) -> Exception:
        """Return an error that names the instruction's line, if ``error`` does not already and the file is to blame."""
        file = self.build.file
        if isinstance(error, UsageError | WorkloadError):
            if error.message.startswith(f"{file.path}:"):
                return error
            return type(error)(f"{file.path}:{instruction.line}: {error.message}", error.hint)
        if isinstance(error, OSError):
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return error
            what = f"{str(error.filename)[:200]}: {error.strerror}" if error.filename else str(error)
            return file.error(instruction.line, f"{instruction.name}: {what}")
        return file.error(instruction.line, f"{instruction.name}: {error}")

    def expand(self, text: str, variables: Mapping[str, str]) -> str:
        """Return ``text`` with its variables replaced. Raises ValueError."""
        return words.expand(text, variables, self.build.file.escape)

    def layer(
        self,
        instruction: Instruction,
        below: Sequence[Layer],
        key: str,
        make: Callable[[Path], Path],
        *,
        exact: bool = False,
    ) -> Layer:
        """Return a step's layer on those ``below``: the one that the same inputs made before, or else the directory
        that ``make`` fills.

        Times from the step's beginning on are accidents, and those of a second before, but for an ``exact`` one, which
        copies what may have been made right before, and keeps its times.
        """
        store = self.build.store
        self.build.runs.check()
        cached = store.cached(key)
        if cached is not None:
            self.report(instruction, "(cached)")
            return cached
        self.build.reporter.working(self._line(instruction))
        began, began_s = time.monotonic(), await_tick() if exact else time.time() - 1
        with store.scratch() as scratch:
            tree = make(scratch)
            newest_s = settle(tree, began_s, max(map(store.newest_s, below), default=EPOCH_S))
            with self.build.lock:  # another stage may make the same layer at the same time
                layer = store.add_layer(tree, str(instruction), newest_s)
        store.remember(key, layer)
        self.build.reporter.working(f"{self._step()} done in {time.monotonic() - began:.1f} s")
        return layer

    def report(self, instruction: Instruction, outcome: str = "") -> None:
        """Report a step that had nothing to do, or nothing that takes time."""
        self.build.reporter.cached(self._line(instruction, outcome))

    def output(self, line: str) -> None:
        """Report a line of a step's output."""
        self.build.reporter.working(f"    {line}")

    def _line(self, instruction: Instruction, outcome: str = "") -> str:
        text = " ".join(str(instruction).split())
        shown = text if len(text) <= SHOWN_COLUMNS else text[: SHOWN_COLUMNS - 3] + "..."
        return f"{self._step()} {shown} {outcome}".rstrip()

    def _step(self) -> str:
        return f"{self.build.name} {self.number}/{self.total}"


def argument_values(
    instruction: Instruction,
    arguments: Mapping[str, str],
    expand: Callable[[str], str],
    defaults: Mapping[str, str],
) -> dict[str, str]:
    """Return the values of an ARG: the caller's, else its default, else that from before FROM, else none."""
    values: dict[str, str] = {}
    for name, default in instruction.pairs:
        if name in arguments:
            values[name] = arguments[name]
        elif default is not None:
            values[name] = expand(default)
        elif name in defaults:
            values[name] = defaults[name]
    return values
