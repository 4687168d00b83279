"""What the words after ``bench`` ask for, as the testbed takes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports.commands.options import RESULTS, ROOT, parse_fraction, parse_number, split_words
from testbed.measures.design import parse_budget, parse_until
from testbed.request import Options
from testbed.run_folders import locate
from testbed.scenario import model
from testbed.scenario.consolidation import Asked, parse_fractions, parse_zombies


def read_options(given: Mapping[str, Any], command: tuple[str, ...]) -> Options:
    """Return the options of ``bench`` by the names of its parameters, "" where one was not given; ``command`` is the
    command line. Raises UsageError for one that cannot be read."""

    def number(name: str) -> int | None:
        return parse_number(f"--{name}", given[name]) if given[name] else None

    return Options(
        scenario=given["scenario"],
        platforms=split_words(given["platforms"]),
        accelerator=given["accel"],
        measures=split_words(given["measures"]),
        trials=number("trials"),
        quick=given["quick"],
        seed=parse_number("--seed", given["seed"]),
        out=Path(given["out"]) if given["out"] else RESULTS,
        scenarios=ROOT / "scenarios",
        command=command,
        connect=given["connect"],
        wait=given["wait"],
        share=given["share"],
        base=given["base"],
        guest_kernel=given["guest_kernel"],
        emulator_cpus=parse_fraction("--emulator-cpus", given["emulator_cpus"]) if given["emulator_cpus"] else 0.0,
        until=parse_until(given["until"]) if given["until"] else None,
        budget_s=parse_budget(given["budget"]) if given["budget"] else None,
        again=given["aa"],
        duet=given["duet"],
        against=given["against"],
        cap=number("cap"),
        steps=tuple(parse_number("--steps", one) for one in split_words(given["steps"])),
        resume=locate(given["resume"], RESULTS) if given["resume"] else None,
        packed=_read_packed(given),
        compose=_read_compose(given),
    )


def _read_packed(given: Mapping[str, Any]) -> Asked:
    """Return what was asked for of consolidation."""
    fractions = parse_fractions(given["fractions"]) if given["fractions"] else ()
    zombies = parse_zombies(given["zombies"]) if given["zombies"] else None
    return Asked(fractions, given["shape"], given["packing"], zombies)


def _read_compose(given: Mapping[str, Any]) -> model.Asked:
    """Return what was asked for of the scenario's compose files."""
    files, profiles, env_files = (tuple(given[name] or ()) for name in ("file", "profile", "env_file"))
    return model.Asked(files, profiles, env_files, given["with_"])
