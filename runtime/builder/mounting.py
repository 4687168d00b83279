"""Prepare what ``RUN --mount`` asks for, and execute a RUN with it; nothing of a mount becomes part of the image."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct, field

from runtime.builder.context import Entry, Files, content_digest
from runtime.builder.copying import Tree
from runtime.builder.image_files import ImageFiles
from runtime.builder.instruction import Instruction
from runtime.builder.mounts import RunMount, parse_mount
from runtime.builder.stage import Stage, cache_key
from runtime.builder.steps import Steps
from runtime.config.types import Mount
from runtime.errors import UsageError
from runtime.images.base import proxy_environment
from runtime.images.store import CACHES
from runtime.images.user import resolve_user

SECRETS, AGENT = "/run/secrets", "/run/buildkit/ssh_agent.0"
# An overlay's options must fit into a page (mount(2)); what does not is copied.
_MOST_OPTIONS_BYTES = 4000
_locks: dict[str, threading.Lock] = {}


class Prepared(Struct):
    """The mounts of one RUN, as the configuration of a container has them, and the variables that come with them."""

    mounts: list[Mount] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)


def run(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    """Execute a RUN. Raises UsageError or ValueError, which do not name the line, and WorkloadError, which does."""
    network, security = instruction.flag("network", "default"), instruction.flag("security", "sandbox")
    if network not in ("default", "none"):
        raise UsageError(f"RUN --network={network[:40]}", "a build has no network but default and none")
    if security != "sandbox":
        raise UsageError(f"RUN --security={security[:40]}", "every command of a build runs in the sandbox")
    mounts = tuple(
        parse_mount(text, lambda value: steps.expand(value, stage.variables))
        for text in instruction.flag_values("mount")
    )
    user = resolve_user(stage.config.user, stage.layers)
    args, script = _arguments(stage, instruction)
    contents = [[mount.key, _content_key(steps, mount)] for mount in mounts]
    inputs = (args, script, stage.run_environment, stage.config.user, stage.config.working_dir, network, contents)
    key = cache_key(stage.layers, "RUN", *inputs)

    def make(scratch: Path) -> Path:
        from runtime.builder.running import Command, run_command  # containers, which a cached step does without

        with ExitStack() as undo:
            prepared = _prepare(steps, stage, mounts, scratch, undo)
            proxies = proxy_environment(steps.build.arguments)  # of all ARG, these need not be declared
            if script:
                prepared.mounts.append(_script(script, args[0], scratch))
            command = Command(
                args,
                user,
                f"{steps.build.file.path}:{instruction.line}",
                " ".join(instruction.words) if instruction.exec_form else instruction.text,
                _hint(steps, instruction),
                tuple((proxies | prepared.variables).items()),
                tuple(prepared.mounts),
                connected=network == "default",
            )
            return run_command(stage, command, scratch, steps.build.runs, steps.output)

    return stage.with_layer(steps.layer(instruction, stage.layers, key, make), str(instruction))


def _hint(steps: Steps, instruction: Instruction) -> str:
    """Return what to do when a command has failed: look around where it began."""
    where = f"{steps.build.file.path}:{instruction.line}{steps.build.options}"
    shell = "" if instruction.trigger else f"; a shell before this step: ./invoke images.shell {where}"
    return f"above is the end of its output{shell}"


def _arguments(stage: Stage, instruction: Instruction) -> tuple[tuple[str, ...], str]:
    """Return what a RUN executes, and the script that is mounted for it, if any.

    A here-document that is all of the RUN is executed by the shell, or by the interpreter that its first line names;
    others are part of what the shell reads.
    """
    heredocs = instruction.heredocs
    if instruction.exec_form or not heredocs:
        return stage.command(instruction.words, instruction.exec_form), ""
    if len(heredocs) > 1 or len(instruction.text.split()) > 1:
        return stage.command((instruction.whole_text,), exec_form=False), ""
    [heredoc] = heredocs
    if heredoc.text.startswith("#!"):
        return (f"/dev/pipes/{heredoc.name.rpartition('/')[2]}",), heredoc.text
    return stage.command((heredoc.text,), exec_form=False), ""


def _script(text: str, target: str, scratch: Path) -> Mount:
    path = scratch / "script"
    path.write_text(text)
    path.chmod(0o755)
    return Mount(target, "bind", str(path), ("bind", "ro"))


def _content_key(steps: Steps, mount: RunMount) -> object:
    """Return what a mount's content is for the cache: only that of a bind is a part of what a RUN depends on."""
    if mount.type != "bind":
        return None
    files = steps.files(mount.source_name)
    if isinstance(files, ImageFiles):
        return [layer.diff_id for layer in files.layers]
    return content_digest(_entries(files, mount.source)[1])


def _entries(files: Files, source: str) -> tuple[Entry, list[Entry]]:
    """Return what the source of a bind is, and all that it has."""
    path = _source(files, source)
    return files.itself(path), list(files.entries(path))


def _source(files: Files, source: str) -> Path:
    """Return the one path that the source of a bind is. Raises UsageError for wildcards that match none or several."""
    found = files.sources(source or "/")
    if len(found) != 1:
        raise UsageError(f"RUN --mount: the source {source[:200]} matches {'several files' if found else 'no file'}")
    return found[0]


