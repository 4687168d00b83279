"""Checks which peers are here, with their versions, and what to install for those that are not."""

from __future__ import annotations

from runtime.errors import PrerequisiteError
from testbed.checks import Check
from testbed.platforms.docker_client import find_daemon
from testbed.platforms.peers.names import PEERS
from testbed.platforms.peers.peer import Peer
from testbed.platforms.peers.platform import probe
from testbed.platforms.rungs.names import RUNGS
from testbed.platforms.rungs.needs import check_rung
from testbed.rungs.read import find_rung


def check_peers() -> list[Check]:
    """Check for the program of each peer, which is asked for its version, and for what the ladder's rungs need."""
    return [*(check_peer(peer) for peer in PEERS.values()), check_docker(), check_rungs()]


def check_rungs() -> Check:
    """Check for what the ladder's rungs of containers need of the kernel."""
    missing = []
    for name in RUNGS:
        try:
            check_rung(find_rung(name))
        except PrerequisiteError as error:
            missing.append((error.message, error.hint))
    here = f"{len(RUNGS) - len(missing)} of {len(RUNGS)} rungs of containers can be run"
    detail = "; ".join([here, *(message for message, _ in missing)])
    return Check("ladder", not missing, detail, "; ".join(dict.fromkeys(hint for _, hint in missing)), required=False)


def check_peer(peer: Peer) -> Check:
    """Check for one peer."""
    try:
        found = probe(peer)
    except PrerequisiteError as error:
        return Check(peer.name, False, error.message, error.hint, required=False)
    where = f"{found.version} at {found.path}" if found.path else "needs no program"
    return Check(peer.name, True, f"{where}; {found.problem}" if found.problem else where, required=False)


def check_docker() -> Check:
    """Check for docker's daemon, which the testbed does not start."""
    try:
        daemon = find_daemon()
    except PrerequisiteError as error:
        return Check("docker", False, error.message, error.hint, required=False)
    return Check("docker", True, f"{daemon.version} with {daemon.storage} and {daemon.runtime}", required=False)
