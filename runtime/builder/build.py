"""Build an image from a Dockerfile: plan its stages, execute those that are needed, side by side where they can be.

Every instruction that changes files makes a layer, which is cached by its inputs. All instructions of Docker's
reference are supported, with its meaning. A RUN is a container of this runtime that connects to others; none connects
to it.

The way of a Dockerfile: its text becomes lines (``lines``, ``heredocs``), these instructions (``forms``, ``flags``),
these stages (``stages``). What is needed is executed, a ``Stage`` after a ``Stage`` (``stage``): by ``metadata``,
which changes no file, by ``adding`` for COPY and ADD, and by ``mounting`` and ``running`` for RUN.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from runtime.builder import words
from runtime.builder.adding import add
from runtime.builder.arguments import builtin_arguments, host_platform
from runtime.builder.context import Context
from runtime.builder.copying import Tree
from runtime.builder.dockerfile import Dockerfile, read
from runtime.builder.instruction import Instruction
from runtime.builder.metadata import METADATA
from runtime.builder.mounting import run
from runtime.builder.runs import Cancelled, Runs
from runtime.builder.stage import Pairs, Stage, cache_key
from runtime.builder.stages import Planned, Resolver, before_line, leading_arguments, plan_stages
from runtime.builder.steps import Build, Reporter, Steps, argument_values
from runtime.errors import UsageError, WorkloadError
from runtime.images.base import REFERENCE, ensure_base
from runtime.images.model import Image
from runtime.images.rootfs import is_directory
from runtime.images.store import Store
from runtime.images.user import resolve_owner

# So many stages run side by side on any host: what they fetch takes no processor.
LEAST_THREADS = 4


def build(
    store: Store,
    *,
    context: Path,
    dockerfile: Path,
    reference: str,
    progress: Callable[[str], None],
    arguments: Mapping[str, str] | None = None,
    base: str = "",
    target: str = "",
    resolve: Resolver | None = None,
    secrets: Mapping[str, bytes] | None = None,
    agents: Mapping[str, Path] | None = None,
    contexts: Mapping[str, Path | str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Image:
    """Build the stage ``target`` of ``dockerfile``, "" the last, and name the image ``reference``.

    ``FROM testbed/base`` is the base image of the release ``base``, of "" the host's; ``FROM testbed/base:trixie`` that
    of trixie. All other images are those that ``resolve`` returns; without it, those of the store.
    ``progress`` is called with a line for each step, which says whether it was cached and how long it took; with none
    where there was nothing to do.
    ``arguments`` are values for ARG; ``secrets`` (contents) and ``agents`` (sockets) are for RUN --mount, by their ids.
    ``contexts`` are named ones, which ``--from`` and FROM take before stages and images: a folder, or the reference of
    an image. ``labels`` are added to the image's own.
    Raises UsageError (``file:line: what``) for an invalid Dockerfile, WorkloadError if a RUN fails, PrerequisiteError
    if the host lacks something. The store is unchanged then, except for the layers of the steps that succeeded, which
    the next build uses.
    """
    file = read(dockerfile, context)
    session = _session(store, file, Context.at(context, dockerfile), reference, progress, arguments or {}, target)
    options = _options(dockerfile, context, arguments or {}, base)
    session = replace(session, secrets=secrets or {}, agents=agents or {}, options=options)
    named = {name: one if isinstance(one, str) else Context.at(one) for name, one in (contexts or {}).items()}
    resolve = resolve or default_resolver(store, progress, base)
    planned = plan_stages(file, target, session.defaults, resolve, named)
    with store.building(progress):
        stage = _execute(session, planned)
        for name, value in (labels or {}).items():
            stage.labels.put(name, value)
        if not stage.layers:
            raise file.error(
                planned[-1].stage.source.line, "the image has no files", "FROM scratch needs a COPY to begin with"
            )
        return store.tag(reference, stage.finished_config, stage.layers, tuple(stage.history))


def default_resolver(store: Store, progress: Callable[[str], None], base: str = "") -> Resolver:
    """Return the resolver of images that are there: those of the store, and the base images, which are made if missing.

    ``base`` is the release of an unqualified base image, "" the host's.
    """

    def resolve(reference: str, platform: str) -> Image | None:
        if platform not in ("", host_platform()):
            raise UsageError(f"the platform {platform[:40]}", f"this host builds for {host_platform()}")
        repository, _, release = reference.partition(":")
        if repository == REFERENCE:
            return ensure_base(store, progress, release or base)
        image = store.find(reference)
        if image is None:
            known = ", ".join(sorted({REFERENCE, *store.references()}))
            raise UsageError("no such image", f"known images: {known}")
        return image

    return resolve


def stage_before(
    store: Store,
    dockerfile: Path,
    line: int,
    *,
    context: Path,
    progress: Callable[[str], None],
    arguments: Mapping[str, str] | None = None,
    base: str = "",
    resolve: Resolver | None = None,
) -> Stage:
    """Return the state of a build before the instruction that begins in ``line``: what its command would find.

    Raises as ``build`` does, and UsageError if no instruction of a stage begins there.
    """
    file, target = before_line(read(dockerfile, context), line)
    name = dockerfile.name
    session = _session(store, file, Context.at(context, dockerfile), name, progress, arguments or {}, target)
    planned = plan_stages(file, target, session.defaults, resolve or default_resolver(store, progress, base))
    with store.building(progress):
        return _execute(session, planned)


def _options(dockerfile: Path, context: Path, arguments: Mapping[str, str], base: str) -> str:
    """Return the options of a command that builds the same, with a space before each."""
    options = [] if context == dockerfile.parent else ["--folder", str(context)]
    for name, value in arguments.items():
        options += ["--arg", f"{name}={value}"]
    options += ["--base", base] if base else []
    return "".join(f" {shlex.quote(option)}" for option in options)


def _session(
    store: Store,
    file: Dockerfile,
    context: Context,
    reference: str,
    progress: Callable[[str], None],
    given: Mapping[str, str],
    target: str,
) -> Build:
    """Return what the stages of a build share, with the values of ARG that come before the first FROM."""
    defaults = leading_values(file, given, target)
    name = reference.rpartition("/")[2]
    return Build(store, file, context, name, Reporter(progress), given, defaults, Runs())


def leading_values(file: Dockerfile, given: Mapping[str, str], target: str = "") -> Pairs:
    """Return the values of the builder's own arguments and of ARG before the first FROM, which FROM may use.

    ``given`` are values for ARG. Raises UsageError (``file:line: what``).
    """
    builtin = builtin_arguments(target)
    defaults = Pairs({name: given.get(name, value) for name, value in builtin.items()}.items())
    for instruction in leading_arguments(file):
        for pair in instruction.pairs:
            one = replace(instruction, pairs=(pair,))
            try:
                values = argument_values(one, given, lambda text: words.expand(text, defaults, file.escape), defaults)
                for name, value in values.items():
                    defaults.put(name, value)
            except ValueError as error:
                raise file.error(instruction.line, f"ARG: {error}") from error
    return defaults


def _execute(session: Build, planned: Sequence[Planned]) -> Stage:
    """Execute stages, each as soon as those that it needs are finished, and return the last.

    The first error ends the others, too.
    """
    first_steps = _first_steps(session.file, planned)
    total = first_steps[-1] + len(planned[-1].instructions)
    steps = {
        one.stage.number: Steps(session, one, number, total) for one, number in zip(planned, first_steps, strict=True)
    }
    missing = {one.stage.number: set(one.needs) for one in planned}
    dependents: dict[int, list[int]] = {}
    for number, needs in missing.items():
        for need in needs:
            dependents.setdefault(need, []).append(number)
    with ExitStack() as undo:
        undo.enter_context(session.runs)
        pool = undo.enter_context(
            ThreadPoolExecutor(min(len(planned), max(LEAST_THREADS, os.cpu_count() or 1)), "stage")
        )
        undo.callback(session.runs.cancel)  # before the pool waits for its threads
        running = {pool.submit(_execute_stage, steps[number]): number for number in missing if not missing[number]}
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                number = running.pop(future)
                session.finished[number] = _result(future, running)
                for dependent in dependents.get(number, ()):
                    missing[dependent].discard(number)
                    if not missing[dependent]:
                        running[pool.submit(_execute_stage, steps[dependent])] = dependent
    return session.finished[planned[-1].stage.number]


def _result(future: Future[Stage], others: Iterable[Future[Stage]]) -> Stage:
    """Return what a stage has become; of several errors, raise the one that is not just the end of the others."""
    try:
        return future.result()
    except Cancelled:
        for other in others:
            other.result()
        raise


def _first_steps(file: Dockerfile, planned: Sequence[Planned]) -> list[int]:
    """Return the number of each stage's FROM, if all steps of the build are counted from 1 on."""
    numbers = [len(leading_arguments(file)) + 1]
    for one in planned[:-1]:
        numbers.append(numbers[-1] + len(one.instructions) + 1)
    return numbers