def _prepare(steps: Steps, stage: Stage, mounts: Iterable[RunMount], scratch: Path, undo: ExitStack) -> Prepared:
    prepared = Prepared()
    for number, mount in enumerate(mounts):
        place = scratch / f"mount-{number}"
        target = stage.absolute(mount.target) if mount.target else ""
        options = ("rbind", "ro" if mount.read_only else "rw")
        if mount.type == "tmpfs":
            size = (f"size={mount.size_bytes}",) if mount.size_bytes else ()
            prepared.mounts.append(Mount(target, "tmpfs", "tmpfs", ("nosuid", "nodev", "mode=1777", *size)))
        elif mount.type == "bind":
            prepared.mounts.append(_bind(steps, mount, target, place))
        elif mount.type == "cache":
            path = _cache(steps, mount, undo)
            prepared.mounts.append(Mount(target, "bind", str(path), options))
        elif mount.type == "secret":
            _secret(steps, mount, target, f"secret-{id(scratch)}-{number}", prepared)
        else:
            _agent(steps, mount, target or AGENT, prepared)
    return prepared


def _bind(steps: Steps, mount: RunMount, target: str, place: Path) -> Mount:
    """Return a bind of a context's files, which are copied, or of an image's, which are not. Writes are forgotten."""
    access = "ro" if mount.read_only else "rw"
    files = steps.files(mount.source_name)
    if isinstance(files, ImageFiles):
        path = _source(files, mount.source)
        top = files.itself(path)
        if stat.S_ISDIR(top.mode):
            options = _overlay(files.merged(str(path)), place)
            if options:
                return Mount(target, "overlay", "overlay", (*options, access))
        elif mount.read_only:
            return Mount(target, "bind", str(top.path), ("bind", "ro"))
    top, entries = _entries(files, mount.source)
    place.mkdir()
    copied = place / "content"
    tree = Tree(place, ())
    if stat.S_ISDIR(top.mode):
        tree.directory("/content", *(top.owner or (0, 0)), stat.S_IMODE(top.mode))
    for entry in entries:
        tree.copy(entry, f"/content/{entry.name}".rstrip("/"), entry.owner or (0, 0), None)
    return Mount(target, "bind", str(copied), ("bind", access))


def _overlay(folders: Sequence[str], place: Path) -> tuple[str, ...]:
    """Return the options of an overlay of these directories, topmost first; none if they are too long for mount(2)."""
    upper, work = place / "upper", place / "work"
    options = (f"lowerdir={':'.join(folders)}", f"upperdir={upper}", f"workdir={work}")
    if len(",".join(options).encode()) > _MOST_OPTIONS_BYTES or any(c in path for path in folders for c in ":,\\"):
        return ()
    upper.mkdir(parents=True)
    work.mkdir()
    upper.chmod(stat.S_IMODE(os.stat(folders[0]).st_mode))
    return options


def _cache(steps: Steps, mount: RunMount, undo: ExitStack) -> Path:
    """Return the directory of a cache, made at its first use; a RUN that does not share it has it alone."""
    name = hashlib.sha256(f"{mount.id}\0{mount.source_name}\0{mount.source}".encode()).hexdigest()[:26]
    if mount.sharing != "shared":  # the store has one builder at a time, so others are stages of this build
        undo.enter_context(_locks.setdefault(name, threading.Lock()))
    path = steps.build.store.root / CACHES / name
    with steps.build.lock:
        if not path.is_dir():
            _fill_cache(steps, mount, path)
    return path


def _fill_cache(steps: Steps, mount: RunMount, path: Path) -> None:
    """Make a cache: empty, or with the content of a stage or image that ``from`` names."""
    path.parent.mkdir(exist_ok=True)
    with steps.build.store.scratch() as scratch:
        tree = Tree(scratch, ())
        tree.directory("/cache", mount.uid, mount.gid, 0o755 if mount.mode is None else mount.mode)
        if mount.source_name:
            for entry in _entries(steps.files(mount.source_name), mount.source)[1]:
                tree.copy(entry, f"/cache/{entry.name}", entry.owner or (0, 0), None)
        os.rename(scratch / "cache", path)


def _secret(steps: Steps, mount: RunMount, target: str, name: str, prepared: Prepared) -> None:
    """Add a secret as a file in memory, as a variable, or both; one that nobody gave is left out, unless required."""
    content = steps.build.secrets.get(mount.id)
    if content is None:
        if mount.required:
            raise UsageError(
                f"RUN --mount: the secret {mount.id[:80]!r} is required", "give it to the build (--secret)"
            )
        return
    if mount.env:
        prepared.variables[mount.env] = content.decode("utf-8", "surrogateescape")
    if target or not mount.env:
        path = steps.build.runs.memory() / name
        path.touch(0o600)
        path.write_bytes(content)
        os.chown(path, mount.uid, mount.gid)
        path.chmod(0o400 if mount.mode is None else mount.mode)
        options = ("bind", "ro" if mount.read_only else "rw")
        prepared.mounts.append(Mount(target or f"{SECRETS}/{mount.id}", "bind", str(path), options))


def _agent(steps: Steps, mount: RunMount, target: str, prepared: Prepared) -> None:
    """Add the socket of an agent of ssh, and the variable that names it."""
    socket = steps.build.agents.get(mount.id)
    if socket is None:
        if mount.required:
            raise UsageError(f"RUN --mount: the agent {mount.id[:80]!r} is required", "give it to the build (--ssh)")
        return
    prepared.mounts.append(Mount(target, "bind", str(socket), ("bind",)))
    prepared.variables["SSH_AUTH_SOCK"] = target
