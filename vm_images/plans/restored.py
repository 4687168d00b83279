"""A saved guest as plans: what it forgets before it is saved, and who each copy of it becomes once it is restored.

Both are performed by the guest's own launcher, next to the workload (``ServePlans``). A copy has all that the saved
guest's memory held, so whatever must differ between copies is set anew: address, MAC, names, machine-id, the
clock and the kernel's random numbers. What the workload itself keeps in its memory, such as the state of a random
number generator of its own, is the same in all copies; no kernel can fix that.
"""

from __future__ import annotations

from runtime import network
from runtime.plan.network import OWN_SOCKET, link_steps
from runtime.plan.steps import AddEntropy, LogLine, Netlink, NetlinkSocket, Plan, SetClock, Step, Write
from runtime.spec import Link, Spec
from vm_images.plans.guest import INTERFACE_INDEX, naming_steps

# Lines on the console, as those of vm_images.plans.guest.
ASLEEP = "testbed: ready to be saved"
IDENTIFIED = "testbed: identity"
# The kernel's generator takes 256 bits (drivers/char/random.c: BLAKE2S_HASH_SIZE).
ENTROPY_BYTES = 32


def sleep_plan(link: Link | None) -> Plan:
    """Return the plan of a guest that is about to be saved: it gives its address back, so that no copy ever answers to
    it.

    With the interface down, what the kernel made of its MAC by itself goes too: the link-local IPv6 address.
    """
    if link is None:
        return Plan((LogLine(ASLEEP),))
    address = network.delete_address(INTERFACE_INDEX, link.address)
    return Plan(
        (
            NetlinkSocket(OWN_SOCKET),
            Netlink(OWN_SOCKET, address, f"eth0 is {link.address} no more"),
            Netlink(OWN_SOCKET, network.link_down("eth0"), "take eth0 down"),
            LogLine(ASLEEP),
        )
    )


def _network_steps(link: Link | None) -> tuple[Step, ...]:
    if link is None:
        return ()
    return (NetlinkSocket(OWN_SOCKET), *link_steps(OWN_SOCKET, INTERFACE_INDEX, link, link.mac))


def restored_plan(spec: Spec, machine_id: str, realtime_ns: int, entropy: bytes) -> Plan:
    """Return the plan by which a restored copy becomes ``spec``'s guest.

    ``machine_id`` is 32 hexadecimal digits (machine-id(5)), ``realtime_ns`` the host's clock, in nanoseconds since
    1970, and ``entropy`` bytes that no other copy gets. The network comes last: once it answers, all else is true.
    """
    return Plan(
        (
            SetClock(realtime_ns),
            AddEntropy(entropy),
            *naming_steps(spec),
            Write("etc/machine-id", (f"{machine_id}\n",), create=True, inside=True),
            *_network_steps(spec.link),
            LogLine(IDENTIFIED),
        )
    )
