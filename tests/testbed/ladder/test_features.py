"""What else rungs had is done for real on them, or says why not; nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import TestbedError
from runtime.home import store_root
from runtime.images.model import Image
from runtime.images.store import Store
from testbed.lab import Lab
from testbed.ladder import features
from testbed.ladder.features import Stage, show_features, unify
from testbed.platforms.rungs.platform import RungPlatform
from testbed.probes.image import ensure_probe_image
from testbed.rungs.read import find_rung


def test_equal_files_become_one(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc" / "a").write_text("a")
    (source / "b").write_text("bb")
    (source / "link").symlink_to("/etc/passwd")
    count, size, took_s = unify(source, tmp_path / "one", tmp_path / "two")
    assert (count, size) == (2, 3) and took_s > 0
    assert (tmp_path / "one" / "etc" / "a").samefile(tmp_path / "two" / "etc" / "a")
    assert not (tmp_path / "two" / "link").exists(), "a link is no file that could be shared"


def test_no_more_is_copied_than_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    for name in "abc":
        (tmp_path / "source" / name).write_bytes(b"x" * 10)
    monkeypatch.setattr(features, "_MOST_BYTES", 25)
    assert unify(tmp_path / "source", tmp_path / "one", tmp_path / "two")[:2] == (2, 20)


@pytest.mark.root
def test_each_is_shown_on_its_rung_and_leaves_nothing(cgroup_parent: str, run_name: str, tmp_path: Path) -> None:
    image = ensure_probe_image(Store(store_root() / "images"), lambda line: None)
    scratch = Path("/run/testbed") / run_name
    before = sorted(path.name for path in scratch.iterdir())
    with Lab() as lab:
        platforms = {
            name: RungPlatform(find_rung(name), run_name, tmp_path, lab)
            for name in ("vserver-2001", "zones-2005", "openvz-2005")
        }
        try:
            for one in platforms.values():
                one.prepare_rung()
            stages = {name: Stage(one, lab, image, image, tmp_path, run_name) for name, one in platforms.items()}
            unified, cloned, saved = show_features(stages)
        finally:
            for one in platforms.values():
                one.close()
    assert unified.done and "became hard links" in unified.words, unified
    assert cloned.done and "a zone was started on a clone" in cloned.words, cloned
    assert saved.done or saved.words.startswith("not here: restore containers: "), saved
    assert (unified.feature, cloned.feature, saved.feature) == ("files", "snapshot", "checkpoint")
    assert sorted(path.name for path in scratch.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".log"] == []


def test_what_fails_says_how(probe_image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(stage: Stage) -> str:
        raise TestbedError("restore it: no such thing\nand more")

    monkeypatch.setattr(features, "_FEATURES", {"openvz-2005": ("checkpoint", fail), "jail-2000": ("files", fail)})
    stage = Stage(None, None, probe_image, probe_image, tmp_path, "x")  # type: ignore[arg-type]
    (shown,) = show_features({"openvz-2005": stage})
    assert (shown.done, shown.words) == (False, "not here: restore it: no such thing")
