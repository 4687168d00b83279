"""Each measured copy has its own of what its services share, with the bytes that it has when it is up."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images.model import Image
from runtime.spec import Resources
from testbed.compose.model import Application, Mount, Service
from testbed.scenario.model import Scenario
from testbed.services.copies import Copies, mount_copies
from testbed.services.specs import mount_nothing
from tests.testbed.measures.test_tenants import SETTINGS
from tests.testbed.services.test_filling import image

__all__ = ["image"]
pytestmark = pytest.mark.root


def share(site: Path) -> Scenario:
    mounts = (Mount("volume", "/data", "data"), Mount("bind", "/site", str(site)), Mount("tmpfs", "/memory"))
    own = Mount("bind", "/own", str(site / "deep"))
    services = (
        Service("web", Resources(), mounts=(*mounts, own)),
        Service("php", Resources(), mounts=tuple(replace(one, read_only=True) for one in mounts)),
    )
    return Scenario("app", site, services, SETTINGS, SETTINGS, Application(services))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "deep").mkdir(parents=True)
    (site / "page").write_text("the host's")
    os.chown(site / "page", 7, 8)
    return site


def test_copies_share_nothing_with_each_other_or_the_host(tmp_path: Path, image: Image, site: Path) -> None:
    shared = share(site)
    copies = Copies(tmp_path / "copies", shared, {"web": image, "php": image})
    with copies.give("one") as one, copies.give("two") as two:
        assert [mount.destination for mount in one["web"]] == ["/data", "/site", "/memory"], "/own is in its image"
        sources = {mount.destination: Path(mount.source) for mount in one["web"]}
        assert {mount.destination: Path(mount.source) for mount in one["php"]} == sources
        assert (sources["/data"] / "seed").read_text() == "the image's"
        page = sources["/site"] / "page"
        assert page.read_text() == "the host's" and (page.stat().st_uid, page.stat().st_gid) == (7, 8)
        assert "ro" in one["php"][0].options and "rw" in one["web"][0].options
        page.write_text("changed")
        other = next(Path(mount.source) for mount in two["web"] if mount.destination == "/site")
        assert (other / "page").read_text() == (site / "page").read_text() == "the host's"
    assert not [*(tmp_path / "copies").iterdir()]


def test_what_no_copy_can_have_is_named(tmp_path: Path, image: Image, site: Path) -> None:
    os.mkfifo(site / "pipe")
    copies = Copies(tmp_path / "copies", share(site), {"web": image, "php": image})
    with pytest.raises(UsageError, match=r"web: .*/pipe is a socket, pipe or device"), copies.give("one"):
        pass
    assert not [*(tmp_path / "copies").iterdir()]


def test_a_run_whose_services_share_nothing_mounts_nothing(home: Path, site: Path) -> None:
    alone = replace(share(site), services=share(site).services[:1])
    with ExitStack() as undo:
        assert mount_copies(undo, "r", alone, {}) is mount_nothing
        assert not (home / "volumes").exists()
