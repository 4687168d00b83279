"""Execute COPY and ADD, whose layers are made directly in a directory: what is copied, from where and to where."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from runtime.builder import words
from runtime.builder.addresses import is_remote, is_repository, remote_name
from runtime.builder.context import Entry, Files, content_digest
from runtime.builder.copying import Tree, destination
from runtime.builder.heredocs import Heredoc, parse_heredoc
from runtime.builder.ignore import exclusions
from runtime.builder.instruction import Instruction
from runtime.builder.modes import Mode, parse_mode
from runtime.builder.stage import Stage, cache_key
from runtime.builder.steps import Steps
from runtime.errors import UsageError
from runtime.images.rootfs import resolve
from runtime.images.user import resolve_owner

if TYPE_CHECKING:
    from runtime.builder.download import Download


class Destination(Struct, frozen=True):
    """Where the sources of one instruction go: to ``place`` of ``tree``, or ``into`` it, which is a directory then.

    ``owner`` and ``mode`` are None where those of the sources stay.
    """

    tree: Tree
    place: str
    into: bool
    owner: tuple[int, int] | None
    mode: Mode | None

    def put(self, entry: Entry, name: str) -> None:
        """Copy an entry, which is called ``name`` below the destination if that is a directory."""
        target = f"{'' if self.place == '/' else self.place}/{name}" if self.into else self.place
        mode = None if self.mode is None or stat.S_ISLNK(entry.mode) else self.mode.applied(entry.mode)
        self.tree.copy(entry, target, self.owner or entry.owner or (0, 0), mode)


class Source(Protocol):
    """Something that is copied: ``is_directory`` if its content is, ``key`` for the cache, ``copy`` to copy it."""

    @property
    def is_directory(self) -> bool: ...
    @property
    def key(self) -> object: ...
    def copy(self, to: Destination) -> None: ...


class Copied(Struct, frozen=True):
    """Files of a context, a stage or an image: ``top`` is the file or directory itself, ``name`` what it is called.

    ``parents`` are the directories that ``--parents`` makes above it, from the top down.
    """

    top: Entry
    name: str
    entries: tuple[Entry, ...]
    parents: tuple[Entry, ...] = ()

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.top.mode)

    @property
    def key(self) -> object:
        name = self.parents[-1].name if self.parents else "" if self.is_directory else self.name
        return [name, self.name if self.parents else "", content_digest([*self.parents, *self.entries])]

    def copy(self, to: Destination) -> None:
        for parent in self.parents:
            to.put(parent, parent.name)
        prefix = f"{self.parents[-1].name}/" if self.parents else ""
        for entry in self.entries:
            to.put(entry, prefix + (entry.name or self.name))


class Text(Struct, frozen=True):
    """A here-document, which becomes a file."""

    name: str
    content: bytes
    is_directory: bool = False

    @property
    def key(self) -> object:
        return [self.name, "text", hashlib.sha256(self.content).hexdigest()]

    def copy(self, to: Destination) -> None:
        target = f"{'' if to.place == '/' else to.place}/{self.name}" if to.into else to.place
        to.tree.write(target, self.content, to.owner or (0, 0), to.mode.applied(0o644) if to.mode else 0o644)


class Archive(Struct, frozen=True):
    """An archive that is unpacked; ``digest`` is that of its content."""

    path: Path
    digest: str
    is_directory: bool = True

    @property
    def key(self) -> object:
        return ["", "archive", self.digest]

    def copy(self, to: Destination) -> None:
        from runtime.builder.archives import Target, unpack  # archives and HTTP are for ADD, and slow to import

        unpack(self.path, Target(to.tree, to.place, to.owner, to.mode))


class Remote(Struct, frozen=True):
    """A file from a server, which only its owner may read, as in Docker.

    Without a ``checksum`` it was fetched already, as only its content says whether a step is cached.
    """

    address: str
    name: str
    checksum: str
    download: Download | None = None
    is_directory: bool = False

    @property
    def key(self) -> object:
        content = [self.download.sha256, self.download.modified_s] if self.download else [self.checksum]
        return [self.name, "remote", *content]

    def copy(self, to: Destination) -> None:
        from runtime.builder.download import fetch

        beside = to.tree.root.with_name(f"fetched-{self.checksum}")
        fetched = self.download or fetch(self.address, beside, self.checksum)
        entry = Entry(fetched.path, "", stat.S_IFREG | 0o600, (0, 0), fetched.modified_s * 10**9)
        to.put(entry, self.name)


def add(steps: Steps, stage: Stage, instruction: Instruction) -> Stage:
    """Execute a COPY or an ADD. Raises UsageError, WorkloadError or ValueError, which do not name the line."""
    *patterns, target = (steps.expand(word, stage.variables) for word in instruction.words)
    owner = _owner(steps, stage, instruction)
    mode = parse_mode(steps.expand(instruction.flag("chmod"), stage.variables)) if instruction.flag("chmod") else None
    if not target:
        raise ValueError("the destination is empty")
    with ExitStack() as undo:
        sources = _sources(steps, stage, instruction, patterns, undo)
        # With --link, a layer does not depend on those below, nor on their links and owners.
        below = () if instruction.flag("link") == "true" else stage.layers
        # A trailing slash means a directory, and normalising would remove it.
        absolute = stage.absolute(target) + ("/" if target.endswith(("/", "/.")) or target == "." else "")
        any_directory = any(source.is_directory for source in sources) or instruction.flag("parents") == "true"
        place, into = destination(absolute, any_directory, len(sources), below)
        if not into:
            place = resolve(place, below)  # what the destination is a link to is replaced, not the link
        _check_names(sources, into)

        def make(scratch: Path) -> Path:
            root = scratch / "root"
            root.mkdir()
            tree = Tree(root, below)
            if into and sources:
                # Of a directory only the content is copied: its own permissions and owner stay behind.
                tree.directory(place, *(owner or (0, 0)))
            for source in sources:
                source.copy(Destination(tree, place, into, owner, mode))
            return root

        keys = [source.key for source in sources]
        key = cache_key(below, "COPY", keys, place, into, owner, repr(mode))
        return stage.with_layer(steps.layer(instruction, below, key, make, exact=True), str(instruction))


def _owner(steps: Steps, stage: Stage, instruction: Instruction) -> tuple[int, int] | None:
    """Return the user and the group of ``--chown``, or None where the sources keep theirs."""
    if not instruction.flag("chown"):
        return None
    return resolve_owner(steps.expand(instruction.flag("chown"), stage.variables), stage.layers)


def _sources(
    steps: Steps, stage: Stage, instruction: Instruction, patterns: Sequence[str], undo: ExitStack
) -> tuple[Source, ...]:
    """Return what is copied; what has to be fetched lies in a directory that ``undo`` removes."""
    files = steps.files(instruction.flag("from"))
    if instruction.flag("checksum") and not all(is_remote(pattern) for pattern in patterns):
        raise ValueError("--checksum is for the addresses of files (http, https)")
    sources: list[Source] = []
    for pattern, word in zip(patterns, instruction.words, strict=False):
        heredoc = _heredoc(instruction, word)
        if heredoc is not None:
            sources.append(_text(heredoc, stage))
        elif instruction.name == "ADD" and is_repository(pattern):
            raise UsageError(f"ADD {pattern[:200]}: a git repository", "clone it beside the Dockerfile, and COPY it")
        elif instruction.name == "ADD" and is_remote(pattern):
            sources.append(_remote(steps, stage, instruction, pattern, undo))
        elif found := _copied(files, instruction, pattern):
            sources += found
        else:
            steps.output(f"nothing to copy: {pattern[:200]}")
    return tuple(sources)


def _heredoc(instruction: Instruction, word: str) -> Heredoc | None:
    begun = None if instruction.exec_form else parse_heredoc(word)
    return next((one for one in instruction.heredocs if begun and one.name == begun.name), None)


def _text(heredoc: Heredoc, stage: Stage) -> Text:
    """Return a here-document's file; its variables are replaced by the rules for words, but quotes stay."""
    content = words.expand(heredoc.text, stage.variables, quotes=False) if heredoc.expands else heredoc.text
    return Text(heredoc.name.rpartition("/")[2], content.encode("utf-8", "surrogateescape"))


