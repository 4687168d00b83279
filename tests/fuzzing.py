"""Compiles a fuzzer of C code: libFuzzer, with the sanitizers that see what a reader does wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

_FLAGS = ("-g", "-O1", "-D_GNU_SOURCE", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")


def compile_fuzzer(binary: Path, sources: Iterable[str], includes: Iterable[str]) -> Path:
    """Compile ``binary`` and return its path; the test is skipped where clang has no libFuzzer."""
    try:
        built = subprocess.run(
            ["clang", *_FLAGS, *includes, "-o", str(binary), *sources], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("clang is not installed, and libFuzzer comes with it")
    if built.returncode != 0 and "cannot find" in built.stderr:
        pytest.skip("clang has no libFuzzer here: install its libclang-rt package")
    assert built.returncode == 0, built.stderr
    return binary
