"""Canaries that outlive whoever made them: they are noted, and go with the attack or by `clean`."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from testbed.probes import objects
from testbed.probes.objects import Noted, find_key, read_left, remove_left

pytestmark = pytest.mark.root


def has_segment(key: int) -> bool:
    return any(int(line.split()[0]) == key for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:])


@pytest.fixture
def key() -> int:
    return secrets.randbelow(0x6FFFFFFF) + 0x10000000


@pytest.mark.parametrize("killed", [False, True])
def test_all_go_with_the_attack_or_after_a_kill(tmp_path: Path, key: int, killed: bool) -> None:
    noted, name = Noted(tmp_path, "0"), f"testbed-{key:x}"
    objects.make_segment(noted, key, b"secret")
    number = objects.make_semaphore(noted, key)
    objects.make_queue(noted, key, b"secret")
    objects.make_posix_queue(noted, name, b"secret")
    objects.make_key(noted, name, b"secret")
    assert objects.read_semaphore(number) == 0 and find_key(name) is not None and has_segment(key)
    assert [kind for kind, _ in read_left(tmp_path)] == ["segment", "semaphore", "queue", "posix_queue", "key"]
    remove_left(tmp_path) if killed else noted.remove()
    assert not has_segment(key) and find_key(name) is None and read_left(tmp_path) == ()
    with pytest.raises(OSError, match="semctl"):
        objects.read_semaphore(number)
    again = Noted(tmp_path, "0")
    objects.make_posix_queue(again, name, b"secret")  # its name is free
    again.remove()


def test_a_record_that_is_none_is_nothing(tmp_path: Path) -> None:
    for text in ("", "{", "[1]", json.dumps([["unknown", "x"], ["segment", "none"]])):
        (tmp_path / "canaries-0.json").write_text(text)
        remove_left(tmp_path)
        assert list(tmp_path.iterdir()) == []
