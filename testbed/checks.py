"""A check of the host: one question, and its answer."""

from __future__ import annotations

from msgspec import Struct

SET_UP = "run ./invoke, which installs it"


class Check(Struct, frozen=True):
    """One question to the host: ``ok``, what was found, and, when not ok, what to do. Some are not ``required``."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    required: bool = True
