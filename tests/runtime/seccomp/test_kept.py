"""Compiled filters on disk: believed as long as nothing that they came out of has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.config.seccomp import Seccomp, SyscallRule
from runtime.seccomp import filter as filters
from runtime.seccomp import kept
from runtime.seccomp.compile import compiled

pytestmark = pytest.mark.root
CONFIG = Seccomp("SCMP_ACT_ALLOW", syscalls=(SyscallRule(("reboot", "swapon"), "SCMP_ACT_ERRNO"),))


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not compiled anything, and whose compiler would be noticed."""
    monkeypatch.setattr(filters, "_compiled", {})


def recall(config: Seccomp, directory: Path) -> None:
    """Recall the filter, and keep it if it was compiled, as a command's client does."""
    if (unkept := kept.recall(config, directory)) is not None:
        unkept.path.unlink(missing_ok=True)
        unkept.path.write_bytes(unkept.content)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    forget(monkeypatch)
    recall(CONFIG, tmp_path)
    forget(monkeypatch)
    (found,) = tmp_path.iterdir()
    return found


def test_a_kept_filter_is_the_compiled_one_and_is_not_compiled_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = compiled(CONFIG)
    monkeypatch.delattr(kept, "compile_filter")
    recall(CONFIG, file.parent)
    assert filters._compiled == {CONFIG: right}
    for name in ("compile.py", "filter.py", "ranges.py", "libseccomp"):
        assert name.encode() in file.read_bytes()


def test_another_configuration_has_another_file(file: Path) -> None:
    recall(Seccomp("SCMP_ACT_ERRNO"), file.parent)
    assert len(list(file.parent.iterdir())) == 2


@pytest.mark.parametrize("damage", ["torn", "other library", "somebody else's"])
def test_what_is_not_believed_is_compiled_anew_and_kept(
    file: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = file.read_bytes()
    if damage == "torn":
        file.write_bytes(good[:-3])
    elif damage == "other library":
        library = good[good.index(b"/") :].partition(b"\0")[0]
        file.write_bytes(good.replace(library, library[:-1] + b"X"))
    else:
        file.write_bytes(good[:-8] + bytes(8))
        os.chown(file, 1000, 1000)
    recall(CONFIG, file.parent)
    assert filters._compiled == {CONFIG: compiled(CONFIG)}
    assert file.read_bytes() == good and file.stat().st_uid == 0
