"""Who a process becomes and with which environment: limits, capabilities, scheduling, labels, its home."""

from __future__ import annotations

from errno import EINVAL, ENOENT

import pytest
from msgspec.structs import replace

from runtime.config.default import DEFAULT_PATH
from runtime.config.process import Capabilities, IOPriority, Rlimit, Scheduler, User
from runtime.errors import UsageError
from runtime.plan import steps as s
from runtime.plan.constants import ALL_CAPABILITIES, CAPABILITIES
from runtime.plan.process import (
    credential_steps,
    environment,
    grantable_mask,
    home_steps,
    label_refused,
    label_steps,
    search_path,
)
from tests.runtime.plan.bundles import PROCESS, assert_order, of_type

CHOWN, KILL, LAST = 1 << 0, 1 << 5, 1 << 40


@pytest.mark.parametrize(
    ("names", "grantable", "mask"),
    [
        ((), ALL_CAPABILITIES, 0),
        (("CAP_CHOWN", "CAP_KILL"), ALL_CAPABILITIES, CHOWN | KILL),
        (("CAP_CHOWN", "CAP_KILL"), KILL, KILL),
        (("CAP_KILL", "CAP_KILL", "CAP_X"), ALL_CAPABILITIES, KILL),
        (("CAP_CHECKPOINT_RESTORE",), ALL_CAPABILITIES, LAST),
        (CAPABILITIES, ALL_CAPABILITIES, ALL_CAPABILITIES),
    ],
)
def test_a_mask_has_the_bits_of_what_is_known_and_ours(names: tuple[str, ...], grantable: int, mask: int) -> None:
    assert grantable_mask(names, grantable) == mask


@pytest.mark.parametrize(
    ("env", "left"),
    [
        ((), ()),
        (("A=1", "B=2"), ("A=1", "B=2")),
        (("A=1", "B=2", "A=3"), ("A=3", "B=2")),
        (("A", "A=1"), ("A=1",)),
        (("A=x=y", "A=z=w"), ("A=z=w",)),
    ],
)
def test_the_last_of_a_variable_counts_in_the_place_of_the_first(env: tuple[str, ...], left: tuple[str, ...]) -> None:
    assert environment(env) == left


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ((), DEFAULT_PATH),
        (("PATH=/a",), "/a"),
        (("PATH=/a", "PATH=/b:/c"), "/b:/c"),
        (("PATH=",), ""),
        (("MYPATH=/x",), DEFAULT_PATH),
    ],
)
def test_where_commands_are_looked_for(env: tuple[str, ...], path: str) -> None:
    assert search_path(env) == path


@pytest.mark.parametrize(
    ("env", "looked_up", "left"),
    [
        (("HOME=/h", "A=1"), False, ("HOME=/h", "A=1")),
        (("HOME=", "HOME=/h"), False, ("HOME=", "HOME=/h")),
        (("A=1",), True, ("A=1", "HOME=/")),
        (("HOME=", "A=1"), True, ("A=1", "HOME=/")),
        (("HOME=/h", "HOME="), True, ("HOME=/",)),
        (("HOMES=/h",), True, ("HOMES=/h", "HOME=/")),
    ],
)
def test_a_home_is_looked_up_unless_one_is_given(env: tuple[str, ...], looked_up: bool, left: tuple[str, ...]) -> None:
    assert home_steps(replace(PROCESS, env=env, user=User(7))) == ((s.FindHome(7),) if looked_up else (), left)


def test_credentials_come_in_the_order_that_each_needs_of_the_one_before() -> None:
    """The bounding set takes CAP_SETPCAP, which goes with the user unless it is kept; the ambient set lies within the
    permitted and the inheritable one, and the latter are set with capset(2), which the change of user would undo."""
    process = replace(
        PROCESS,
        user=User(1000, 1001, additional_gids=(4, 5)),
        rlimits=(Rlimit("RLIMIT_CPU", 1, 2),),
        scheduler=Scheduler("SCHED_IDLE"),
        io_priority=IOPriority("IOPRIO_CLASS_IDLE"),
    )
    steps = credential_steps(process, keep_groups=False)
    user = s.SetUser(1000, 1001, (4, 5))
    assert_order(steps, s.SetRlimit(0, 1, 2), s.BoundingSet, s.KeepCapabilities(), user, s.Capabilities, s.Ambient)
    assert_order(steps, s.SetScheduler, user)
    assert_order(steps, s.IOPriority, user)


def test_each_set_of_capabilities_is_its_own() -> None:
    names = ("CAP_CHOWN", "CAP_KILL")
    for kind in ("bounding", "effective", "permitted", "inheritable"):
        steps = credential_steps(replace(PROCESS, capabilities=Capabilities(**{kind: names})), keep_groups=False)
        (bounding,), (sets,) = of_type(steps, s.BoundingSet), of_type(steps, s.Capabilities)
        found = {"bounding": bounding.mask, "effective": sets.effective, "permitted": sets.permitted}
        found["inheritable"] = sets.inheritable
        assert found == {**dict.fromkeys(found, 0), kind: CHOWN | KILL}


