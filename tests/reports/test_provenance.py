"""Where a run comes from: fingerprints that only change with what matters, a citation, links that lead to files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from reports.provenance import find_logs, find_provenance, fingerprint, list_facts, sample_links
from testbed.analysis import Run, read_run
from testbed.results import RunFolder, Trial

WriteRun = Any


def open_run(path: Path) -> Run:
    return read_run(RunFolder.open(path))


def test_a_fingerprint_changes_with_what_was_made_of_and_not_with_what_passes() -> None:
    host = {"cpu": {"model": "x"}, "memory": {"total_bytes": 1, "available_bytes": 5}, "load_average": [1]}
    later = {"cpu": {"model": "x"}, "memory": {"total_bytes": 1, "available_bytes": 9}, "load_average": [3]}
    other = {**later, "cpu": {"model": "y"}}
    one, same, different = (fingerprint({"host": facts}, ("host",)) for facts in (host, later, other))
    assert one == same != different and len(one) == 64
    assert fingerprint({}, ("host",)) == fingerprint({"host": None}, ("host",))


def test_the_citation_can_be_put_into_a_bibliography(write_run: WriteRun) -> None:
    run = open_run(
        write_run(versions={"testbed": "9.9"}, source={"commit": "ab" * 20, "dirty": True}, scenario="a}{b\\c%")
    )
    source = find_provenance(run)
    assert source.commit == f"{'ab' * 20} with changes that are in no commit"
    entry = source.bibtex
    assert re.match(r"@misc\{[A-Za-z0-9-]+,\n", entry) and entry.count("{") == entry.count("}")
    assert "year = {2026}" in entry and "version 9.9" in entry and "abababababab" in entry
    assert "\\" not in entry and "%" not in entry


def test_links_lead_to_what_is_there(write_run: WriteRun) -> None:
    path = write_run(starts=1, ramps=1, blocks=0)
    for name in ("t001-web.log", "t001-redis.log", "machine.log", "t001 x.log", "t001-<b>.log"):
        (path / "logs" / name).write_text("")
    folder = RunFolder.open(path)
    assert find_logs(folder) == {1: ["logs/t001-redis.log", "logs/t001-web.log"]}
    ramp = next(trial for trial in folder.trials() if trial.samples)
    assert sample_links(folder, ramp) == [f"samples/{ramp.samples}"]
    for sample in ("../manifest.json", ".", "..", "gone.csv", "", None):
        assert sample_links(folder, Trial(1, 1, "vm", "start", "ok", samples=sample)) == []
    (path / "metrics.csv").unlink()
    assert [name for name, _ in find_provenance(open_run(path)).data] == [
        "manifest.json", "trials.jsonl", "samples/", "logs/",
    ]  # fmt: skip


def test_facts_of_any_shape_are_readable_and_bounded() -> None:
    facts = {"total_bytes": 24 << 30, "is_it": True, "none": None, "list": [1.5, "x"], "deep": {"a": {"b": 1}}}
    assert list_facts(facts) == [
        ("total", "24.0 GiB"), ("is it", "yes"), ("list", "1.50, x"), ("deep: a: b", "1"),
    ]  # fmt: skip
    nested: dict[str, Any] = {}
    for _ in range(200):
        nested = {"a": nested, "text": "y" * 5000}
    rows = list_facts({"a": nested, "many": {str(n): n for n in range(1000)}, "huge": json.loads("9" * 4000)})
    assert len(rows) <= 1000 and max(len(text) for _, text in rows) <= 2000
