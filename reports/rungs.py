"""What the rungs of the ladder among a run's platforms keep apart, for the report of any run that has some."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from reports.cells import Cell, Table
from reports.ladder.wording import name_feature
from testbed.analysis import Run
from testbed.ladder.model import PAGE
from testbed.rungs.model import FEATURES, History, Rung

# Columns of one table: more rungs go on in another.
_RUNGS_EACH = 6


def list_rungs(run: Run, history: History) -> list[Rung]:
    """Return the rungs that the run has measured as such, in the order of their years."""
    names = {one.name for one in run.platforms}
    return [one for one in history.rungs if one.isolation is not None and one.name in names]


def make_rung_tables(run: Run, history: History) -> list[Table]:
    """Return what each of them had of each feature, and below it how Linux of today only approximates that."""
    rungs = list_rungs(run, history)
    return [_make_table(rungs[at : at + _RUNGS_EACH]) for at in range(0, len(rungs), _RUNGS_EACH)]


def find_ladder_page(folder: Path) -> str:
    """Return the address of the newest ladder's page beside a run's folder, from within that; "" for none."""
    pages = sorted(page for page in folder.parent.glob(f"*/{PAGE}") if page.is_file())
    return f"../{quote(pages[-1].parent.name)}/{PAGE}" if pages else ""


def _make_table(rungs: list[Rung]) -> Table:
    rows = tuple(
        (
            Cell(name_feature(feature)),
            *(Cell(cell.had, cell.today) if (cell := one.cells.get(feature)) else Cell("–") for one in rungs),
        )
        for feature in FEATURES
    )
    caption = "What each had; in small print, where Linux of today only comes near to it"
    return Table(caption, ("", *(f"{one.title}, {one.year}" for one in rungs)), rows)
