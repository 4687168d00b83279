"""The JSON has a schema, is JSON, and says all that the report and the terminal say."""

from __future__ import annotations

import html as html_module
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import reports
from reports import document
from reports.rows import make_table

WriteRun = Callable[..., Path]


def visible(page: Path) -> str:
    """The text of a page, in one line with plain spaces."""
    text = re.sub(r"<(style|script)\b.*?</\1>|<[^>]+>", " ", page.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", html_module.unescape(text).replace("\N{NO-BREAK SPACE}", " "))


def plain(text: str) -> str:
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("platforms", [("container", "vm"), ("container", "kvm", "container-pooled")])
def test_every_headline_of_the_report_is_in_the_json(write_run: WriteRun, platforms: tuple[str, ...]) -> None:
    run = write_run(platforms=platforms, noise=["load average 3.1"])
    data = json.loads(json.dumps(document.as_json(run), allow_nan=False))
    page = plain(visible(reports.render(run)))
    answer = data["answer"]
    for sentence in (answer["headline"], *answer["details"], *answer["warnings"]):
        assert plain(sentence) in page
    heads = re.findall(r"<h1[^>]*>(.*?)</h1>", (run / "report.html").read_text(), re.DOTALL)
    for head in heads:
        said = plain(html_module.unescape(re.sub(r"<[^>]+>", "", head)))
        assert any(said in plain(text) for text in (answer["ratios"], answer["headline"], data["scenario"]))


def test_every_row_of_the_terminal_is_in_the_json(full_run: Path) -> None:
    data = document.as_json(full_run)
    assert data["schema"] == "testbed-answer/1"
    assert [(row["measure"], row["figure"]) for row in data["table"]] == [
        (row.measure, row.figure) for row in make_table(full_run)
    ]


def test_what_it_was_made_of_is_in_the_json_without_numbers_that_json_has_not(write_run: WriteRun) -> None:
    run = write_run(settings={"trials": float("inf"), "list": [float("nan"), 1]}, seed=7)
    made_of = json.loads(json.dumps(document.as_json(run), allow_nan=False))["made_of"]
    assert made_of["seed"] == 7 and made_of["settings"] == {"trials": None, "list": [None, 1]}
    assert made_of["command"].startswith("./invoke bench")
