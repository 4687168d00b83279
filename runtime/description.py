"""This module converts ``Spec`` to JSON and back, to describe containers to a runtime elsewhere that starts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from runtime.spec import Spec


def to_json(specs: Mapping[str, Spec], **more: object) -> str:
    """Encode the containers by name, in the order of their start, and ``more`` fields for whoever starts them."""
    return msgspec.json.encode({**more, "containers": specs}, enc_hook=str).decode()


def _address(kind: type, text: Any) -> Any:
    return kind(text)


def from_json(text: str) -> tuple[dict[str, Spec], dict[str, Any]]:
    """Return the containers and the other fields that ``to_json`` was given."""
    document = msgspec.json.decode(text)
    containers = document.pop("containers")
    return msgspec.convert(containers, dict[str, Spec], dec_hook=_address), document
