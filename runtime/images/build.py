"""Execute a Dockerfile: every instruction that changes files makes a layer, which is cached by its inputs.

FROM (one), ARG, RUN, COPY (--chown, --chmod), ENV, WORKDIR, USER, EXPOSE, CMD, ENTRYPOINT and LABEL are supported, with
the meaning of Docker's reference. A RUN is a container of this runtime that connects to others; none connects to it.
"""

from __future__ import annotations

import errno
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from runtime.config.default import DEFAULT_PATH
from runtime.errors import UsageError
from runtime.images import words
from runtime.images.base import REFERENCE, ensure_base
from runtime.images.context import Context, Entry, content_digest
from runtime.images.copying import Tree, destination
from runtime.images.dockerfile import Dockerfile, Instruction, read
from runtime.images.layers import settle
from runtime.images.model import Image, ImageConfig, Layer
from runtime.images.oci import EPOCH_S
from runtime.images.rootfs import is_directory
from runtime.images.running import run_command, run_environment
from runtime.images.stage import Pairs, Stage, cache_key
from runtime.images.store import Store
from runtime.images.user import resolve_user
from runtime.unionfs.overlay import check_depth

# The empty image (Docker's reference, "Create a minimal base image using scratch").
SCRATCH = "scratch"
SHOWN_COLUMNS = 60


def build(
    store: Store,
    *,
    context: Path,
    dockerfile: Path,
    reference: str,
    progress: Callable[[str], None],
    arguments: Mapping[str, str] | None = None,
    base: str = "",
) -> Image:
    """Build ``dockerfile`` with the files of ``context`` and name the image ``reference``.

    ``FROM testbed/base`` is the base image of the release ``base``, of "" the host's; ``FROM testbed/base:trixie`` that
    of trixie.
    ``progress`` is called with a line for each step, which says whether it was cached and how long it took; with none
    where there was nothing to do.
    ``arguments`` are values for ARG. Raises UsageError (``file:line: what``) for an invalid Dockerfile, WorkloadError
    if a RUN fails, PrerequisiteError if the host lacks something. The store is unchanged then, except for the layers
    of the steps that succeeded, which the next build uses.
    """
    file = read(dockerfile, context)
    name = reference.rpartition("/")[2]
    steps = _Steps(store, file, Context.at(context, dockerfile), name, progress, dict(arguments or {}), base)
    stage, rest = steps.start()
    with store.building(progress):
        for instruction in rest:
            stage = steps.execute(stage, instruction)
        if not stage.layers:
            raise file.error(1, "the image has no files", "FROM scratch needs a COPY to begin with")
        return store.tag(reference, stage.finished_config, stage.layers, tuple(stage.history))


