"""Imports the task runner's library without what it imports for its own users' tests: ``unittest.mock``, and with that
asyncio and ssl, took a sixth of the start of every command."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_UNUSED = "unittest.mock"


def import_library(name: str = "invoke") -> None:
    """Import the library; what it offers for tests, MockContext, is then of no use in this process. Anybody else who
    imports ``unittest.mock`` gets it."""
    if name in sys.modules or _UNUSED in sys.modules:
        importlib.import_module(name)
        return
    stand_in = ModuleType(_UNUSED)
    stand_in.__dict__["Mock"] = object
    sys.modules[_UNUSED] = stand_in
    try:
        importlib.import_module(name)
    finally:
        del sys.modules[_UNUSED]
