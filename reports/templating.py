"""The templates of HTML pages: all of their values are escaped, and one that is missing is an error."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_BEFORE_UNIT = re.compile(r"(?<=[0-9]) (?=(?:s|ms|MiB|requests/s)\b|%|/s)")
_TEMPLATES = Path(__file__).parent / "templates"


@cache
def make_environment(**options: Any) -> Environment:
    """Return what loads the templates, and compiles each once; ``options`` are more of Jinja's."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, **options
    )
    environment.filters["unbroken"] = bind_units
    return environment


def bind_units(text: str) -> str:
    """Return a text in which no line ends between a number and its unit."""
    return _BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)
