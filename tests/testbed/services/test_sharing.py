"""What follows from the namespaces that services share."""

from __future__ import annotations

from runtime.spec import Resources
from testbed.compose.model import Service
from testbed.services.sharing import is_on_host, lends_ports, list_lines, list_shared, reach

VPN = Service("vpn", Resources())
WEB = Service("web", Resources(), network_mode="service:vpn", pid="host", ipc="private", uts="host", cgroup="host")
LAST = Service("last", Resources(), network_mode="service:web", ipc="service:web")
AGENT = Service("agent", Resources(), network_mode="host")
SIDE = Service("side", Resources(), network_mode="service:agent")
ALONE = Service("alone", Resources(), network_mode="none")
EVERY = (VPN, WEB, LAST, AGENT, SIDE, ALONE)


def test_kinds_are_shared_with_a_service_or_the_host() -> None:
    assert list_shared(VPN, "/host") == () == list_shared(ALONE, "/host")
    assert list_shared(WEB, "/host") == (("network", "vpn"), ("pid", ""), ("uts", ""), ("cgroup", ""))
    assert list_shared(LAST, "/host") == (("network", "web"), ("ipc", "web"))
    assert list_shared(AGENT, "/host") == (("network", "/host"),)
    assert list_shared(AGENT, "") == (("network", ""),)


def test_services_are_asked_where_their_network_is() -> None:
    at = reach(EVERY, {"vpn": "10.0.0.2"})
    assert at == {**dict.fromkeys(("vpn", "web", "last"), "10.0.0.2"), "agent": "127.0.0.1", "side": "127.0.0.1"}
    assert [one.name for one in EVERY if is_on_host(one, EVERY)] == ["agent", "side"]


def test_ports_of_a_lender_may_be_anothers() -> None:
    assert [one.name for one in EVERY if lends_ports(one.name, EVERY)] == ["vpn", "agent"]


def test_what_is_on_the_host_is_said_in_a_line() -> None:
    (measured,) = list_lines(EVERY, measured=True)
    (used,) = list_lines(EVERY, measured=False)
    assert measured.startswith("agent: network_mode: host: the run's own network") and "forwarded" in used
