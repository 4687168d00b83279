"""The index page lists every run, the newest first, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reports.index import write_index
from runtime.errors import UsageError
from testbed.results import Metric, RunFolder, Trial

WriteRun = Callable[..., Path]


def test_runs_with_their_headlines_the_newest_first(write_run: WriteRun) -> None:
    older = write_run(name="20260301T000000Z-clickme-aaaa")
    (older / "report.html").write_text("a report")
    newer = write_run(name="20260302T000000Z-clickme-bbbb", source={"commit": "d" * 40})
    broken = newer.parent / "20260303T000000Z-clickme-cccc"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    path, count = write_index(newer.parent)
    text = path.read_text()
    assert count == 3
    assert text.index("cccc") < text.index("bbbb") < text.index("aaaa")
    assert f'href="{older.name}/report.html"' in text and f'href="{newer.name}' not in text
    assert "is damaged" in text and "commit dddddddddddd" in text
    assert "0.612 s" in text and "<td>12</td>" in text and "at 200/s" in text


def test_a_run_of_work_has_what_it_gave(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run-kv", {"run": "run-kv", "scenario": "kv", "platforms": {"container": {}}})
    metrics = (Metric("set_rate", 63492.0, "1/s"), Metric("get_rate", 9.0, "1/s"), Metric("work_duration", 1.1, "s"))
    folder.append(Trial(1, 1, "container", "work", "ok", metrics=metrics))
    folder.finish("finished")
    text = write_index(tmp_path)[0].read_text()
    assert "<td>set rate 63\u202f492 /s</td>" in text and "no figure" not in text


def test_an_empty_folder_has_an_empty_page(tmp_path: Path) -> None:
    path, count = write_index(tmp_path)
    assert count == 0 and "There is none." in path.read_text()
    with pytest.raises(UsageError, match="cannot read"):
        write_index(tmp_path / "nowhere")
