"""Containers described as text, for a runtime elsewhere that is to start them: ``Spec`` as JSON and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

from runtime.spec import Link, Process, Resources, Rlimit, Spec, User


def to_json(specs: Mapping[str, Spec], **more: object) -> str:
    """The containers by name, in order of their start, and ``more`` for whoever starts them."""
    containers = {name: asdict(spec) for name, spec in specs.items()}
    return json.dumps({**more, "containers": containers}, default=str)


def _spec(found: dict[str, Any]) -> Spec:
    process, link = dict(found["process"]), found["link"]
    user = process.pop("user")
    rlimits = tuple(Rlimit(**limit) for limit in process.pop("rlimits"))
    user["groups"] = tuple(user["groups"])
    for name in ("args", "env", "capabilities"):
        process[name] = tuple(process[name])
    if link is not None:
        gateway = IPv4Address(link["gateway"]) if link["gateway"] else None
        link = Link(IPv4Interface(link["address"]), link["mac"], gateway)
    return Spec(
        process=Process(user=User(**user), rlimits=rlimits, **process),
        layers=tuple(found["layers"]),
        hostname=found["hostname"],
        resources=Resources(**found["resources"]),
        link=link,
        hosts=tuple((name, address) for name, address in found["hosts"]),
        host_network=found["host_network"],
        masked_paths=tuple(found["masked_paths"]),
        readonly_paths=tuple(found["readonly_paths"]),
    )


def from_json(text: str) -> tuple[dict[str, Spec], dict[str, Any]]:
    """What ``to_json`` was given: the containers, and the rest."""
    document = json.loads(text)
    containers = document.pop("containers")
    return {name: _spec(found) for name, found in containers.items()}, document
