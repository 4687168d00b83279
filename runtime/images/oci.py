"""Convert our frozen data to the JSON of the OCI image configuration (image-spec 1.1, config.md), and back.

The text is canonical (sorted keys, no spaces, a fixed creation time), so that the same configuration with the same
layers always has the same image id.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence

from msgspec import Struct

from runtime.images.model import Healthcheck, History, ImageConfig

# The time of everything that a build creates. It is the earliest that ZIP archives can hold, which is why reproducible
# builds agree on it (reproducible-builds.org, "Archive metadata").
EPOCH_S = 315_532_800
CREATED = "1980-01-01T00:00:00Z"

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}


def architecture() -> str:
    """Return the image-spec's name of this machine's architecture (Go's ``GOARCH``)."""
    machine = platform.machine()
    return ARCHITECTURES.get(machine, machine)


def to_json(config: ImageConfig, diff_ids: Sequence[str], history: Sequence[History]) -> str:
    """Return the image configuration as canonical JSON text, whose sha256 is the image id."""
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
            **_rarer(config),
        },
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [_history_entry(entry) for entry in history],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _rarer(config: ImageConfig) -> dict[str, object]:
    """Return the members that are left out where they say nothing."""
    check = config.healthcheck
    members: dict[str, object] = {
        "Volumes": {path: {} for path in config.volumes},
        "StopSignal": config.stop_signal,
        "Healthcheck": check and {name: value for name, value in _check_members(check).items() if value},
        "OnBuild": list(config.on_build),
        "Shell": list(config.shell),
    }
    return {name: value for name, value in members.items() if value}


def _check_members(check: Healthcheck) -> dict[str, object]:
    return {
        "Test": list(check.test),
        "Interval": check.interval_ns,
        "Timeout": check.timeout_ns,
        "StartPeriod": check.start_period_ns,
        "StartInterval": check.start_interval_ns,
        "Retries": check.retries,
    }


class Rootfs(Struct, frozen=True):
    """The layers of an image configuration, bottom first."""

    diff_ids: tuple[str, ...]


class _Check(Struct, frozen=True, rename="pascal"):
    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class _Config(Struct, frozen=True, rename="pascal"):
    env: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    working_dir: str | None = None
    user: str | None = None
    exposed_ports: dict[str, object] | None = None
    labels: dict[str, str] | None = None
    volumes: dict[str, object] | None = None
    stop_signal: str | None = None
    healthcheck: _Check | None = None
    on_build: tuple[str, ...] | None = None
    shell: tuple[str, ...] | None = None


class _Entry(Struct, frozen=True):
    created_by: str | None = None
    empty_layer: bool | None = None


class Document(Struct, frozen=True):
    """The members of an image configuration's JSON that are read."""

    rootfs: Rootfs
    config: _Config | None = None
    history: tuple[_Entry, ...] | None = None


def config_of(document: Document) -> ImageConfig:
    """Return the ``config`` object of an image configuration; absent and null members become empty."""
    config = document.config or _Config()
    return ImageConfig(
        env=config.env or (),
        cmd=config.cmd or (),
        entrypoint=config.entrypoint or (),
        working_dir=config.working_dir or "/",
        user=config.user or "",
        exposed_ports=tuple(config.exposed_ports or ()),
        labels=tuple(sorted((config.labels or {}).items())),
        volumes=tuple(config.volumes or ()),
        stop_signal=config.stop_signal or "",
        healthcheck=_healthcheck_of(config.healthcheck),
        on_build=config.on_build or (),
        shell=config.shell or (),
    )


def _healthcheck_of(check: _Check | None) -> Healthcheck | None:
    if check is None:
        return None
    times = (check.interval, check.timeout, check.start_period, check.start_interval)
    return Healthcheck(check.test or (), *times, check.retries)


def history_of(document: Document) -> tuple[History, ...]:
    """Return the ``history`` of an image configuration, oldest first."""
    return tuple(History(entry.created_by or "", bool(entry.empty_layer)) for entry in document.history or ())


def _history_entry(entry: History) -> dict[str, object]:
    fields: dict[str, object] = {"created": CREATED, "created_by": entry.created_by}
    if entry.empty_layer:
        fields["empty_layer"] = True
    return fields
