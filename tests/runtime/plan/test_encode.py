"""The binary plan and the launcher that reads it agree, and damage is refused."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from msgspec import Struct

from runtime.errors import UsageError
from runtime.launcher import STATIC_BINARY
from runtime.plan import steps as s
from runtime.plan.encode import encode, magic
from runtime.plan.steps import Plan
from runtime.plan.steps.arguments import layout

PLAN = Plan(
    parent=(s.Write("/dev/null", ("x",)),),
    child=(s.SetUser(0, 0, (1, 2)), s.Exec(("/bin/true", "a"), ("A=b",), "/bin")),
)


def read(data: bytes, path: Path) -> str:
    """What the launcher says of a plan."""
    path.write_bytes(data)
    done = subprocess.run([STATIC_BINARY, path], capture_output=True, text=True, timeout=10)
    assert done.returncode in (0, 125)  # and not the status of a crash
    return done.stderr


def test_a_string_with_a_nul_byte_is_refused() -> None:
    with pytest.raises(UsageError, match="NUL"):
        encode(Plan(child=(s.Chdir("/a\0b"),)))


def test_the_header_carries_the_sizes() -> None:
    data = encode(PLAN)
    begin, total, parents, children, flags = struct.unpack_from("<8sIIII", data)
    assert (begin, total, parents, children, flags) == (magic(), len(data), 1, 2, 0)


@pytest.mark.parametrize("size", range(0, len(encode(PLAN)), 3))
def test_a_plan_cut_short_is_refused(size: int, tmp_path: Path) -> None:
    said = read(encode(PLAN)[:size], tmp_path / "plan")
    assert "not a plan" in said or "cut short" in said or "cannot be mapped" in said


def test_a_plan_for_a_launcher_with_other_operations_is_refused(tmp_path: Path) -> None:
    data = bytearray(encode(PLAN))
    data[7] ^= 1
    assert "a plan for another version of the launcher" in read(bytes(data), tmp_path / "plan")


def test_a_field_says_how_it_is_encoded() -> None:
    class Unclear(Struct):
        number: int

    with pytest.raises(TypeError, match=r"Unclear\.number"):
        layout(Unclear)


def test_random_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    """The reader checks every length; what it lets through is a well-formed plan without an exec step."""
    harmless = encode(Plan(child=(s.Umask(0o22), s.LogLine("")), parent=(s.Umask(0o22),)))
    source = random.Random(1)
    refused = 0
    for _ in range(500):
        data = bytearray(harmless)
        position = source.randrange(12, 24 + 8)  # counts and the cgroup's name: not what is performed
        data[position] ^= 1 << source.randrange(8)
        struct.pack_into("<I", data, 20, 0)
        refused += "step" not in read(bytes(data), tmp_path / "plan")
    assert refused > 50
