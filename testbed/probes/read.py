"""Reads the probes from testbed/probes/data: a file for each class, checked as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from testbed.probes.kinds import CANARIES, COMMON
from testbed.probes.model import Probe
from testbed.rungs.model import CLASSES, WALLS
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, read_tree, require

FOLDER = Path(__file__).resolve().with_name("data")
_FIELDS = ("name", "tries", "why", "wall", "canary", "words", "needs", "also", "own")
_NAME = re.compile(r"[a-z]+(-[a-z]+)+")
_PLACE = re.compile(r"\{([^{}]*)\}")
_MOST_WORDS = 9  # the operation's, and probe.h's MOST_WORDS
_LONGEST_WORD = 200


@cache
def read_probes(folder: Path = FOLDER) -> tuple[Probe, ...]:
    """Return all probes, by class and then as the files have them. Raises UsageError with every mistake of the first
    file that has any."""
    probes: list[Probe] = []
    for kind in CLASSES:
        probes += _read_class(folder / f"{kind}.yaml", kind, {probe.name for probe in probes})
    return tuple(probes)


def _read_class(file: Path, kind: str, taken: set[str]) -> list[Probe]:
    root = read_tree(file)
    entries = require(root.fields(("probes",)), "probes", root, "a list of probes").items()
    probes = []
    for entry in entries:
        probe = _read_probe(entry, kind)
        if probe.name in taken:
            entry.report(f"has the name {quote(probe.name)} of another", "a name of its own")
        taken.add(probe.name)
        probes.append(probe)
    root.problems.check()
    return probes


def _read_probe(value: Value, kind: str) -> Probe:
    fields = value.fields(_FIELDS)
    texts = {key: require(fields, key, value, "text").text() for key in ("name", "tries", "why", "canary")}
    if "name" in fields and not _NAME.fullmatch(texts["name"]):
        fields["name"].report(f"is {quote(texts['name'])}", "lower-case words joined by -")
    for key in ("tries", "why"):
        if key in fields and not texts[key].endswith("."):
            fields[key].report("is no sentence", "one that ends with a full stop")
    canary = texts["canary"].partition(" ")[0]
    if "canary" in fields and canary not in CANARIES:
        fields["canary"].report(f"is {quote(texts['canary'])}", f"one of {', '.join(CANARIES)}")
    return Probe(
        **texts,
        kind=kind,
        wall=_read_wall(require(fields, "wall", value, "a wall")) if "wall" in fields else _miss_wall(value),
        words=_read_words(require(fields, "words", value, "a list of words"), canary),
        needs=fields["needs"].text() if "needs" in fields else "",
        also=tuple(_read_wall(one, empty=False) for one in fields["also"].items()) if "also" in fields else (),
        own=fields["own"].boolean() if "own" in fields else False,
    )


def _miss_wall(value: Value) -> str:
    require({}, "wall", value, f"one of {', '.join(WALLS)}, or ''")
    return ""


def _read_wall(value: Value, *, empty: bool = True) -> str:
    wall = value.text()
    if wall not in WALLS and not (empty and not wall):
        value.report(f"is {quote(wall)}", f"one of {', '.join(WALLS)}")
    return wall


def _read_words(value: Value, canary: str) -> tuple[str, ...]:
    words = tuple(one.text() for one in value.items()) if not value.is_null else ()
    offered = {*COMMON, *CANARIES.get(canary, ())}
    if not value.is_null and not 1 <= len(words) <= _MOST_WORDS:
        value.report(f"are {len(words)}", f"an operation and up to {_MOST_WORDS - 1} words")
    for word in words:
        if not word or len(word) > _LONGEST_WORD or word == "--" or any(one.isspace() for one in word):
            value.report(f"have {quote(word)}", f"words of 1 to {_LONGEST_WORD} characters, without blanks")
    if unknown := sorted(_find_places(words) - offered):
        value.report(
            f"have {{{'}, {'.join(unknown)}}}, which the canary does not offer", f"one of {', '.join(sorted(offered))}"
        )
    return words


def _find_places(words: Iterable[str]) -> set[str]:
    return {place for word in words for place in _PLACE.findall(word)}
