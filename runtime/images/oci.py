"""The OCI image configuration (image-spec 1.1, config.md) as JSON, to and from our frozen data.

The text is canonical (sorted keys, no spaces, a fixed creation time), so that the same configuration
over the same layers always has the same image id.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.images.model import History, ImageConfig

# The time given to whatever a build creates: the earliest that ZIP archives can hold, which is why
# reproducible builds agree on it (reproducible-builds.org, "Archive metadata").
EPOCH_S = 315_532_800
CREATED = "1980-01-01T00:00:00Z"

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}


def architecture() -> str:
    """This machine's architecture by its name in the image-spec (Go's ``GOARCH``)."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def to_json(config: ImageConfig, diff_ids: Sequence[str], history: Sequence[History]) -> str:
    """The image configuration as canonical JSON text; its sha256 is the image id."""
    document = {
        "architecture": architecture(),
        "os": "linux",
        "created": CREATED,
        "config": {
            "Env": list(config.env),
            "Cmd": list(config.cmd),
            "Entrypoint": list(config.entrypoint),
            "WorkingDir": config.working_dir,
            "User": config.user,
            "ExposedPorts": {port: {} for port in config.exposed_ports},
            "Labels": dict(config.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [_history_entry(entry) for entry in history],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def config_of(document: Mapping[str, Any]) -> ImageConfig:
    """The ``config`` object of a parsed image configuration; absent and null members are empty."""
    config = document.get("config") or {}
    return ImageConfig(
        env=tuple(config.get("Env") or ()),
        cmd=tuple(config.get("Cmd") or ()),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        working_dir=config.get("WorkingDir") or "/",
        user=config.get("User") or "",
        exposed_ports=tuple(config.get("ExposedPorts") or ()),
        labels=tuple(sorted((config.get("Labels") or {}).items())),
    )


def history_of(document: Mapping[str, Any]) -> tuple[History, ...]:
    """The ``history`` of a parsed image configuration, oldest first."""
    return tuple(
        History(entry.get("created_by", ""), bool(entry.get("empty_layer", False)))
        for entry in document.get("history") or ()
    )


def _history_entry(entry: History) -> dict[str, object]:
    fields: dict[str, object] = {"created": CREATED, "created_by": entry.created_by}
    if entry.empty_layer:
        fields["empty_layer"] = True
    return fields
