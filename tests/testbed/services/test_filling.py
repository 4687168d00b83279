"""What is mounted is made, filled and held, and no link that a service left leads out of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images.model import Image, ImageConfig
from runtime.images.store import Store
from runtime.spec import Resources
from testbed.compose.model import Application, Mount, Service
from testbed.services.filling import prepare_places
from testbed.services.mounts import Places

pytestmark = pytest.mark.root


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """An image with /data, of user 3 and mode 0750, with a file and a link in it."""
    store = Store(tmp_path / "images")
    with store.building(print), store.scratch() as scratch:
        data = scratch / "tree" / "data"
        data.mkdir(parents=True)
        (data / "seed").write_text("the image's")
        (data / "link").symlink_to("seed")
        os.chown(data, 3, 4)
        data.chmod(0o750)
        return store.tag("app/web", ImageConfig(cmd=("serve",)), [store.add_layer(scratch / "tree", "tree")])


def prepare(folder: Path, image: Image, *services: Service) -> dict[str, str]:
    """Return where what the first service mounts comes from, resolved, by target."""
    places = Places(folder / "volumes", folder / "files")
    images = {service.name: image for service in services}
    with prepare_places(places, services, Application(services), images) as mounts:
        return {mount.destination: os.path.realpath(mount.source) for mount in mounts[services[0].name]}


def web(*mounts: Mount) -> Service:
    return Service("web", Resources(), mounts=mounts)


def test_a_new_volume_has_what_the_image_has_there(tmp_path: Path, image: Image) -> None:
    prepare(tmp_path, image, web(Mount("volume", "/data", "data"), Mount("volume", "/data", "bare", copy=False)))
    volumes = tmp_path / "volumes"
    assert (volumes / "data" / "seed").read_text() == "the image's" and not [*(volumes / "bare").iterdir()]
    status = (volumes / "data").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (3, 4, 0o750)
    assert stat.S_IMODE(volumes.stat().st_mode) == 0o700, "what services write is for no other user of the host"
    (volumes / "data" / "seed").write_text("changed")
    prepare(tmp_path, image, web(Mount("volume", "/data", "data")))
    assert (volumes / "data" / "seed").read_text() == "changed"


def test_a_part_of_a_volume_is_in_the_volume(tmp_path: Path, image: Image) -> None:
    part = Mount("volume", "/part", "data", subpath="a/b")
    made = prepare(tmp_path, image, web(part))
    assert made == {"/part": str(tmp_path / "volumes" / "data" / "a" / "b")}
    for name in ("a/b", "a"):
        (tmp_path / "volumes" / "data" / name).rmdir()
    (tmp_path / "volumes" / "data" / "a").symlink_to("/etc")
    with pytest.raises(UsageError, match=r"web: .*/data/a/b, mounted at /part: a is a link, which may lead anywhere"):
        prepare(tmp_path, image, web(part))
    assert not Path("/etc/b").exists()


def test_a_part_stays_what_it_is_when_its_name_becomes_a_link(tmp_path: Path, image: Image) -> None:
    service, places = web(Mount("volume", "/part", "data", subpath="a")), Places(tmp_path / "v", tmp_path / "f")
    with prepare_places(places, (service,), Application((service,)), {"web": image}) as mounts:
        whole = tmp_path / "v" / "data"
        (whole / "a").rename(whole / "was")
        (whole / "a").symlink_to("/etc")
        assert os.path.realpath(mounts["web"][0].source) == str(whole / "was")
        held = mounts["web"][0].source
    assert not Path(held).exists()


def test_what_is_bound_below_what_a_service_writes_to_is_no_link(tmp_path: Path, image: Image) -> None:
    inner = web(Mount("bind", "/conf", str(tmp_path / "shared" / "conf")))
    outer = Service("php", Resources(), mounts=(Mount("bind", "/shared", str(tmp_path / "shared")),))
    assert prepare(tmp_path, image, inner, outer) == {"/conf": str(tmp_path / "shared" / "conf")}
    (tmp_path / "shared" / "conf").rmdir()
    (tmp_path / "shared" / "conf").symlink_to("/etc")
    with pytest.raises(UsageError, match="conf is a link, which may lead anywhere"):
        prepare(tmp_path, image, inner, outer)
    read_only = replace(outer, mounts=(replace(outer.mounts[0], read_only=True),))
    assert prepare(tmp_path, image, inner, read_only) == {"/conf": os.path.realpath("/etc")}


def test_what_cannot_be_mounted_is_named(tmp_path: Path, image: Image) -> None:
    with pytest.raises(UsageError, match="is not there"):
        prepare(tmp_path, image, web(Mount("bind", "/x", str(tmp_path / "gone"), create=False)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, and /data, where it is mounted, a directory of the image"):
        prepare(tmp_path, image, web(Mount("bind", "/data", str(tmp_path / "file"))))
