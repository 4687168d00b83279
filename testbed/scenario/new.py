"""A new scenario: a folder with the least that runs, to be changed into one's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from runtime.atomic import partial
from runtime.errors import UsageError
from testbed.scenario.model import NAME
from testbed.yamltree.problems import quote

TEMPLATE = Path(__file__).with_name("template")


def create_scenario(name: str, scenarios_folder: Path) -> tuple[Path, ...]:
    """Write the scenario ``name`` below ``scenarios_folder``, whole or not at all; the files that it consists of.

    Raises UsageError for a name that is none or is taken, and when the folder cannot be written.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{quote(name)} is not the name of a scenario",
            "at most 40 of a to z, 0 to 9, '-' and '_', a letter or digit first",
        )
    folder = scenarios_folder / name
    if os.path.lexists(folder):
        raise UsageError(f"{folder} is there already", "choose another name, or remove it first")
    try:
        with partial(folder) as unfinished:
            shutil.copytree(TEMPLATE, unfinished, copy_function=shutil.copyfile)
    except OSError as error:
        raise UsageError(f"write {folder}: {error.strerror}") from error
    return tuple(path for path in sorted(folder.rglob("*")) if path.is_file())
