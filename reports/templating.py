"""The templates of HTML pages: all of their values are escaped, and one that is missing is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).parent / "templates"


def make_environment(**options: Any) -> Environment:
    """Return what loads the templates; ``options`` are more of Jinja's."""
    return Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, **options
    )
