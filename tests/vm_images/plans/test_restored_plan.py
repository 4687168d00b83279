"""What a saved guest forgets and what its copies are told, as plans."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from runtime.plan import steps as s
from runtime.plan.encode import encode
from runtime.plan.explain import explain
from runtime.spec import Link, Process, Resources, Spec
from vm_images.plans.guest import guest_plan, memory_steps
from vm_images.plans.restored import ASLEEP, IDENTIFIED, restored_plan, sleep_plan

LINK = Link(IPv4Interface("10.0.0.5/24"), "02:00:0a:00:00:05", IPv4Address("10.0.0.1"))
SPEC = Spec(Process(args=("true",)), ("/store/a",), "one", Resources(pids=9), LINK, (("redis", "10.0.0.6"),))


def test_a_copy_is_given_all_that_copies_must_not_share() -> None:
    plan = restored_plan(SPEC, "ab" * 16, 5_000_000_001, b"\0" * 32)
    text = explain(plan)
    for expected in (
        "clock_settime CLOCK_REALTIME to 5.000000001 s",
        "RNDADDENTROPY with 32 fresh bytes, then RNDRESEEDCRNG",
        "sethostname one",
        "10.0.0.6\\tredis",
        "eth0's MAC is 02:00:0a:00:00:05",
        "eth0 is 10.0.0.5/24",
        "default route by 10.0.0.1",
        "ab" * 16,
    ):
        assert expected in text
    assert plan.child[-1] == s.LogLine(IDENTIFIED)
    assert len(encode(plan)) < 4096, "more than a terminal holds unread (N_TTY_BUF_SIZE)"


def test_the_network_is_up_only_when_all_else_is_true() -> None:
    kinds = [type(step) for step in restored_plan(SPEC, "ab" * 16, 1, b"x").child]
    assert kinds.index(s.NetlinkSocket) > max(kinds.index(kind) for kind in (s.AddEntropy, s.SetClock, s.SetHostname))


def test_without_a_network_card_there_is_nothing_to_configure() -> None:
    spec = Spec(SPEC.process, SPEC.layers, "one")
    for plan in (sleep_plan(None), restored_plan(spec, "ab" * 16, 1, b"x")):
        assert not [step for step in plan.child if isinstance(step, s.Netlink)]


def test_who_is_to_be_saved_gives_its_address_back() -> None:
    text = explain(sleep_plan(LINK))
    assert "eth0 is 10.0.0.5/24 no more" in text and "take eth0 down" in text
    assert sleep_plan(LINK).child[-1] == s.LogLine(ASLEEP)


def test_a_served_guest_has_a_process_outside_the_task_limit_that_has_the_console_for_itself() -> None:
    cold, served = guest_plan(SPEC, ["/m.ko"]), guest_plan(SPEC, ["/m.ko"], served=True)
    added = [step for step in served.child if step not in cold.child]
    assert added == [s.Fork(2), s.Write("/cgroup/cgroup.procs", ("0",)), s.ServePlans(0)]
    telling = memory_steps()
    assert [step for step in cold.child if step not in telling] == [step for step in served.child if step not in added]
    assert not [step for step in served.child if isinstance(step, s.ServeFile)]
    assert not [step for step in guest_plan(Spec(SPEC.process, (), "x"), [], served=True).child if step == added[1]]


def test_every_step_has_a_reason() -> None:
    for plan in (sleep_plan(LINK), restored_plan(SPEC, "ab" * 16, 1, b"x"), guest_plan(SPEC, [], served=True)):
        assert all(step.reason().endswith(".") for step in plan.steps())
