"""The tasks on the image store, end to end: what they print, and with which exit code."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reports.commands.image_tables import describe_change, describe_history, describe_images
from runtime.images.descriptors import LAYER_GZIP
from runtime.images.difference import Change
from runtime.images.listing import ListedImage, Step
from runtime.images.store import Store
from tests.runtime.images.images import bring

ROOT = Path(__file__).resolve().parents[3]
INVOKE = Path(sys.executable).parent / "invoke"

pytestmark = pytest.mark.root


def run(home: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [str(INVOKE), "--search-root", str(ROOT), *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TESTBED_HOME": str(home)}
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=variables, **options)  # type: ignore[call-overload, no-any-return]


def test_an_image_goes_from_one_store_through_a_pipe_to_another(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    image = bring(Store(one / "images"), "app/web:1", {"a": b"x" * 1000}, LAYER_GZIP)
    saved = run(one, "images.save", "app/web:1", "--to", "-", "--format", "docker")
    assert saved.returncode == 0, saved.stderr
    done = run(other, "images.load", "-", input=gzip.compress(saved.stdout))
    assert (done.returncode, done.stdout) == (0, b"app/web:1\n"), done.stderr
    assert run(other, "images.tag", "app/web:1", "mine").returncode == 0
    listed = json.loads(run(other, "images.list", "--json").stdout)
    assert [(each["reference"], each["id"]) for each in listed] == [("app/web:1", image.id), ("mine", image.id)]
    assert run(other, "images.diff", "mine", "app/web:1").stdout == b""
    assert run(other, "images.rm", "mine,app/web:1").returncode == 0
    assert json.loads(run(other, "images.list", "--json").stdout) == []


def test_a_changed_layer_is_an_exit_code(tmp_path: Path) -> None:
    image = bring(Store(tmp_path / "images"), "app/web:1", {"a": b"x"}, LAYER_GZIP)
    assert run(tmp_path, "images.verify").returncode == 0
    (image.layers[0].path / "a").write_text("y")
    done = run(tmp_path, "images.verify", "--images", "app/web:1")
    assert (done.returncode, done.stdout.count(b"\n")) == (1, 1)
    assert b"were changed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("images.history", "nope"), b"error: no image 'nope'"),
        (("images.load", "/nowhere"), b"error: read /nowhere: No such file or directory"),
        (("images.load", "/etc/passwd"), b"error: /etc/passwd: "),
        (("images.save", "nope", "--to", "/nowhere/x"), b"error: images.save --to /nowhere/x: there is no such folder"),
        (("images.save", "nope", "--to", "x", "--format", "zip"), b"error: format zip: there is no such format"),
        (("images.tag", "nope", "Bad Name"), b"error: name 'Bad Name': no name of an image"),
    ],
)
def test_a_mistake_is_one_error(tmp_path: Path, arguments: tuple[str, ...], what: bytes) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(what) and b"Traceback" not in done.stderr


def test_tables_show_nothing_that_a_terminal_would_obey() -> None:
    evil = "\x1b[31mx\x07"
    image = ListedImage(evil, "sha256:" + "a" * 64, "sha256:" + "b" * 64, evil, evil, 1, 250_000_000, evil)
    texts = [
        describe_images([image]),
        describe_history([Step(evil, evil * 100, "sha256:" + "c" * 64, 10)]),
        describe_change(Change("added", "/" + evil + "\udcff\n")),
    ]
    assert all("\x1b" not in text and "\x07" not in text and "\udcff" not in text for text in texts)
    assert "250.0 MB" in texts[0]
    assert texts[2].startswith("A /x")
