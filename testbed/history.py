"""What others have published of how much of servers is used, from scenarios/utilisation/history.yaml: read and
checked."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

from msgspec import Struct

from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, read_tree, require

FILE = Path(__file__).resolve().parents[1] / "scenarios" / "utilisation" / "history.yaml"
# What a figure is of, and the unit that goes with it.
Quantity = Literal["utilisation", "memory", "comatose", "below_half", "concentration", "servers_per_host"]
# How a figure was checked; the file says what each means.
Check = Literal["read", "quoted", "secondary"]
_TEXTS = ("id", "measured", "sample", "comparable", "authors", "title", "venue", "url", "quantity", "checked")
_MOST = 1_000_000


class PastFigure(Struct, frozen=True):
    """A published figure: ``low`` to ``high`` in % or, of ``servers_per_host``, in machines; ``talk`` is the figure as
    the talk has it, None where it has none.

    ``measured`` and ``sample`` say what it is of, ``comparable`` what it may be set beside.
    """

    id: str
    year: int
    quantity: Quantity
    low: float
    high: float
    measured: str
    sample: str
    comparable: str
    authors: str
    title: str
    venue: str
    url: str
    checked: Check
    talk: float | None = None


@cache
def read_history(file: Path = FILE) -> tuple[PastFigure, ...]:
    """Return all figures, by year. Raises UsageError with every mistake in the file."""
    root = read_tree(file)
    entries = require(root.fields(("figures",)), "figures", root, "a list of figures").items()
    figures = [_read_figure(entry) for entry in entries]
    seen: set[str] = set()
    for entry, figure in zip(entries, figures, strict=True):
        if figure.id in seen:
            entry.report(f"has the id {quote(figure.id)} of another", "an id of its own")
        seen.add(figure.id)
    root.problems.check()
    return tuple(sorted(figures, key=lambda one: (one.year, one.id)))


def _read_figure(value: Value) -> PastFigure:
    fields = value.fields((*_TEXTS, "year", "low", "high", "talk"))
    texts = {key: require(fields, key, value, "text").text() for key in _TEXTS}
    for key, known in (("quantity", get_args(Quantity)), ("checked", get_args(Check))):
        if key in fields and texts[key] not in known:
            fields[key].report(f"is {quote(texts[key])}", f"one of {', '.join(known)}")
    if "url" in fields and not texts["url"].startswith(("https://", "http://")):
        fields["url"].report(f"is {quote(texts['url'])}", "an address that begins with https:// or http://")
    low, high = (require(fields, key, value, "a number").number("%", low=0, high=_MOST) for key in ("low", "high"))
    if low > high:
        value.report(f"goes from {low:g} down to {high:g}", "low at most as high as high")
    return PastFigure(
        **{key: texts[key] for key in _TEXTS if key not in ("quantity", "checked")},
        quantity=cast(Quantity, texts["quantity"]),
        checked=cast(Check, texts["checked"]),
        year=require(fields, "year", value, "a year").integer(1950, 2100, "a year"),
        low=low,
        high=high,
        talk=fields["talk"].number("%", low=0, high=100) if "talk" in fields else None,
    )
