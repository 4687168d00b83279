"""Parse the arguments of each kind of instruction, as Docker's "Dockerfile reference" describes them."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec.structs import replace

from runtime.builder import words
from runtime.builder.durations import parse_duration
from runtime.builder.flags import parse_flags, split_flags
from runtime.builder.heredocs import Heredoc, parse_heredoc
from runtime.builder.instruction import Instruction
from runtime.images.model import Healthcheck

_UNSPEAKABLE = re.compile("[\0\ud800-\udfff]")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
# Docker's engine refuses shorter ones (moby, api/types/container: MinimumDuration).
_SHORTEST_NS = 10**6
_NOT_IN_ONBUILD = ("FROM", "MAINTAINER", "ONBUILD")
MOST_RETRIES = 2**31 - 1


def parse_instruction(
    text: str, heredocs: tuple[Heredoc, ...] = (), line: int = 1, escape: str = words.ESCAPE
) -> Instruction:
    """Return the instruction that a line without continuations is. Raises ValueError."""
    name, *rest = words.BLANKS.split(text, maxsplit=1)
    name, text = name.upper(), "".join(rest)
    if name not in _PARSERS:
        raise ValueError(f"unknown instruction {name[:40]}; known: {', '.join(sorted(_PARSERS))}")
    try:
        raw_flags, text = split_flags(text)
        flags = parse_flags(name, raw_flags)
        if not text:
            raise ValueError("needs an argument")
        entry = _PARSERS[name](Instruction(name, line, text, flags, heredocs=heredocs), escape)
        _check_words(entry)
        return entry
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _check_words(entry: Instruction) -> None:
    """Raise ValueError for words that a JSON array can hold and a process cannot be given."""
    for word in entry.words:
        if _UNSPEAKABLE.search(word):
            raise ValueError(f"{word!r} is no text that a process can be given")


def _parse_command(entry: Instruction, escape: str) -> Instruction:
    array = words.json_words(entry.text)
    if array is None:
        return replace(entry, words=(entry.text,))
    if not array and entry.name == "RUN":
        raise ValueError("the array is empty")
    return replace(entry, words=array, exec_form=True)


def _parse_shell(entry: Instruction, escape: str) -> Instruction:
    array = words.json_words(entry.text)
    if not array:
        raise ValueError('takes a JSON array of strings, such as ["/bin/bash", "-c"]')
    return replace(entry, words=array, exec_form=True)


def _split_at_blanks(text: str) -> tuple[str, ...]:
    return tuple(word for word in words.BLANKS.split(text) if word)


def _parse_words(entry: Instruction, escape: str) -> Instruction:
    return replace(entry, words=_split_at_blanks(entry.text))


def _parse_list(entry: Instruction, escape: str) -> Instruction:
    array = words.json_words(entry.text)
    found = _split_at_blanks(entry.text) if array is None else array
    return replace(entry, words=found, exec_form=array is not None)


def _parse_copy(entry: Instruction, escape: str) -> Instruction:
    entry = _parse_list(entry, escape)
    if len(entry.words) < 2:
        raise ValueError("needs at least one source and a destination")
    if not entry.exec_form and parse_heredoc(entry.words[-1]) is not None:
        raise ValueError("the destination is a here-document; only sources can be")
    return entry


def _parse_volume(entry: Instruction, escape: str) -> Instruction:
    entry = _parse_list(entry, escape)
    if not entry.words or not all(word.strip(words.SPACES) for word in entry.words):
        raise ValueError("needs the path of a directory, and none of its paths may be empty")
    return entry


def _parse_whole(entry: Instruction, escape: str) -> Instruction:
    return replace(entry, words=(entry.text,))


def _parse_from(entry: Instruction, escape: str) -> Instruction:
    found = _split_at_blanks(entry.text)
    if len(found) == 3 and found[1].upper() == "AS":
        stage = found[2].lower()
        if not _STAGE_NAME.fullmatch(stage):
            raise ValueError(
                f"{found[2][:40]!r} is no name of a stage: it begins with a letter; then 0-9, -, _ and . too"
            )
        return replace(entry, words=(found[0], stage))
    if len(found) != 1:
        raise ValueError("takes one image, and optionally AS a name")
    return replace(entry, words=found)


def _parse_pairs(entry: Instruction, escape: str) -> Instruction:
    found = words.split(entry.text, escape)
    if not found or "=" not in found[0]:
        # The old form: NAME, and the rest of the line as the value.
        name, *value = words.BLANKS.split(entry.text, maxsplit=1)
        if not value:
            raise ValueError(f"{name} has no value")
        return replace(entry, pairs=((name, value[0]),))
    return replace(entry, pairs=tuple(_pair(word) for word in found))


def _parse_arg(entry: Instruction, escape: str) -> Instruction:
    found = words.split(entry.text, escape)
    if not found:
        raise ValueError("needs a name")
    return replace(entry, pairs=tuple(_pair(word) if "=" in word else (word, None) for word in found))


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not name or not equals:
        raise ValueError(f"{word!r} is not NAME=value")
    return name, value


def _parse_onbuild(entry: Instruction, escape: str) -> Instruction:
    parse_triggered(entry.text, entry.heredocs, entry.line, escape)
    return replace(entry, words=(entry.whole_text,))


def parse_triggered(text: str, heredocs: tuple[Heredoc, ...], line: int, escape: str) -> Instruction:
    """Return the instruction that an ONBUILD has. Raises ValueError, also for kinds that it may not have."""
    name = words.BLANKS.split(text, maxsplit=1)[0].upper()
    if name in _NOT_IN_ONBUILD:  # before it is parsed: there may be thousands, one in the other
        raise ValueError(f"{name[:40]} may not be triggered")
    return parse_instruction(text, heredocs, line, escape)


def _parse_healthcheck(entry: Instruction, escape: str) -> Instruction:
    kind, *rest = words.BLANKS.split(entry.text, maxsplit=1)
    command = "".join(rest)
    if kind.upper() == "NONE":
        if command or entry.flags:
            raise ValueError("NONE takes nothing else")
        return replace(entry, words=("NONE",))
    if kind.upper() != "CMD":
        raise ValueError(f"{kind[:40]!r} is neither CMD nor NONE")
    array = words.json_words(command)
    if not command or array == ():
        raise ValueError("CMD has no command")
    entry = replace(entry, words=("CMD", *array) if array else ("CMD-SHELL", command), exec_form=bool(array))
    healthcheck_of(entry)
    return entry


def healthcheck_of(entry: Instruction) -> Healthcheck:
    """Return what a HEALTHCHECK says. Raises ValueError for a duration or number that is none."""
    return Healthcheck(
        test=entry.words,
        interval_ns=_duration_of(entry, "interval"),
        timeout_ns=_duration_of(entry, "timeout"),
        start_period_ns=_duration_of(entry, "start-period"),
        start_interval_ns=_duration_of(entry, "start-interval"),
        retries=_retries(entry.flag("retries", "0")),
    )


def _duration_of(entry: Instruction, flag: str) -> int:
    try:
        duration_ns = parse_duration(entry.flag(flag, "0"))
    except ValueError as error:
        raise ValueError(f"--{flag}: {error}") from error
    if 0 < duration_ns < _SHORTEST_NS:
        raise ValueError(f"--{flag}={entry.flag(flag)} is less than a millisecond")
    return duration_ns


def _retries(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > MOST_RETRIES:
        raise ValueError(f"--retries={text[:20]} is no number from 0 to {MOST_RETRIES}")
    return int(text)


_PARSERS: dict[str, Callable[[Instruction, str], Instruction]] = {
    "ADD": _parse_copy,
    "ARG": _parse_arg,
    "CMD": _parse_command,
    "COPY": _parse_copy,
    "ENTRYPOINT": _parse_command,
    "ENV": _parse_pairs,
    "EXPOSE": _parse_words,
    "FROM": _parse_from,
    "HEALTHCHECK": _parse_healthcheck,
    "LABEL": _parse_pairs,
    "MAINTAINER": _parse_whole,
    "ONBUILD": _parse_onbuild,
    "RUN": _parse_command,
    "SHELL": _parse_shell,
    "STOPSIGNAL": _parse_whole,
    "USER": _parse_whole,
    "VOLUME": _parse_volume,
    "WORKDIR": _parse_whole,
}