class _Steps(Struct):
    """One build: what its instructions need besides the stage that they change.

    ``arguments`` are the caller's values for ARG, ``base`` is the caller's release; ``defaults`` are the values of ARG
    given before FROM. ``held`` are the lines of the steps before the first that makes a layer, then None.
    """

    store: Store
    file: Dockerfile
    context: Context
    name: str
    progress: Callable[[str], None]
    arguments: Mapping[str, str]
    base: str
    done: int = 0
    held: list[str] | None = field(default_factory=list)
    defaults: Pairs = field(default_factory=Pairs)

    def start(self) -> tuple[Stage, tuple[Instruction, ...]]:
        """Return the stage with which FROM begins, and the instructions after it."""
        for index, instruction in enumerate(self.file.instructions):
            self.done = index + 1
            if instruction.name == "FROM":
                reference = self.expand(instruction, instruction.words[0], self.defaults)
                return Stage.on(self.parent(instruction, reference)), self.file.instructions[index + 1 :]
            try:
                for name, value in self.argument_values(instruction, self.defaults).items():
                    self.defaults.put(name, value)
            except ValueError as error:
                raise self.file.error(instruction.line, f"{instruction.name}: {error}") from error
        raise self.file.error(1, "no FROM instruction")

    def parent(self, instruction: Instruction, reference: str) -> Image:
        """Return the image that FROM names; the base image is made if it is missing."""
        if reference == SCRATCH:
            return Image(SCRATCH, "", ImageConfig(env=(f"PATH={DEFAULT_PATH}",)), ())
        repository, _, release = reference.partition(":")
        if repository == REFERENCE:
            return ensure_base(self.store, self.progress, release or self.base)
        image = self.store.find(reference)
        if image is None:
            known = ", ".join(sorted({REFERENCE, *self.store.references()}))
            raise self.file.error(instruction.line, f"FROM {reference}: no such image", f"known images: {known}")
        return image

    def execute(self, stage: Stage, instruction: Instruction) -> Stage:
        """Return the stage after ``instruction``, whose line is added to errors that do not have one."""
        self.done += 1
        try:
            after = _EXECUTE[instruction.name](self, stage, instruction)
            check_depth([layer.diff_id for layer in after.layers])
            return after
        except ValueError as error:
            raise self.file.error(instruction.line, f"{instruction.name}: {error}") from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # the file is not to blame
                raise
            what = f"{str(error.filename)[:200]}: {error.strerror}" if error.filename else str(error)
            raise self.file.error(instruction.line, f"{instruction.name}: {what}") from error
        except UsageError as error:
            if error.message.startswith(f"{self.file.path}:"):
                raise
            raise self.file.error(instruction.line, error.message, error.hint) from error

    def expand(self, instruction: Instruction, text: str, variables: Mapping[str, str]) -> str:
        """Return ``text`` with its variables replaced. Raises UsageError naming the instruction's line."""
        try:
            return words.expand(text, variables, self.file.escape)
        except ValueError as error:
            raise self.file.error(instruction.line, f"{instruction.name}: {error}") from error

    def argument_values(self, instruction: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the values of an ARG: the caller's, else its default, else that from before FROM, else none."""
        values: dict[str, str] = {}
        for name, default in instruction.pairs:
            if name in self.arguments:
                values[name] = self.arguments[name]
            elif default is not None:
                values[name] = self.expand(instruction, default, variables)
            elif name in self.defaults:
                values[name] = self.defaults[name]
        return values

    def layer(self, instruction: Instruction, below: Sequence[Layer], key: str, make: Callable[[Path], Path]) -> Layer:
        """Return a step's layer on those ``below``: the one that the same inputs made before, or else the directory
        that ``make`` fills."""
        cached = self.store.cached(key)
        if cached is not None:
            self.report(instruction, "(cached)")
            return cached
        self.report(instruction)
        self._release()
        began, began_s = time.monotonic(), time.time() - 1
        with self.store.scratch() as scratch:
            tree = make(scratch)
            newest_s = settle(tree, began_s, max(map(self.store.newest_s, below), default=EPOCH_S))
            layer = self.store.add_layer(tree, str(instruction), newest_s)
        self.store.remember(key, layer)
        self.progress(f"{self._step()} done in {time.monotonic() - began:.1f} s")
        return layer

    def report(self, instruction: Instruction, outcome: str = "") -> None:
        """Report which step is running, once one has anything to do."""
        text = " ".join(str(instruction).split())
        shown = text if len(text) <= SHOWN_COLUMNS else text[: SHOWN_COLUMNS - 3] + "..."
        line = f"{self._step()} {shown} {outcome}".rstrip()
        if self.held is None:
            self.progress(line)
        else:
            self.held.append(line)

    def _release(self) -> None:
        """Report what was held: there is something to do."""
        for line in self.held or ():
            self.progress(line)
        self.held = None

    def output(self, line: str) -> None:
        """Report a line of a step's output."""
        self.progress(f"    {line}")

    def _step(self) -> str:
        return f"{self.name} {self.done}/{len(self.file.instructions)}"


def _run(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    user = resolve_user(stage.config.user, stage.layers)
    where = f"{steps.file.path}:{instruction.line}"
    key = cache_key(
        stage.layers, "RUN", instruction.words, run_environment(stage), stage.config.user, stage.config.working_dir
    )

    def make(scratch: Path) -> Path:
        return run_command(stage, instruction.words, user, scratch, where, steps.output)

    layer = steps.layer(instruction, stage.layers, key, make)
    return stage.with_layer(layer, str(instruction))


def _copy(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    *patterns, target = (steps.expand(instruction, word, stage.variables) for word in instruction.words)
    flags = {name: steps.expand(instruction, value, stage.variables) for name, value in instruction.flags}
    chown = flags.get("chown", "")
    user = resolve_user(chown, stage.layers)
    mode = _mode(flags["chmod"]) if "chmod" in flags else None
    sources = [path for pattern in patterns for path in steps.context.sources(pattern)]
    copied = [(path, list(steps.context.entries(path))) for path in sources]
    # A trailing slash means a directory, and normalising would remove it.
    absolute = stage.absolute(target) + ("/" if target.endswith(("/", "/.")) or target == "." else "")
    any_directory = any(path.is_dir() for path in sources)
    place, into = destination(absolute, any_directory, len(sources), stage.layers)
    root_mode = _root_mode(sources, mode)

    def make(scratch: Path) -> Path:
        root = scratch / "root"
        root.mkdir()
        tree = Tree(root, stage.layers)
        if into:
            tree.directory(place, user.uid, user.gid, root_mode)
        for source, entries in copied:
            for entry in entries:
                tree.copy(entry, _target(place, into, source, entry), (user.uid, user.gid), mode)
        return root

    digests = [["" if path.is_dir() else path.name, content_digest(entries)] for path, entries in copied]
    key = cache_key(stage.layers, "COPY", digests, place, into, user.uid, user.gid, mode, root_mode)
    return stage.with_layer(steps.layer(instruction, stage.layers, key, make), str(instruction))


def _root_mode(sources: Sequence[Path], mode: int | None) -> int:
    """Return the permissions of a destination that COPY makes: those that a copied directory gets, else 0755."""
    if len(sources) == 1 and sources[0].is_dir():
        return stat.S_IMODE(sources[0].stat().st_mode) if mode is None else mode
    return 0o755


def _mode(text: str) -> int:
    if not re.fullmatch("[0-7]{1,4}", text):
        raise ValueError(f"--chmod={text[:20]} is not an octal number of at most four digits")
    return int(text, 8)


def _target(place: str, into: bool, source: Path, entry: Entry) -> str:
    """Return where an entry goes: the content of a directory into the destination, a file into it or in its place."""
    if not into:
        return place
    prefix = "" if place == "/" else place
    return f"{prefix}/{entry.name or source.name}"


def _workdir(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    path = stage.absolute(steps.expand(instruction, instruction.words[0], stage.variables))
    config = replace(stage.config, working_dir=path)
    if is_directory(path, stage.layers):
        steps.report(instruction)
        return stage.with_config(config, str(instruction))

    def make(scratch: Path) -> Path:
        root = scratch / "root"
        root.mkdir()
        Tree(root, stage.layers).directory(path)
        return root

    layer = steps.layer(instruction, stage.layers, cache_key(stage.layers, "WORKDIR", path), make)
    return replace(stage.with_layer(layer, str(instruction)), config=config)


def _expanded(steps: _Steps, stage: Stage, instruction: Instruction) -> dict[str, str]:
    """Return an instruction's pairs, whose names and values are expanded with the variables set before it."""

    def value(text: str) -> str:
        return steps.expand(instruction, text, stage.variables)

    return {value(name): value(text or "") for name, text in instruction.pairs}


def _env(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    steps.report(instruction)
    for name, value in _expanded(steps, stage, instruction).items():
        stage.env.put(name, value)
    return stage.with_config(stage.config, str(instruction))


def _arg(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    steps.report(instruction)
    for name, value in steps.argument_values(instruction, stage.variables).items():
        stage.arguments.put(name, value)
    return stage.with_config(stage.config, str(instruction))


def _label(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    steps.report(instruction)
    for name, value in _expanded(steps, stage, instruction).items():
        stage.labels.put(name, value)
    return stage.with_config(stage.config, str(instruction))


def _user(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    steps.report(instruction)
    user = steps.expand(instruction, instruction.words[0], stage.variables)
    resolve_user(user, stage.layers)  # so that an unknown user is an error now and not at the first start
    return stage.with_config(replace(stage.config, user=user), str(instruction))


def _expose(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    steps.report(instruction)
    for word in instruction.words:
        number, _, protocol = steps.expand(instruction, word, stage.variables).partition("/")
        if not re.fullmatch("[0-9]{1,5}", number) or not 0 < int(number) < 65536 or protocol not in ("", "tcp", "udp"):
            raise ValueError(f"{word!r} is not a port from 1 to 65535, or port/tcp, port/udp")
        stage.ports.add(f"{int(number)}/{protocol or 'tcp'}")
    return stage.with_config(stage.config, str(instruction))


def _cmd(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    steps.report(instruction)
    config = replace(stage.config, cmd=instruction.words)
    return replace(stage.with_config(config, str(instruction)), own_command=True)


def _entrypoint(steps: _Steps, stage: Stage, instruction: Instruction) -> Stage:
    steps.report(instruction)
    # A command inherited from the parent image was meant for the parent's entry point.
    cmd = stage.config.cmd if stage.own_command else ()
    config = replace(stage.config, entrypoint=instruction.words, cmd=cmd)
    return stage.with_config(config, str(instruction))


_EXECUTE: dict[str, Callable[[_Steps, Stage, Instruction], Stage]] = {
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "RUN": _run,
    "USER": _user,
    "WORKDIR": _workdir,
}
