"""What is asked of every port of a lab's bridge, whoever made it, and how to wait for one."""

from __future__ import annotations

import json
import subprocess

from tests.waiting import until


def _shown(*arguments: str) -> list[dict[str, object]]:
    done = subprocess.run(["bridge", "-details", "-json", *arguments], check=True, capture_output=True, text=True)
    ports: list[dict[str, object]] = json.loads(done.stdout)
    return ports


def require_fixed(port: str, *macs: str) -> None:
    """Fail unless the port learns nothing, gets nothing that is not for its MACs, and has these for good."""
    (shown,) = (one for one in _shown("link", "show") if one["ifname"] == port)
    assert (shown["learning"], shown["flood"]) == (False, False)
    entries = [one for one in _shown("fdb", "show", "dev", port) if one.get("state") == "static"]
    assert {one["mac"] for one in entries} == set(macs)
    for one in entries:
        assert "sticky" in one["flags"]  # type: ignore[operator]


def await_port(port: str) -> None:
    """Wait until a port passes frames on: the kernel lets it some time after the other end is up, when it gets round to
    that (net/core/link_watch.c), and drops what comes before."""
    until(lambda: [one["state"] for one in _shown("link", "show") if one["ifname"] == port] == ["forwarding"])
