"""What the reference machine's image is made of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.images.model import Image, ImageConfig, Layer
from testbed.load.build import GENERATOR
from vm_images import reference
from vm_images.reference import DOCKERFILE, WHEELS, kernel_of, locked

LOCK = """# a comment
one==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
other==2.0 ; sys_platform == 'win32' \\
    --hash=sha256:cc
two==3.0 \\
    --hash=sha256:dd
"""


def test_packages_are_taken_from_the_lock_file_with_their_hashes() -> None:
    assert locked(LOCK, ("two", "one")) == (
        "one==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\ntwo==3.0 \\\n    --hash=sha256:dd\n"
    )


def test_a_package_that_is_not_locked_is_an_error() -> None:
    with pytest.raises(ValueError, match="no three"):
        locked(LOCK, ("one", "three"))


def test_the_project_s_lock_file_has_all_wheels() -> None:
    text = locked((Path(reference.__file__).parents[1] / "requirements.lock").read_text(), WHEELS)
    assert len(re.findall(r"^[a-z0-9-]+==", text, re.MULTILINE)) == len(WHEELS)


def image(folder: Path, *kernels: str) -> Image:
    (folder / "boot").mkdir()
    for name in kernels:
        (folder / "boot" / f"vmlinuz-{name}").touch()
    return Image("test", "sha256:x", ImageConfig(), (Layer("sha256:y", folder),))


@pytest.mark.network
def test_nothing_of_the_packages_tells_where_this_checkout_is(tmp_path: Path) -> None:
    """The same release in two folders makes the same machine."""
    target = tmp_path / "packages"
    target.mkdir()
    reference._install_packages(target, tmp_path)
    assert (target / "msgspec").is_dir()
    files = [path for path in target.rglob("*") if path.is_file()]
    assert not [path for path in files if sys.prefix.encode() in path.read_bytes()]
    # pip's lists of what it has installed have the digests of scripts, whose first line is the interpreter's path.
    assert not list(target.glob("*.dist-info/RECORD"))


def test_the_kernel_is_found_with_its_modules(tmp_path: Path) -> None:
    found = kernel_of(image(tmp_path, "6.12"))
    assert found == (tmp_path / "boot" / "vmlinuz-6.12", tmp_path / "usr/lib/modules/6.12")


@pytest.mark.parametrize("kernels", [(), ("6.12", "6.13")])
def test_there_is_one_kernel(kernels: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match=f"has {len(kernels)} kernels"):
        kernel_of(image(tmp_path, *kernels))


def test_the_patch_is_applied_before_the_emulator_is_configured() -> None:
    text = DOCKERFILE.read_text()
    assert text.index("reference.patch") < text.index("../configure")
    assert DOCKERFILE.with_suffix(".patch").read_text().count("+            cs->exception_index = -1;") == 1


def test_the_machine_gets_the_programs_that_measure_and_no_source_in_c(tmp_path: Path) -> None:
    reference._stage_source(tmp_path, (GENERATOR.build(),))
    staged = tmp_path / "testbed" / "load" / "generator"
    assert [path.name for path in staged.iterdir()] == ["testbed-load"]
    assert os.access(staged / "testbed-load", os.X_OK)
    # There, without sources, what is there is what is run.
    script = "from testbed.load.build import GENERATOR; print(GENERATOR.build())"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{staged / 'testbed-load'}\n"
