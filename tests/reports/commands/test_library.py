"""Every command starts with the task runner's library, and with no more than that needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SLOW = (
    "asyncio",
    "ssl",
    "unittest",
    "importlib.metadata",
    "yaml",
    "pandas",
    "numpy",
    "matplotlib",
    "scipy",
    "jinja2",
    "http.client",
    "libvirt",
)
CALL = """
import sys
import reports.commands.front
import tasks
print(*(name for name in sys.argv[1:] if name in sys.modules))
from importlib.metadata import version
from unittest.mock import Mock
import invoke
print(Mock().anything() is not None, bool(version("invoke")), invoke.config.yaml.safe_load("a: 1"))
"""


def test_a_command_starts_without_what_no_task_needs() -> None:
    done = subprocess.run([sys.executable, "-c", CALL, *SLOW], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "True True {'a': 1}"]