def _execute_stage(steps: Steps) -> Stage:
    stage = steps.begin()
    for instruction in steps.planned.instructions:
        steps.number += 1
        steps.build.runs.check()
        try:
            stage = _execute_step(steps, stage, instruction)
        except (ValueError, OSError, UsageError, WorkloadError) as error:
            raise steps.error(instruction, error) from error
    return stage


def _execute_step(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    """Return the stage after ``instruction``."""
    if instruction.name in METADATA:
        steps.report(instruction)
        return METADATA[instruction.name](steps, stage, instruction)
    return _WITH_FILES[instruction.name](steps, stage, instruction)


def _workdir(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    path = stage.absolute(steps.expand(instruction.words[0], stage.variables))
    config = replace(stage.config, working_dir=path)
    if is_directory(path, stage.layers):
        steps.report(instruction)
        return stage.with_config(config, str(instruction))

    owner = resolve_owner(stage.config.user, stage.layers)

    def make(scratch: Path) -> Path:
        root = scratch / "root"
        root.mkdir()
        Tree(root, stage.layers).directory(path, *owner)
        return root

    key = cache_key(stage.layers, "WORKDIR", path, owner)
    layer = steps.layer(instruction, stage.layers, key, make)
    return replace(stage.with_layer(layer, str(instruction)), config=config)


_WITH_FILES: dict[str, Callable[[Steps, Stage, Instruction], Stage]] = {
    "ADD": add,
    "COPY": add,
    "RUN": run,
    "WORKDIR": _workdir,
}
