"""What VirtualBox needs of a host: each lack is said, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from testbed.checks_of_machines import check_virtualbox
from testbed.platforms import registry
from testbed.platforms.virtualbox import VIRTUALBOX
from testbed.virtualbox.installation import FOLDERS, HEADLESS, MANAGER, SERVER, find_virtualbox, require_virtualbox

_WARNED = "echo 'WARNING: The character device /dev/vboxdrv does not exist.'; echo 7.2.22_Debianr175245"


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Path]:
    """Lays out the programs, the one that manages as a script."""

    def laid_out(script: str, names: tuple[str, ...] = (MANAGER, SERVER, HEADLESS)) -> Path:
        folder = tmp_path / "virtualbox"
        folder.mkdir()
        for name in names:
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        return folder

    return laid_out


def test_its_version_is_the_last_line(install: Callable[..., Path]) -> None:
    folder = install(_WARNED)
    found = find_virtualbox((folder,))
    assert found.version == "7.2.22_Debianr175245" and found.program(SERVER) == str(folder / SERVER)


@pytest.mark.parametrize(
    ("script", "names", "said"),
    [
        ("echo 6.0.24r139119", (MANAGER, SERVER, HEADLESS), "6.0.24r139119 is older than 6.1"),
        ("echo lost >&2; exit 127", (MANAGER, SERVER, HEADLESS), "--version: lost"),
        ("exit 0", (MANAGER, SERVER, HEADLESS), "it says no version"),
        (_WARNED, (MANAGER, SERVER), f"has no {HEADLESS}"),
        (_WARNED, (), f"no {MANAGER} in "),
    ],
)
def test_one_that_is_no_use_is_told(
    install: Callable[..., Path], script: str, names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(PrerequisiteError, match=said) as raised:
        find_virtualbox((install(script, names),))
    assert raised.value.hint


def test_what_the_host_lacks_is_said_one_after_the_other(install: Callable[..., Path], tmp_path: Path) -> None:
    processors, device, module = tmp_path / "cpuinfo", tmp_path / "vboxdrv", tmp_path / "vboxnetflt"
    folders = (install(_WARNED),)

    def lack() -> str:
        with pytest.raises(PrerequisiteError) as raised:
            require_virtualbox(folders, device, module, processors)
        assert raised.value.hint
        return raised.value.message

    processors.write_text("processor\t: 0\nflags\t\t: fpu svm_lock vme\n")
    assert "neither svm nor vmx" in lack()
    processors.write_text("processor\t: 0\nflags\t\t: fpu svm vme\n")
    assert f"there is no {device}" in lack()
    device.touch()
    assert f"there is no {device}" in lack()  # a file is no device
    device = Path("/dev/null")
    assert "filter for network cards is not loaded" in lack()


@pytest.mark.skipif(any((one / MANAGER).exists() for one in FOLDERS), reason="VirtualBox is installed here")
def test_where_it_is_not_everybody_says_so() -> None:
    with pytest.raises(PrerequisiteError, match="VirtualBox is not here") as raised:
        registry.require_programs((VIRTUALBOX,))
    assert "--machine reference" in raised.value.hint
    (missing,) = registry.find_missing((VIRTUALBOX,))
    assert missing.name == VIRTUALBOX and "VirtualBox is not here" in missing.why
    check = check_virtualbox()
    assert not check.ok and not check.required and "VirtualBox is not here" in check.detail
