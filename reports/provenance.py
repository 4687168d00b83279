"""Where a run comes from and how to do it again: command, commit, fingerprint, citation, and links to its raw data."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from msgspec import Struct

from reports.quantities import format_number
from testbed.analysis import Run, get_mapping
from testbed.results import MANIFEST, METRICS, TRIALS, RunFolder, Trial
from testbed.runs.fingerprint import PASSING

# What another run must share for its figures to be expected to be the same, by the manifest's members.
_MADE_OF = ("scenario", "settings", "images", "versions", "source", "guest_kernel", "seccomp", "platforms", "machine")
_LOG = re.compile(r"t(\d{1,9})[-.][A-Za-z0-9._-]*")
# What has a meaning in an entry of a bibliography.
_UNSAFE = re.compile(r"[{}\\%\n]")
# Of so many trials the logs are looked for; a page that links more helps nobody.
_MOST_LOGS = 40_000


class Image(Struct, frozen=True):
    """An image of the run: its service, reference, base (empty where none is recorded), digest, and layers' digests."""

    service: str
    reference: str
    base: str
    id: str
    layers: tuple[str, ...]


class Provenance(Struct, frozen=True):
    """All of it: ``fingerprints`` are sha256 over what the run was made of, and over its host; ``data`` are links."""

    command: str
    commit: str
    fingerprints: tuple[tuple[str, str], ...]
    bibtex: str
    data: tuple[tuple[str, str], ...]
    images: tuple[Image, ...]


def find_provenance(run: Run) -> Provenance:
    """Return where a run comes from, as far as its manifest says."""
    return Provenance(
        str(run.manifest.get("command") or ""),
        describe_commit(run.manifest),
        (
            ("what was measured", fingerprint(run.manifest, _MADE_OF)),
            ("its host", fingerprint(run.manifest, ("host",))),
        ),
        write_bibtex(run),
        _list_data(run.folder),
        list_images(run.manifest),
    )


def describe_commit(manifest: Mapping[str, Any]) -> str:
    """Return the commit that measured, and whether its files had been changed; empty when none is recorded."""
    source = get_mapping(manifest.get("source"))
    commit = source.get("commit")
    if not isinstance(commit, str) or not commit:
        return ""
    return f"{commit} with changes that are in no commit" if source.get("dirty") is True else commit


def fingerprint(manifest: Mapping[str, Any], members: Iterable[str]) -> str:
    """Return a sha256 over members of a manifest, without what passes: the same for what is the same."""
    kept = {name: _lasting(manifest.get(name)) for name in members}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _lasting(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _lasting(inner) for key, inner in value.items() if key not in PASSING}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


def write_bibtex(run: Run) -> str:
    """Return an entry for a bibliography; what stands in it comes from the manifest, so braces are taken out."""
    manifest = run.manifest
    versions = get_mapping(manifest.get("versions"))
    began = parse_time(manifest.get("started"))
    version = f", version {versions['testbed']}" if versions.get("testbed") else ""
    commit = f", commit {describe_commit(manifest)[:12]}" if describe_commit(manifest) else ""
    what = fingerprint(manifest, _MADE_OF)[:16]
    fields = {
        "title": f"{manifest.get('scenario') or 'application'}: virtual machines and containers, {run.folder.run_id}",
        "author": "{The testbed's authors}",
        "howpublished": f"Containers are not hypervisors: a testbed{version}{commit}",
        "note": f"measured {began:%Y-%m-%d}, fingerprint {what}" if began else f"fingerprint {what}",
    }
    fields |= {"year": f"{began:%Y}", "month": f"{began.month}"} if began else {}
    key = re.sub(r"[^A-Za-z0-9-]", "", run.folder.run_id)[:80] or "run"
    kept = {name: value if name == "author" else _UNSAFE.sub(" ", value)[:300] for name, value in fields.items()}
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in kept.items())
    return f"@misc{{{key},\n{body}\n}}"


def parse_time(value: object) -> datetime | None:
    """Return a time of a manifest; None where it is something else."""
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return None


def _list_data(folder: RunFolder) -> tuple[tuple[str, str], ...]:
    """Return what lies beside the report, as a link and what it holds."""
    known = {
        MANIFEST: "what was run, where and how",
        TRIALS: "every trial, as it ended",
        METRICS: "the same as a tidy table",
        "samples/": "time series and histograms of trials",
        "logs/": "every instance's console",
    }
    return tuple((name, what) for name, what in known.items() if (folder.path / name).exists())


def list_images(manifest: Mapping[str, Any]) -> tuple[Image, ...]:
    """Return service, reference, base, id and layers of every image."""
    return tuple(
        Image(
            str(name),
            str(image.get("reference", "")),
            str(get_mapping(image.get("base")).get("reference", "")),
            str(image.get("id", "")),
            tuple(str(layer) for layer in layers) if isinstance(layers := image.get("layers"), list) else (),
        )
        for name, image in get_mapping(manifest.get("images")).items()
        if isinstance(image, Mapping)
    )


def find_logs(folder: RunFolder) -> dict[int, list[str]]:
    """Return links to each trial's consoles, by its number; a file with another kind of name is none of ours."""
    try:
        with os.scandir(folder.path / "logs") as entries:
            names = [entry.name for entry, _ in zip(entries, range(_MOST_LOGS), strict=False)]
    except OSError:
        return {}
    logs: dict[int, list[str]] = {}
    for name in sorted(names):
        if found := _LOG.fullmatch(name):
            logs.setdefault(int(found[1]), []).append(f"logs/{quote(name)}")
    return logs


def sample_links(folder: RunFolder, trial: Trial) -> Sequence[str]:
    """Return links to a trial's time series and histogram, those that are there."""
    paths = (folder.samples_path(trial), folder.histogram_path(trial))
    return [f"samples/{quote(path.name)}" for path in paths if path is not None]


def list_facts(nested: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """Return nested facts as pairs of a readable name and a text, in their order; what is empty is left out."""
    rows: list[tuple[str, str]] = []
    for key, value in nested.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping) and depth < _DEEPEST:
            rows += list_facts(value, f"{name}: ", depth + 1)
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(_sized("", item)[1] for item in value[:_LONGEST_LIST])))
        elif isinstance(value, bool):
            rows.append((name, "yes" if value else "no"))
        else:
            rows.append(_sized(name, value))
    return [(name, text) for name, text in rows if text not in ("", "None")][:_MOST_FACTS]


_DEEPEST, _LONGEST_LIST, _MOST_FACTS, _LONGEST_TEXT = 8, 200, 400, 2000


def _sized(name: str, value: object) -> tuple[str, str]:
    """Format a fact: bytes in MiB or GiB, which read better, and a fraction with few digits."""
    if name.endswith(" bytes") and isinstance(value, int) and abs(value) < 1e18:
        unit, size = ("GiB", 2**30) if value >= 10 * 2**30 else ("MiB", 2**20)
        return name.removesuffix(" bytes"), f"{format_number(value / size)} {unit}"
    if isinstance(value, float):
        return name, format_number(value) if abs(value) < 1e18 else f"{value:g}"
    try:
        return name, str(value)[:_LONGEST_TEXT]
    except ValueError:  # a whole number of thousands of digits
        return name, "a huge number"
