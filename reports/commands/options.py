"""What tasks have in common: where runs, scenarios and images are, and how words and numbers are parsed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import UsageError

if TYPE_CHECKING:
    from runtime.images.store import Store

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


def split_words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def parse_number(option: str, text: str) -> int:
    """The whole number that an option is given. Raises UsageError for anything else."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{option} {text}: not a whole number") from None


def parse_fraction(option: str, text: str) -> float:
    """The number that an option is given. Raises UsageError for anything else."""
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{option} {text}: not a number") from None


def open_store() -> Store:
    """The store of images on this host. Its modules are loaded for the tasks that need them."""
    from runtime.images import store

    return store.open_store()
