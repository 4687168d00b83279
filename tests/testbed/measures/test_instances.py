"""What is started of a copy of an application, and what it is asked then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from testbed.measures.context import RunContext
from testbed.measures.instances import make_instances, make_questions

MakeContext = Callable[..., RunContext]


def test_instances_know_each_other_by_name_and_no_platform(make_context: MakeContext) -> None:
    context = make_context(web={"COLOUR": "blue"})
    store, web = make_instances(context, 2, "t001")
    assert dict(store.spec.hosts) == dict(web.spec.hosts)
    assert sorted(name for name, _ in web.spec.hosts) == ["store", "web"]
    assert web.spec.link is not None and dict(web.spec.hosts)["web"] == str(web.spec.link.address.ip)
    assert (web.spec.hostname, web.name, web.application) == ("web", "t001-web", 2)
    assert "COLOUR=blue" in web.spec.process.env and "COLOUR=blue" not in store.spec.process.env
    assert web.spec.resources == context.scenario.services[1].resources
    assert make_instances(context, 2, "t001") == (store, web)
    other = make_instances(context, 3, "t001")
    assert not {address for _, address in web.spec.hosts} & {address for _, address in other[0].spec.hosts}


def test_a_shared_instance_runs_all_services_at_one_address(make_context: MakeContext) -> None:
    context = make_context()
    (both,) = make_instances(context, 2, "t001", shared=True, one_address=True)
    alone = make_instances(context, 2, "t001")
    assert (both.name, list(both.specs)) == ("t001-small", ["store", "web"])
    store, web = both.specs.values()
    assert store.link == web.link == alone[0].spec.link
    assert store.link is not None
    assert dict(web.hosts) == dict.fromkeys(("store", "web"), str(store.link.address.ip))
    assert [spec.process for spec in both.specs.values()] == [one.spec.process for one in alone]


def test_the_ready_check_comes_first_and_its_port_is_asked_once(make_context: MakeContext) -> None:
    context = make_context()
    asked = make_questions(context.scenario, context.settings.ready, {"web": "127.0.0.2", "store": "127.0.0.3"})
    assert [(question.service, question.port, question.path) for question in asked] == [
        ("web", 18080, "/health"),
        ("store", 16379, ""),
    ]


def sharing(context: RunContext, **changes: str) -> RunContext:
    """The context of the same run, with what ``web`` shares."""
    store, web = context.scenario.services
    return replace(context, scenario=replace(context.scenario, services=(store, replace(web, **changes))))


def test_an_instance_knows_whose_namespaces_it_shares(make_context: MakeContext) -> None:
    context = sharing(make_context(), network_mode="service:store", pid="service:store", uts="host")
    store, web = make_instances(context, 2, "t001")
    assert (store.lenders, web.lenders) == ({}, {"store": "t001-store"})
    assert web.spec.link is None and web.spec.shared == (("network", "store"), ("pid", "store"), ("uts", ""))
    assert store.spec.link is not None and dict(web.spec.hosts)["web"] == str(store.spec.link.address.ip)
    (both,) = make_instances(context, 2, "t001", shared=True, one_address=True)
    assert both.lenders == {} and both.specs["web"].shared == web.spec.shared, "who starts them finds them by name"


def test_the_hosts_network_is_the_callers_in_a_run(make_context: MakeContext) -> None:
    context = sharing(make_context(), network_mode="host")
    store, web = make_instances(context, 2, "t001")
    assert web.spec.shared == (("network", ""),) and web.spec.link is None
    assert dict(web.spec.hosts)["store"] == dict(store.spec.hosts)["store"] and "web" not in dict(store.spec.hosts)
    asked = make_questions(context.scenario, context.settings.ready, {"web": "127.0.0.1", "store": "127.0.0.3"})
    assert [(one.service, one.on_host, one.path) for one in asked] == [("web", True, "/health"), ("store", False, "")]


def test_nobody_asks_without_a_network(make_context: MakeContext) -> None:
    context = make_context()
    with pytest.raises(UsageError, match=r"x-testbed\.ready: web has no network"):
        make_questions(context.scenario, context.settings.ready, {"store": "127.0.0.3"})
