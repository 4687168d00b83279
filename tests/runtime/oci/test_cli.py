"""testbed-runtime: an image of the store, run or explained."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.images.model import ImageConfig
from runtime.images.store import Store
from runtime.launcher.build import COMMAND

pytestmark = pytest.mark.root


@pytest.fixture
def image(busybox_layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of its own with one image, ``busybox``, whose command prints its host name."""
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "home"))
    store = Store(tmp_path / "home" / "images")
    with store.building(lambda line: None), store.scratch() as scratch:
        shutil.copytree(busybox_layer, scratch / "tree", symlinks=True)
        layer = store.add_layer(scratch / "tree", "test")
        store.tag("busybox", ImageConfig(cmd=("hostname",)), [layer])
    return "busybox"


def said(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=60)


def test_it_runs_the_images_command(image: str) -> None:
    done = said("image-run", image)
    assert (done.returncode, done.stdout) == (0, "container\n")


def test_it_runs_another_command_and_passes_its_status(image: str) -> None:
    assert said("image-run", image, "sh", "-c", "exit 9").returncode == 9


def test_explain_prints_the_plan_and_starts_nothing(image: str) -> None:
    done = said("--explain", "image-run", image, "false")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any("clone3 CLONE_NEWNS" in line for line in lines)
    assert lines[-1].endswith("execve false")


def test_an_unknown_image_is_an_error_that_names_the_known(image: str) -> None:
    done = said("image-run", "nonsense")
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "known images: busybox" in done.stderr
