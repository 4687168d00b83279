"""Containers described as text, for a runtime elsewhere that is to start them: ``Spec`` as JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from runtime.spec import Spec


def to_json(specs: Mapping[str, Spec], **more: object) -> str:
    """The containers by name, in order of their start, and ``more`` for whoever starts them."""
    return msgspec.json.encode({**more, "containers": specs}, enc_hook=str).decode()


def _address(kind: type, text: Any) -> Any:
    return kind(text)


def from_json(text: str) -> tuple[dict[str, Spec], dict[str, Any]]:
    """What ``to_json`` was given: the containers, and the rest."""
    document = msgspec.json.decode(text)
    containers = document.pop("containers")
    return msgspec.convert(containers, dict[str, Spec], dec_hook=_address), document
