"""Rights and limits of services' processes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from runtime.config.default import DEFAULT_CAPABILITIES
from runtime.errors import UsageError
from runtime.images.model import Healthcheck as ImageHealthcheck
from runtime.images.model import Image, ImageConfig
from runtime.plan.constants import ALL_CAPABILITIES, CAPABILITIES
from runtime.spec import DEFAULT_RLIMITS, Resources, Rlimit
from testbed.compose.model import Healthcheck, Service, Ulimit
from testbed.services.processes import INIT_TARGET, choose_capabilities, complete, make_process, merge_limits

SERVICE = Service("web", Resources())
IMAGE = Image("web", "0" * 64, ImageConfig(cmd=("serve",), user="7", working_dir="/srv"), ())


def choose(held: int = ALL_CAPABILITIES, **changes: object) -> tuple[str, ...]:
    return choose_capabilities(replace(SERVICE, **changes), DEFAULT_CAPABILITIES, held)


def test_capabilities_are_added_and_dropped() -> None:
    assert choose() == tuple(DEFAULT_CAPABILITIES)
    assert choose(cap_add=("NET_ADMIN",)) == (*DEFAULT_CAPABILITIES, "CAP_NET_ADMIN")
    assert choose(cap_drop=("ALL",), cap_add=("cap_chown",)) == ("CAP_CHOWN",)
    assert "CAP_KILL" not in choose(cap_drop=("KILL",))
    assert set(choose(cap_add=("ALL",), cap_drop=("SYS_ADMIN",))) == {*CAPABILITIES} - {"CAP_SYS_ADMIN"}
    assert choose(privileged=True) == tuple(CAPABILITIES)
    few = 1 << CAPABILITIES.index("CAP_CHOWN") | 1 << CAPABILITIES.index("CAP_KILL")
    assert choose(few, privileged=True) == choose(few, cap_add=("ALL",)) == ("CAP_CHOWN", "CAP_KILL")
    with pytest.raises(UsageError, match="web: unknown capability 'FLY'"):
        choose(cap_add=("FLY",))


def test_limits_replace_the_usual_ones() -> None:
    limits = merge_limits(DEFAULT_RLIMITS, (Ulimit("nofile", 100, 200), Ulimit("memlock", -1, -1)))
    assert limits == (Rlimit("RLIMIT_NOFILE", 100, 200), Rlimit("RLIMIT_MEMLOCK", 2**64 - 1, 2**64 - 1))


def test_the_file_comes_before_the_image() -> None:
    process = make_process(SERVICE, IMAGE)
    assert (process.user.uid, process.cwd, process.no_new_privileges) == (7, "/srv", True)
    changed = replace(SERVICE, user="8:9", working_dir="/w", command=("other",), no_new_privileges=False)
    process = make_process(changed, IMAGE)
    assert (process.user.uid, process.user.gid, process.cwd, process.args) == (8, 9, "/w", ("other",))
    assert not process.no_new_privileges
    assert make_process(replace(SERVICE, init=True), IMAGE).args == (INIT_TARGET, "--", "serve")


def test_an_image_has_a_check_and_a_signal_of_its_own() -> None:
    own = ImageHealthcheck(("CMD-SHELL", "test -e /ok"), interval_ns=2 * 10**9, retries=7)
    image = replace(IMAGE, config=replace(IMAGE.config, healthcheck=own, stop_signal="SIGQUIT"))
    made = complete(SERVICE, image)
    assert made.stop_signal == "SIGQUIT" and complete(replace(made, stop_signal="USR1"), image).stop_signal == "USR1"
    assert made.healthcheck == Healthcheck(("/bin/sh", "-c", "test -e /ok"), interval_s=2, retries=7)
    times = Healthcheck(interval_s=9)
    assert complete(replace(SERVICE, healthcheck=times), image).healthcheck == replace(
        times, test=("/bin/sh", "-c", "test -e /ok")
    )
    for mine in (Healthcheck(disabled=True), Healthcheck(("mine",))):
        assert complete(replace(SERVICE, healthcheck=mine), image).healthcheck == mine
    none = replace(image, config=replace(image.config, healthcheck=ImageHealthcheck(("NONE",))))
    made = complete(SERVICE, none)
    assert made.healthcheck is not None and made.healthcheck.disabled
    assert complete(SERVICE, IMAGE) == SERVICE
