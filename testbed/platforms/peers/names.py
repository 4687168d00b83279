"""The peers, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from testbed.platforms.peers.bare import ChrootPeer, ProcessPeer
from testbed.platforms.peers.bwrap import BwrapPeer
from testbed.platforms.peers.lxc import LxcPeer
from testbed.platforms.peers.nspawn import NspawnPeer
from testbed.platforms.peers.oci import CRUN, KATA, RUNC, RUNSC, YOUKI
from testbed.platforms.peers.peer import Peer
from testbed.platforms.peers.podman import PodmanPeer

_TOOLS: tuple[Peer, ...] = (ProcessPeer(), ChrootPeer(), BwrapPeer(), NspawnPeer(), LxcPeer())
_RUNTIMES: tuple[Peer, ...] = (CRUN, RUNC, YOUKI, PodmanPeer(), RUNSC, KATA)
PEERS: Mapping[str, Peer] = MappingProxyType({peer.name: peer for peer in (*_TOOLS, *_RUNTIMES)})
