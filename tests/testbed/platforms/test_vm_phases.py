"""What a console showed becomes the phases of a start, of the guest and of each service in it."""

from __future__ import annotations

from testbed.platforms.phases import arrange_phases


def test_a_guest_that_is_ahead_of_libvirts_answer_is_created_no_later_than_it_ran() -> None:
    phases = {"defined": 12, "spawned": 15, "kernel_entry": 20, "first_process": 40}
    assert arrange_phases(phases, 10, 25).phases == {
        "request": 10,
        "defined": 12,
        "spawned": 15,
        "created": 20,
        "kernel_entry": 20,
        "first_process": 40,
    }


def test_services_in_one_guest_have_their_own_and_the_last_of_them_is_the_guests() -> None:
    phases = {"defined": 1, "spawned": 2, "kernel_entry": 5, "redis.first_process": 7, "web.first_process": 9}
    phases_of = arrange_phases(phases, 0, 3)
    assert phases_of.phases["first_process"] == 9 and phases_of.phases["created"] == 3
    assert phases_of.of("redis")["first_process"] == 7 and phases_of.of("web")["kernel_entry"] == 5