def _remote(steps: Steps, stage: Stage, instruction: Instruction, address: str, undo: ExitStack) -> Source:
    from runtime.builder.archives import is_archive
    from runtime.builder.download import check_checksum, fetch

    name = remote_name(address)
    checksum = steps.expand(instruction.flag("checksum"), stage.variables) if instruction.flag("checksum") else ""
    if checksum:
        check_checksum(checksum)
        if instruction.flag("unpack") != "true":
            return Remote(address, name, checksum)
    scratch = undo.enter_context(steps.build.store.scratch())
    steps.build.reporter.working(f"    fetching {address[:200]}")
    fetched = fetch(address, scratch / "file", checksum)
    if instruction.flag("unpack") == "true" and is_archive(fetched.path):
        return Archive(fetched.path, fetched.sha256)
    return Remote(address, name, checksum, fetched)


def _copied(files: Files, instruction: Instruction, pattern: str) -> list[Source]:
    """Return the sources that a pattern matches: files, directories, and archives that ADD unpacks."""
    parents = instruction.flag("parents") == "true"
    rules = exclusions(instruction.flag_values("exclude"))
    # `a/./b` keeps only the directories from the dot on.
    pivot, dot, rest = pattern.partition("/./")
    matched = files.sources(f"{pivot}/{rest}" if dot else pattern, spanning=parents)
    found: list[Source] = []
    for path in matched:
        top = files.itself(path)
        name = path.name or "root"
        if _is_unpacked(instruction, top.path):
            found.append(Archive(top.path, content_digest([top])))
            continue
        entries = tuple(entry for entry in files.entries(path) if not rules.leaves_out(entry.name or name))
        if not entries and not stat.S_ISDIR(top.mode):
            continue
        if not parents:
            found.append(Copied(top, name, entries))
            continue
        relative = files.relative(path)
        skipped = len(pivot.strip("/").split("/")) if dot and pivot.strip("/.") else 0
        found.append(Copied(top, name, entries, _parents(files, path, relative, skipped, stat.S_ISDIR(top.mode))))
    return found


def _is_unpacked(instruction: Instruction, path: Path) -> bool:
    if instruction.name != "ADD" or instruction.flag("unpack") == "false":
        return False
    from runtime.builder.archives import is_archive

    return is_archive(path)


def _parents(files: Files, path: Path, relative: str, skipped: int, itself: bool) -> tuple[Entry, ...]:
    """Return the directories above a source, and a directory ``itself``, as ``--parents`` makes them."""
    names = relative.split("/") if relative not in ("", ".") else []
    count = len(names) if itself else len(names) - 1
    entries: list[Entry] = []
    for depth in range(skipped, count):
        directory = files.itself(path.parents[len(names) - 2 - depth] if depth < len(names) - 1 else path)
        entries.append(
            Entry(
                directory.path,
                "/".join(names[skipped : depth + 1]),
                directory.mode,
                directory.owner,
                directory.mtime_ns,
            )
        )
    return tuple(entries)


def _check_names(sources: Sequence[Source], into: bool) -> None:
    """Raise ValueError for a remote file that is to go into a directory under no name."""
    if into and any(isinstance(source, Remote) and not source.name for source in sources):
        raise ValueError("the address has no file name: name the file in the destination, without a slash at the end")
