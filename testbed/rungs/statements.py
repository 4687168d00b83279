"""Reads what the makers of rungs said, each with where it is written, and what is known of findings."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from testbed.rungs.model import CLASSES, Explained, Statement
from testbed.yamltree.problems import quote
from testbed.yamltree.values import Value, require


def read_statements(fields: Mapping[str, Value], key: str, sources: Collection[str]) -> tuple[Statement, ...]:
    """Return the statements of one kind; a class or a probe stands in one of them only."""
    seen: set[str] = set()
    return tuple(_read_statement(item, seen, sources) for item in (fields[key].items() if key in fields else ()))


def _read_statement(value: Value, seen: set[str], sources: Collection[str]) -> Statement:
    fields = value.fields(("of", "source", "says"))
    of = []
    for item in require(fields, "of", value, "classes of probes, or probes").items():
        word = item.text("a class of probes, or a probe")
        # A probe's name has a hyphen, which no class has.
        if word and "-" not in word and word not in CLASSES:
            item.report(f"is {quote(word)}", f"a probe, or one of {', '.join(CLASSES)}")
        if word in seen:
            item.report(f"is {quote(word)} a second time", "each once")
        seen.add(word)
        of.append(word)
    source = read_source_id(require(fields, "source", value, "the id of a source"), sources)
    return Statement(tuple(of), source, require(fields, "says", value, "what is written there").text())


def read_explained(fields: Mapping[str, Value], sources: Collection[str]) -> Mapping[str, Explained]:
    """Return what is known of findings, by probe."""
    explained = {}
    for probe, value in fields["explains"].entries().items() if "explains" in fields else ():
        parts = value.fields(("why", "source"))
        source = read_source_id(parts["source"], sources) if "source" in parts else ""
        explained[probe] = Explained(require(parts, "why", value, "a sentence").text(), source)
    return explained


def read_source_id(value: Value, sources: Collection[str]) -> str:
    """Return the id of a source, and report one that is not there."""
    source = value.text()
    if source and source not in sources:
        value.report(f"is {quote(source)}", "an id that sources.yaml has")
    return source
