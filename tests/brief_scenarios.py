"""Scenarios whose trials are short, for tests in which what a run does matters and its figures do not."""

from __future__ import annotations

from pathlib import Path

from testbed.scenario.new import create_scenario

# In seconds. Of this a start's latency is watched for a part (testbed.measures.steady), instead of for ten.
_LOAD_S = 1


def create_brief_scenario(name: str, folder: Path) -> Path:
    """Write the scenario that ``./invoke new`` writes, with a load of one second; return its directory."""
    create_scenario(name, folder)
    compose = folder / name / "compose.yaml"
    compose.write_text(f"{compose.read_text()}  load:\n    duration_s: {_LOAD_S}\n")
    return folder / name
