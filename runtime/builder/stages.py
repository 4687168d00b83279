"""Divide a Dockerfile into its build stages, and choose those that a target needs, in an order that can be executed.

(Docker's "Dockerfile reference", FROM, ``COPY --from`` and ``RUN --mount``; OCI image-spec for ``OnBuild``.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from runtime.builder import words
from runtime.builder.context import Context
from runtime.builder.dockerfile import Dockerfile, parse_trigger
from runtime.builder.instruction import Instruction
from runtime.builder.mounts import source_stage
from runtime.config.default import DEFAULT_PATH
from runtime.errors import TestbedError, UsageError
from runtime.images.model import Image, ImageConfig

# The empty image (Docker's reference, "Create a minimal base image using scratch").
SCRATCH = "scratch"
# Each may have all variables and labels of the one that it is FROM, as many as a file has lines.
MOST_STAGES = 256

# Returns the image of a reference for a platform (``linux/amd64``, "" is the host's), or None without such an image.
# Raises TestbedError where it cannot be told or had.
Resolver = Callable[[str, str], Image | None]


class BuildStage(Struct, frozen=True):
    """A stage as the file has it: its FROM, the ``name`` that AS gives it or "", and the instructions after that.

    ``number`` counts from 0 on, ``first`` is the number of its FROM among all instructions of the file.
    """

    number: int
    name: str
    source: Instruction
    instructions: tuple[Instruction, ...]
    first: int


class Planned(Struct, frozen=True):
    """A stage to be executed, on an image or on the stage with the number ``parent``, with triggers of ONBUILD first.

    ``sources`` has what each ``from`` of its instructions means: the number of a stage, an image, or a named context.
    """

    stage: BuildStage
    parent: Image | int
    instructions: tuple[Instruction, ...]
    sources: Mapping[str, Image | int | Context]

    @property
    def needs(self) -> frozenset[int]:
        """Return the numbers of the stages that must have been executed before."""
        return frozenset(one for one in (self.parent, *self.sources.values()) if isinstance(one, int))


def leading_arguments(file: Dockerfile) -> tuple[Instruction, ...]:
    """Return the ARG instructions before the first FROM."""
    first = next(index for index, entry in enumerate(file.instructions) if entry.name == "FROM")
    return file.instructions[:first]


def divide(file: Dockerfile) -> tuple[BuildStage, ...]:
    """Return the stages of a file in order. Raises UsageError if there are more than MOST_STAGES."""
    begins = [index for index, entry in enumerate(file.instructions) if entry.name == "FROM"]
    stages: list[BuildStage] = []
    for number, (begin, end) in enumerate(zip(begins, [*begins[1:], len(file.instructions)], strict=True)):
        source, *instructions = file.instructions[begin:end]
        name = source.words[1] if len(source.words) > 1 else ""
        stages.append(BuildStage(number, name, source, tuple(instructions), begin))
        if number == MOST_STAGES:
            raise file.error(source.line, f"more than {MOST_STAGES} stages")
    return tuple(stages)


def find_target(file: Dockerfile, stages: tuple[BuildStage, ...], target: str) -> BuildStage:
    """Return the stage called ``target``, by its name or number; "" is the last one. Raises UsageError."""
    if not target:
        return stages[-1]
    for stage in reversed(stages):
        if target.lower() == stage.name or target == str(stage.number):
            return stage
    names = (
        ", ".join(stage.name for stage in stages if stage.name) or f"none has a name; numbers 0 to {len(stages) - 1}"
    )
    raise UsageError(f"{file.path}: no stage {target[:100]!r}", f"stages: {names}")


def plan_stages(
    file: Dockerfile,
    target: str,
    variables: Mapping[str, str],
    resolve: Resolver,
    contexts: Mapping[str, Context | str] = MappingProxyType({}),
) -> tuple[Planned, ...]:
    """Return the stages that ``target`` needs, each after those that it needs itself; the target is the last one.

    ``variables`` are those of the whole file, which FROM may use. ``contexts`` are taken for their names, before stages
    and images are: a folder, or the reference of an image. Raises UsageError for an unknown image or stage, and for
    stages that need each other.
    """
    stages = divide(file)
    planning = _Planning(file, stages, variables, resolve, contexts)
    return planning.in_order(find_target(file, stages, target))


class _Planning:
    """The choice of stages; ``planned`` are those chosen so far, by number."""

    def __init__(
        self,
        file: Dockerfile,
        stages: tuple[BuildStage, ...],
        variables: Mapping[str, str],
        resolve: Resolver,
        contexts: Mapping[str, Context | str],
    ) -> None:
        self.file, self.stages, self.variables, self.resolve = file, stages, variables, resolve
        self.contexts = contexts
        self.planned: dict[int, Planned] = {}
        self.numbers: dict[str, list[int]] = {}
        for stage in stages:
            self.numbers.setdefault(stage.name, []).append(stage.number)
        self.images: dict[tuple[str, str], Image] = {}

    def in_order(self, target: BuildStage) -> tuple[Planned, ...]:
        """Return the stages that ``target`` needs, depth first, without recursion: there may be thousands."""
        ordered: dict[int, Planned] = {}
        above = [target.number]
        open_stages: set[int] = set()
        while above:
            number = above[-1]
            planned = self._plan(self.stages[number])
            missing = sorted(one for one in planned.needs if one not in ordered)
            if not missing:
                above.pop()
                open_stages.discard(number)
                ordered.setdefault(number, planned)
                continue
            open_stages.add(number)
            if missing[0] in open_stages:
                source = self.stages[missing[0]].source
                raise self.file.error(source.line, "this stage and others need each other: a circle")
            above.append(missing[0])
        return tuple(ordered.values())

    def _plan(self, stage: BuildStage) -> Planned:
        if stage.number not in self.planned:
            parent = self._parent(stage)
            instructions = (*self._triggers(stage, parent), *stage.instructions)
            self.planned[stage.number] = Planned(stage, parent, instructions, self._sources(stage, instructions))
        return self.planned[stage.number]

    def _parent(self, stage: BuildStage) -> Image | int:
        entry = stage.source
        name = self._expanded(entry, entry.words[0])
        named = self.contexts.get(name)
        if isinstance(named, Context):
            raise self.file.error(entry.line, f"FROM {name[:200]}: it is a folder", "take files of it by COPY --from")
        number = self._nearest(name.lower(), stage.number) if named is None else None
        if number is not None and number < stage.number:
            return number
        return self._image(entry, named or name, self._expanded(entry, entry.flag("platform")))

    def _expanded(self, entry: Instruction, text: str) -> str:
        try:
            expanded = words.expand(text, self.variables, self.file.escape)
            if text and not expanded:
                raise ValueError(f"{text[:100]!r} is empty here: only ARG before the first FROM can set it")
        except ValueError as error:
            raise self.file.error(entry.line, f"FROM: {error}") from error
        return expanded

    def _image(self, entry: Instruction, reference: str, platform: str = "") -> Image:
        if reference == SCRATCH:
            return Image(SCRATCH, "", ImageConfig(env=(f"PATH={DEFAULT_PATH}",)), ())
        if (reference, platform) not in self.images:
            try:
                image = self.resolve(reference, platform)
            except TestbedError as error:  # whatever it is, and its exit code, it is about this line
                error.message = f"{self.file.path}:{entry.line}: {_purpose(entry, reference)}: {error.message}"
                raise
            if image is None:
                raise self.file.error(entry.line, f"{_purpose(entry, reference)}: no such image")
            self.images[reference, platform] = image
        return self.images[reference, platform]

    def _triggers(self, stage: BuildStage, parent: Image | int) -> Iterator[Instruction]:
        """Yield what the parent's ONBUILD instructions have left for this stage."""
        if isinstance(parent, int):
            texts = tuple(entry.words[0] for entry in self.stages[parent].instructions if entry.name == "ONBUILD")
        else:
            texts = parent.config.on_build
        for text in texts:
            try:
                yield parse_trigger(text, stage.source.line)
            except ValueError as error:
                raise self.file.error(stage.source.line, f"ONBUILD of {stage.source.words[0]}: {error}") from error

    def _sources(self, stage: BuildStage, instructions: tuple[Instruction, ...]) -> dict[str, Image | int | Context]:
        """Return what each ``from`` of the instructions means."""
        sources: dict[str, Image | int | Context] = {}
        for entry in instructions:
            for name in _names_of_sources(entry):
                if name in sources:
                    continue
                if (named := self.contexts.get(name)) is not None:
                    sources[name] = named if isinstance(named, Context) else self._image(entry, named)
                elif name.isascii() and name.isdigit():
                    if not int(name[:9]) < stage.number:
                        raise self.file.error(
                            entry.line, f"{entry.name}: no stage before this one has the number {name[:20]}"
                        )
                    sources[name] = int(name[:9])
                else:
                    number = self._nearest(name.lower(), stage.number)
                    sources[name] = self._image(entry, name) if number is None else number
        return sources

    def _nearest(self, name: str, before: int) -> int | None:
        """Return the number of the last stage with a name before that one, or else of the first after it."""
        numbers = self.numbers.get(name, []) if name else []
        if not numbers:
            return None
        return numbers[max(0, bisect_left(numbers, before) - 1)]


def _purpose(entry: Instruction, reference: str) -> str:
    return f"{entry.name}{'' if entry.name == 'FROM' else ' from'} {reference[:200]}"


def _names_of_sources(entry: Instruction) -> Iterator[str]:
    if entry.name == "COPY" and entry.flag("from"):
        yield entry.flag("from")
    if entry.name == "RUN":
        for mount in entry.flag_values("mount"):
            if name := source_stage(mount):
                yield name


def before_line(file: Dockerfile, line: int) -> tuple[Dockerfile, str]:
    """Return the file without the instructions from ``line`` on in the stage that has it, and the target to build.

    Raises UsageError if no instruction after a FROM begins there.
    """
    for stage in divide(file):
        for index, entry in enumerate(stage.instructions):
            if entry.line == line:
                at = stage.first + 1 + index
                return replace(file, instructions=file.instructions[:at]), str(stage.number)
    lines = ", ".join(str(entry.line) for stage in divide(file) for entry in stage.instructions)
    raise UsageError(f"{file.path}:{line}: no instruction begins there", f"they begin in the lines {lines}")
