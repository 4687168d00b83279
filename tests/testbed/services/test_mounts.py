"""What is mounted in services, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.config.types import Mount as OciMount
from runtime.errors import PrerequisiteError, UsageError
from runtime.spec import Resources
from testbed.compose.model import Application, Content, FileMount, Mount, Service, Volume
from testbed.services import mounts
from testbed.services.mounts import (
    Places,
    describe_shared,
    find_shared,
    list_mounts,
    list_tmpfs,
    list_unapplied,
    require_init,
    require_no_shared,
    split_shared,
)
from testbed.services.processes import INIT, INIT_TARGET

PLACES = Places(Path("/v"), Path("/f"))
SERVICE = Service(
    "web",
    Resources(),
    mounts=(
        Mount("tmpfs", "/srv/a/b", size_bytes=1024, mode=0o700),
        Mount("bind", "/srv/a", "/host/dir", read_only=True),
        Mount("volume", "/data", "data", subpath="part"),
        Mount("volume", "/anonymous", owner="web"),
        Mount("volume", "/bound", "bound"),
    ),
    secrets=(FileMount("key", "/run/secrets/key"),),
    configs=(FileMount("conf", "/etc/conf"),),
)
APPLICATION = Application(
    (SERVICE,),
    volumes=(Volume("data"), Volume("bound", Path("/host/other"))),
    secrets=(Content("key", text="k"),),
    configs=(Content("conf", text="c"),),
)


def test_a_directory_comes_before_what_is_mounted_in_it() -> None:
    made = list_mounts(SERVICE, APPLICATION, PLACES, {SERVICE.mounts[2]: Path("/proc/7/fd/9")})
    assert [mount.destination for mount in made] == [
        *("/data", "/anonymous", "/bound", "/srv/a", "/etc/conf", "/srv/a/b", "/run/secrets/key"),
    ]
    by_target = {mount.destination: mount for mount in made}
    assert by_target["/srv/a"] == OciMount("/srv/a", "bind", "/host/dir", ("rbind", "rprivate", "ro"))
    assert by_target["/data"].source == "/proc/7/fd/9" and "rw" in by_target["/data"].options
    assert by_target["/anonymous"].source == "/v/web@anonymous" and by_target["/bound"].source == "/host/other"
    assert by_target["/run/secrets/key"] == OciMount("/run/secrets/key", "bind", "/f/web/0", ("rbind", "ro"))


def test_what_every_platform_mounts() -> None:
    (mount,) = list_tmpfs(SERVICE)
    assert mount == OciMount("/srv/a/b", "tmpfs", "tmpfs", ("nosuid", "nodev", "noexec", "mode=700", "size=1024"))


OTHER = Service(
    "php",
    Resources(),
    mounts=(
        Mount("volume", "/x", "data", read_only=True),
        Mount("bind", "/y", "/host/dir", read_only=True),
        Mount("volume", "/anonymous", owner="php"),
        Mount("tmpfs", "/memory"),
    ),
)


def test_what_is_shared_is_what_several_mount_and_one_may_write_to() -> None:
    assert find_shared((SERVICE, OTHER)) == {"volume data": ("web", "php")}
    lent = replace(OTHER, mounts=(replace(SERVICE.mounts[3], read_only=True), Mount("bind", "/y", "/host/dir")))
    assert find_shared((SERVICE, lent)) == {"/host/dir": ("web", "php"), "volume web@anonymous": ("web", "php")}
    assert describe_shared((SERVICE, OTHER)) == "volume data (web, php)" and not describe_shared((SERVICE,))
    require_no_shared((SERVICE,), "vm", "")
    with pytest.raises(UsageError, match="volume data is shared by web and php, which vm cannot have: too old"):
        require_no_shared((SERVICE, OTHER), "vm", "too old")


def test_what_is_shared_is_apart_from_what_is_a_services_own() -> None:
    alone, common = split_shared(OTHER, (SERVICE, OTHER))
    assert [one.target for one in alone.mounts] == ["/y", "/anonymous", "/memory"]
    assert [one.target for one in common.mounts] == ["/x", "/memory"]
    alone, common = split_shared(SERVICE, (SERVICE, OTHER))
    assert (alone.secrets, alone.configs) == (SERVICE.secrets, SERVICE.configs) and "/data" not in {
        one.target for one in alone.mounts
    }
    assert common.secrets == common.configs == ()


def test_copies_of_what_is_bound_are_elsewhere() -> None:
    places = replace(PLACES, copies=Path("/c"))
    assert [str(places.source(APPLICATION, one)) for one in SERVICE.mounts[1:]] == [
        *("/c/%2Fhost%2Fdir", "/v/data", "/v/web@anonymous", "/c/%2Fhost%2Fother"),
    ]


def test_what_is_not_applied_is_told() -> None:
    service = replace(SERVICE, pid="host", network_mode="none", tty=True)
    assert list_unapplied((SERVICE, service)) == ("web: not applied: tty",)


def test_an_init_is_mounted_and_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service("web", Resources(), init=True)
    (mount,) = list_mounts(service, Application((service,)), PLACES)
    assert (mount.destination, mount.source) == (INIT_TARGET, INIT)
    require_init((SERVICE, service))
    monkeypatch.setattr(mounts, "INIT", "/nowhere")
    with pytest.raises(PrerequisiteError, match="web: init: there is no /nowhere"):
        require_init((SERVICE, service))
