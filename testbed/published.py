"""Published figures as data with their citation, from published.yaml: read, checked, and found by ours like them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

from msgspec import Struct

from testbed.scenario.work import UNITS
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, read_tree, require

FILE = Path(__file__).with_suffix(".yaml")
# How a figure was checked: computed again from the runs that its authors published, read in the document or its
# abstract, quoted elsewhere in the same words, or reported in a reader's own words.
Check = Literal["recomputed", "read", "quoted", "reported"]
# What a ratio may be to: the native figure of the same work, or that of the same platform without a neighbour.
_BASES = ("native", "alone")
# Beside the units of programs: decimal megabytes, and a factor to the native figure of the same work.
_MORE_UNITS = {"MB": (1e6, "bytes"), "ratio": (1.0, "1")}
_WORK = ("authors", "title", "venue", "year", "url", "data", "hardware")
_FIGURE = (
    *("work", "where", "platform", "scenario", "measure", "figure", "what"),
    *("value", "unit", "of", "sd", "n", "checked", "via"),
)
_MOST = 1e18


class Citation(Struct, frozen=True):
    """A published work: ``url`` is where it is, ``data`` where its authors published their runs, if they did."""

    id: str
    authors: str
    title: str
    venue: str
    year: int
    url: str
    hardware: str
    data: str = ""


class Mark(Struct, frozen=True):
    """A published figure: ``value`` and ``sd`` are in ``unit``, a base unit of run folders, or ``1``: a ratio to what
    ``of`` names in the same work: ``native``, or ``alone``. ``via`` is where it was found, unless that is the work.

    ``n`` is the number of runs, where it is published. ``scenario``, ``measure`` and ``figure`` say which of ours it is
    like, ``platform`` is ours where there is one like it.
    """

    citation: Citation
    where: str
    platform: str
    scenario: str
    measure: str
    figure: str
    what: str
    value: float
    unit: str
    checked: Check
    sd: float | None = None
    n: int | None = None
    of: str = "native"
    via: str = ""


@cache
def read_published(file: Path = FILE) -> tuple[Mark, ...]:
    """Return all published figures. Raises UsageError with every mistake in the file."""
    root = read_tree(file)
    fields = root.fields(("works", "figures"))
    works = require(fields, "works", root, "the works that are cited").entries()
    citations = {name: _citation(name, entry) for name, entry in works.items()}
    marks = [_mark(entry, citations) for entry in require(fields, "figures", root, "a list of figures").items()]
    root.problems.check()
    return tuple(mark for mark in marks if mark is not None)


def list_marks(scenario: str, measure: str, figure: str, file: Path = FILE) -> tuple[Mark, ...]:
    """Return the published figures that one of ours is like, in the file's order; to be drawn beside it. With ``""`` as
    the scenario those of all."""
    return tuple(
        one
        for one in read_published(file)
        if scenario in ("", one.scenario) and (one.measure, one.figure) == (measure, figure)
    )


def _citation(name: str, value: Value) -> Citation:
    fields = value.fields(_WORK)
    texts = {key: require(fields, key, value, "text").text() for key in ("authors", "title", "venue", "hardware")}
    return Citation(
        name,
        **texts,
        year=require(fields, "year", value, "a year").integer(1950, 2100, "a year"),
        url=_address(require(fields, "url", value, "where it can be read")),
        data=_address(fields["data"]) if "data" in fields else "",
    )


def _address(value: Value) -> str:
    address = value.text("an address")
    if not address.startswith("https://"):
        value.report(f"is {quote(address)}", "an address that begins with https://")
    return address


def _mark(value: Value, citations: dict[str, Citation]) -> Mark | None:
    fields = value.fields(_FIGURE)
    names = ("work", "where", "platform", "scenario", "measure", "figure", "what", "unit", "checked")
    texts = {key: require(fields, key, value, "text").text() for key in names}
    unit = texts["unit"]
    number = require(fields, "value", value, "a number").number(unit, low=0, high=_MOST)
    deviation = fields["sd"].number(unit, low=0, high=_MOST) if "sd" in fields else None
    runs = fields["n"].integer(1, 1_000_000, "runs") if "n" in fields else None
    units = {**UNITS, **_MORE_UNITS}
    for key, known in (("work", citations), ("unit", units), ("checked", get_args(Check))):
        if key in fields and texts[key] not in known:
            fields[key].report(f"is {quote(texts[key])}", f"one of {', '.join(known)}")
    base_of = fields["of"].text() if "of" in fields else _BASES[0]
    if base_of not in _BASES:
        fields["of"].report(f"is {quote(base_of)}", f"one of {', '.join(_BASES)}")
    via = _address(fields["via"]) if "via" in fields else ""
    if texts["checked"] == "reported" and not via:
        require({}, "via", value, "where the reader's words are")
    if texts["work"] not in citations or unit not in units:
        return None
    factor, base = units[unit]
    return Mark(
        citation=citations[texts["work"]],
        **{key: texts[key] for key in ("where", "platform", "scenario", "measure", "figure", "what")},
        value=number * factor,
        unit=base,
        checked=cast(Check, texts["checked"]),
        sd=None if deviation is None else deviation * factor,
        n=runs,
        of=base_of,
        via=via,
    )
