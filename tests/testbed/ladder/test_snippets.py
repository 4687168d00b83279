"""The history's commands are run for real, where nobody else sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.images.model import Image, ImageConfig, Layer
from testbed.ladder.snippets import SCRIPTS, run_snippets, write_script
from tests.owned import mounts_of

pytestmark = pytest.mark.root


def test_each_is_run_and_leaves_nothing_mounted(busybox_layer: Path, tmp_path: Path) -> None:
    image = Image("test", "sha256:0", ImageConfig(), (Layer("sha256:1", busybox_layer),))
    chroot, union = run_snippets(image, tmp_path)
    assert (chroot.status, union.status) == (0, 0)
    assert chroot.output.startswith("$ chroot $layer /bin/ls /\nbin\n") and str(busybox_layer) not in chroot.output
    assert "process 1 of the host could be signalled" in chroot.output.splitlines()
    assert "\n$ cat system/motd changes/motd\nof the system\nwritten above\n" in union.output
    assert "both: br:changes=rw:system=ro" in union.output
    assert mounts_of(tmp_path) == []


def test_a_command_that_fails_shows_how(tmp_path: Path) -> None:
    image = Image("test", "sha256:0", ImageConfig(), (Layer("sha256:1", tmp_path),))
    chroot = run_snippets(image, tmp_path / "scratch")[0]
    assert chroot.status and "/bin/ls" in chroot.output


def test_a_path_is_no_word_of_the_script() -> None:
    assert "layer='/a b;reboot'\n" in write_script(SCRIPTS[0], "/a b;reboot")
