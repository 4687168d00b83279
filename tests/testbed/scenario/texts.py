"""A small scenario as text, to be changed, and what comes of reading one."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.scenario.model import Scenario, load

CLICKME = Path(__file__).parents[3] / "scenarios" / "clickme"

LIMITS = "deploy: {resources: {limits: {memory: 64M, cpus: 0.5}}}"
SERVICE = f"""\
services:
  web:
    build: .
    {LIMITS}
"""
TESTBED = """\
x-testbed:
  trials: 4
  ready: {service: web, port: 80, path: /, timeout_s: 5, timeout_vm_s: 50}
  load: {service: web, port: 80, path: /, rates_per_s: [1], duration_s: 2, warmup_s: 0.5, connections: 1}
  slo: {p99_ms: 100, error_fraction: 0.01}
  density: {rate_per_s: 1, window_s: 1, cap: 3}
"""


def load_text(folder: Path, text: str) -> Scenario:
    (folder / "Dockerfile").write_text("FROM testbed/base\n")
    (folder / "compose.yaml").write_text(text)
    return load(f"{folder}/", folder)


def error_of(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_text(folder, text)
    message = str(caught.value)
    prefix = f"{folder}/compose.yaml:"
    assert message.startswith(prefix)
    return message.removeprefix(prefix)
