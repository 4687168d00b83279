"""Which names services find each other by."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec.structs import replace

from runtime.spec import Resources
from testbed.compose.model import Attachment, Network, Service
from testbed.services.naming import (
    find_hostname,
    leads_out,
    list_hosts,
    make_resolver,
    read_hosts,
    read_resolver,
)

ADDRESSES = {"web": "10.0.0.2", "db": "10.0.0.3", "admin": "10.0.0.4"}
WEB = Service("web", Resources(), networks=(Attachment("front"), Attachment("back")))
DB = Service("db", Resources(), networks=(Attachment("back", ("store", "db")),))
ADMIN = Service("admin", Resources(), networks=(Attachment("front"),))


def hosts(service: Service) -> dict[str, str]:
    return dict(list_hosts(service, (WEB, DB, ADMIN), ADDRESSES, "10.0.0.1"))


def test_networks_decide_who_is_seen() -> None:
    assert hosts(WEB) == {"web": "10.0.0.2", "db": "10.0.0.3", "store": "10.0.0.3", "admin": "10.0.0.4"}
    assert hosts(DB) == {"db": "10.0.0.3", "store": "10.0.0.3", "web": "10.0.0.2"}
    assert hosts(ADMIN) == {"admin": "10.0.0.4", "web": "10.0.0.2"}


def test_a_service_without_networks_is_in_the_default_one() -> None:
    other = Service("other", Resources())
    assert dict(list_hosts(other, (DB, other), {**ADDRESSES, "other": "10.0.0.9"}, "")) == {"other": "10.0.0.9"}


def test_names_of_its_own_come_first() -> None:
    web = replace(
        WEB,
        hostname="front",
        domainname="example.org",
        links=(("db", "database"),),
        hosts=(("db", "192.0.2.1"), ("host.docker.internal", "host-gateway")),
    )
    assert list(hosts(web).items())[:5] == [
        ("front", "10.0.0.2"),
        ("front.example.org", "10.0.0.2"),
        ("db", "192.0.2.1"),
        ("host.docker.internal", "10.0.0.1"),
        ("database", "10.0.0.3"),
    ]


def test_a_service_without_a_network_finds_itself_alone() -> None:
    alone = Service("alone", Resources(), network_mode="none", links=(("db", "store"),))
    assert dict(list_hosts(alone, (WEB, DB, alone), ADDRESSES, "")) == {"alone": "127.0.0.1", "store": "10.0.0.3"}
    other = Service("other", Resources())
    assert dict(list_hosts(other, (alone, other), {"other": "10.0.0.9"}, "")) == {"other": "10.0.0.9"}


def test_who_is_asked_for_names() -> None:
    assert make_resolver(WEB, WEB, "") == ""
    assert make_resolver(WEB, WEB, "10.77.0.1") == "nameserver 10.77.0.1\n"
    own = replace(WEB, dns=("192.0.2.1", "192.0.2.2"), dns_search=("a.example", "b"), dns_options=("ndots:2",))
    text = "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.example b\noptions ndots:2\n"
    assert make_resolver(own, WEB, "10.77.0.1", "of the host") == text
    assert make_resolver(WEB, own, "10.77.0.1") == text, "what shares its network asks whom it asks"
    assert make_resolver(WEB, WEB, "", "of the host") == "of the host"


def test_an_internal_network_leads_nowhere() -> None:
    networks = (Network("front"), Network("back", internal=True))
    assert leads_out(WEB, networks) and not leads_out(DB, networks)
    assert leads_out(Service("other", Resources()), networks)
    for mode in ("none", "host", "service:web"):
        assert not leads_out(Service("other", Resources(), network_mode=mode), networks)


SIDE = Service("side", Resources(), network_mode="service:db", hosts=(("outside", "192.0.2.1"),))


def test_one_that_shares_a_network_is_found_there_and_finds_what_the_other_finds() -> None:
    services, addresses = (WEB, DB, ADMIN, SIDE), {**ADDRESSES, "side": ADDRESSES["db"]}
    assert dict(list_hosts(SIDE, services, addresses, "")) == {
        "db": "10.0.0.3", "outside": "192.0.2.1", "web": "10.0.0.2", "store": "10.0.0.3", "side": "10.0.0.3",
    }  # fmt: skip
    assert dict(list_hosts(WEB, services, addresses, ""))["side"] == ADDRESSES["db"]
    assert "side" not in dict(list_hosts(ADMIN, services, addresses, "")), "as db, whose network is not admin's"
    assert find_hostname(SIDE, services) == "db"
    assert find_hostname(SIDE, (replace(DB, hostname="base"), SIDE)) == "base"
    assert find_hostname(replace(SIDE, hostname="own"), services) == "own"


def test_the_hosts_network_has_the_hosts_names(tmp_path: Path) -> None:
    host = Service("agent", Resources(), network_mode="host")
    name = os.uname().nodename
    assert find_hostname(host, (host,)) == find_hostname(replace(WEB, uts="host"), (WEB,)) == name
    found = dict(list_hosts(host, (WEB, DB, host), ADDRESSES, ""))
    assert found == {name: "127.0.0.1", "web": "10.0.0.2", "db": "10.0.0.3", "store": "10.0.0.3"}
    assert "agent" not in dict(list_hosts(WEB, (WEB, host), ADDRESSES, "")), "no address of the lab is its own"
    file = tmp_path / "hosts"
    file.write_text("127.0.0.1 localhost own # comment\n\n::1 localhost six\n192.0.2.1\ta.example a\n")
    assert read_hosts(file) == (
        ("own", "127.0.0.1"), ("localhost", "::1"), ("six", "::1"), ("a.example", "192.0.2.1"), ("a", "192.0.2.1"),
    )  # fmt: skip
    assert read_hosts(tmp_path / "gone") == () and read_resolver(tmp_path / "gone") == ""
