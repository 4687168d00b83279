"""Which names services find each other by."""

from __future__ import annotations

from msgspec.structs import replace

from runtime.spec import Resources
from testbed.compose.model import Attachment, Network, Service
from testbed.services.naming import leads_out, list_hosts, make_resolver

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
    assert make_resolver(WEB, "") == ""
    assert make_resolver(WEB, "10.77.0.1") == "nameserver 10.77.0.1\n"
    own = replace(WEB, dns=("192.0.2.1", "192.0.2.2"), dns_search=("a.example", "b"), dns_options=("ndots:2",))
    text = "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch a.example b\noptions ndots:2\n"
    assert make_resolver(own, "10.77.0.1") == text


def test_an_internal_network_leads_nowhere() -> None:
    networks = (Network("front"), Network("back", internal=True))
    assert leads_out(WEB, networks) and not leads_out(DB, networks)
    assert leads_out(Service("other", Resources()), networks)
    assert not leads_out(Service("other", Resources(), network_mode="none"), networks)