@pytest.mark.parametrize(
    ("permitted", "inheritable", "mask"),
    [
        (("CAP_CHOWN", "CAP_KILL"), ("CAP_CHOWN", "CAP_KILL"), CHOWN | KILL),
        (("CAP_CHOWN",), ("CAP_CHOWN", "CAP_KILL"), CHOWN),
        (("CAP_CHOWN", "CAP_KILL"), ("CAP_KILL",), KILL),
        ((), ("CAP_KILL",), 0),
    ],
)
def test_the_ambient_set_is_what_the_kernel_takes_of_it(
    permitted: tuple[str, ...], inheritable: tuple[str, ...], mask: int
) -> None:
    sets = Capabilities(permitted=permitted, inheritable=inheritable, ambient=("CAP_CHOWN", "CAP_KILL"))
    steps = credential_steps(replace(PROCESS, capabilities=sets), keep_groups=False)
    assert of_type(steps, s.Ambient) == [s.Ambient(mask)]


@pytest.mark.parametrize(("given", "mask"), [(None, 0o022), (0, 0), (0o077, 0o077)])
def test_a_mask_of_file_modes(given: int | None, mask: int) -> None:
    steps = credential_steps(replace(PROCESS, user=User(umask=given)), keep_groups=False)
    assert of_type(steps, s.Umask) == [s.Umask(mask)]


@pytest.mark.parametrize(
    ("scheduler", "step"),
    [
        (Scheduler("SCHED_OTHER", nice=-5), s.SetScheduler(0, nice=-5)),
        (Scheduler("SCHED_FIFO", priority=9), s.SetScheduler(1, priority=9)),
        (Scheduler("SCHED_RR"), s.SetScheduler(2)),
        (Scheduler("SCHED_IDLE"), s.SetScheduler(5)),
        (Scheduler("SCHED_BATCH", flags=("SCHED_FLAG_RESET_ON_FORK",)), s.SetScheduler(3, 1)),
        (
            Scheduler("SCHED_OTHER", flags=("SCHED_FLAG_UTIL_CLAMP_MAX", "SCHED_FLAG_RECLAIM") * 2),
            s.SetScheduler(0, 66),
        ),
        (
            Scheduler("SCHED_DEADLINE", runtime=1, deadline=2, period=3),
            s.SetScheduler(6, runtime=1, deadline=2, period=3),
        ),
    ],
)
def test_a_scheduler(scheduler: Scheduler, step: s.Step) -> None:
    """sched_setattr(2)."""
    steps = credential_steps(replace(PROCESS, scheduler=scheduler), keep_groups=False)
    assert of_type(steps, s.SetScheduler) == [step]


@pytest.mark.parametrize(
    ("name", "level", "value"),
    [("IOPRIO_CLASS_RT", 7, 1 << 13 | 7), ("IOPRIO_CLASS_BE", 0, 2 << 13), ("IOPRIO_CLASS_IDLE", 0, 3 << 13)],
)
def test_an_input_output_priority(name: str, level: int, value: int) -> None:
    steps = credential_steps(replace(PROCESS, io_priority=IOPriority(name, level)), keep_groups=False)
    assert of_type(steps, s.IOPriority) == [s.IOPriority(value)]


def test_what_the_kernel_does_not_have_is_named_with_what_it_has() -> None:
    for process, named, known in (
        (replace(PROCESS, scheduler=Scheduler("SCHED_X")), "process.scheduler.policy: 'SCHED_X'", "SCHED_FIFO"),
        (replace(PROCESS, scheduler=Scheduler("SCHED_RR", flags=("X",))), "process.scheduler.flags: 'X'", "RECLAIM"),
        (replace(PROCESS, io_priority=IOPriority("X")), "process.ioPriority.class: 'X'", "IOPRIO_CLASS_BE"),
        (replace(PROCESS, rlimits=(Rlimit("RLIMIT_X", 1, 1),)), "unknown resource limit 'RLIMIT_X'", "RLIMIT_NOFILE"),
    ):
        with pytest.raises(UsageError) as caught:
            credential_steps(process, keep_groups=False)
        assert named in caught.value.message and known in caught.value.hint


def test_every_module_of_security_has_a_file_of_its_own() -> None:
    """Documentation/security/lsm.rst: a label in another module's file is refused, or worse, taken for a profile."""
    apparmor, selinux = replace(PROCESS, apparmor_profile="p"), replace(PROCESS, selinux_label="l")
    assert label_steps(PROCESS) == ()
    assert label_steps(apparmor) == (s.Write("/proc/self/attr/apparmor/exec", ("exec p",)),)
    assert label_steps(selinux) == (s.Write("/proc/self/attr/exec", ("l",)),)
    assert label_steps(replace(apparmor, selinux_label="l")) == (*label_steps(apparmor), *label_steps(selinux))


def test_why_a_label_is_refused() -> None:
    apparmor, selinux = replace(PROCESS, apparmor_profile="p"), replace(PROCESS, selinux_label="l")
    missing = label_refused(apparmor, ENOENT)
    assert missing.message == "process.apparmorProfile: 'p': the kernel has no profile of this name"
    assert "apparmor_parser" in missing.hint
    assert label_refused(apparmor, EINVAL).message == "process.apparmorProfile: 'p': Invalid argument"
    assert label_refused(selinux, EINVAL).message == "process.selinuxLabel: 'l': Invalid argument"
