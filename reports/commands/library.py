"""Imports the task runner's library without what it imports and no task uses, which took a third of the start of every
command: ``unittest.mock`` with asyncio and ssl for its users' tests, YAML for its own settings, and what finds packages
for its own version."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any

_NAME = "invoke"
# What the library takes from each of these modules while it is imported.
_TAKEN: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "importlib.metadata": {"version": lambda package: ""},
        "invoke.vendor.yaml": {},
        "unittest.mock": {"Mock": object},
    }
)


class _Later(ModuleType):
    """A module that is imported when something else of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_library() -> None:
    """Import the library, if nobody has. What it offers for tests is of no use in this process then, and its version is
    ``find_version``; anybody else who imports those modules gets them."""
    if _NAME in sys.modules:
        return
    stand_ins = {name: _Later(name) for name in _TAKEN if name not in sys.modules}
    for name, module in stand_ins.items():
        module.__dict__.update(_TAKEN[name])
    sys.modules.update(stand_ins)
    try:
        importlib.import_module(f"{_NAME}.program")
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def find_version() -> str:
    """Return the library's version."""
    from importlib.metadata import version

    return version(_NAME)
