"""Published figures of utilisation: each says what it is of and where it stands; a wrong file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.history import FILE, PastFigure, read_history

ENTRY = (
    "  - {id: a, year: 2008, quantity: utilisation, low: 6, high: 6, measured: m, sample: s, comparable: c,"
    ' authors: A, title: T, venue: V, url: "https://example.org", checked: read}\n'
)


def test_the_talks_rows_stand_beside_what_was_published() -> None:
    rows = [(one.talk, one.low, one.year) for one in read_history() if one.talk is not None]
    assert rows == [(5, 6, 2008), (8, 7, 2011), (12, 12, 2012)]


@pytest.mark.parametrize("figure", read_history(), ids=lambda figure: figure.id)
def test_every_figure_says_what_it_is_of_and_where_it_stands(figure: PastFigure) -> None:
    assert 2000 < figure.year < 2030 and 0 < figure.low <= figure.high
    for text in (figure.measured, figure.sample, figure.comparable, figure.authors, figure.title, figure.venue):
        assert len(text) >= 4, figure.id
    assert figure.url.startswith("http")


def test_it_goes_on_to_our_days_and_has_zombies_and_memory() -> None:
    history = read_history()
    assert max(one.year for one in history) >= 2025
    assert {one.quantity for one in history} >= {"utilisation", "memory", "comatose", "servers_per_host"}
    assert [one.low for one in history if one.id == "vkernel2010"] == [15.6]
    assert FILE.is_relative_to(Path(__file__).parents[2] / "scenarios")


def test_the_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "history.yaml"
    wrong = ENTRY.replace("id: a", "id: b").replace("low: 6", "low: 7").replace("checked: read", "checked: guessed")
    file.write_text("figures:\n" + ENTRY + ENTRY + wrong + "  - {id: c, year: 1066}\n")
    with pytest.raises(UsageError) as caught:
        read_history(file)
    message = str(caught.value)
    for part in (
        "has the id 'a' of another",
        ":4: figures[2]: goes from 7 down to 6",
        "'guessed'",
        ":5: figures[3].year",
    ):
        assert part in message
    assert "figures[3].url: is missing" in message


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "history.yaml"
    file.write_text("figures:\n" + ENTRY.replace("https://", "file://"))
    with pytest.raises(UsageError, match="an address that begins with https"):
        read_history(file)
