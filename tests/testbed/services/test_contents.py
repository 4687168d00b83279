"""What files mount, as a layer above an image's."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images.model import Image, ImageConfig
from runtime.images.store import Store
from runtime.spec import Resources
from runtime.unionfs.lookup import is_opaque
from testbed.compose.model import Application, Content, FileMount, Mount, Service, Volume
from testbed.services import contents
from testbed.services.contents import add_contents, has_contents

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "images")


@pytest.fixture
def image(store: Store) -> Image:
    """An image with /etc (mode 0750, of user 3), /var/run -> /run, and a page."""
    with store.building(print), store.scratch() as scratch:
        tree = scratch / "tree"
        for name in ("etc", "run", "var", "www"):
            (tree / name).mkdir(parents=True)
        (tree / "etc").chmod(0o750)
        os.chown(tree / "etc", 3, 4)
        (tree / "var" / "run").symlink_to("/run")
        (tree / "www" / "index.html").write_text("the image's")
        (tree / "www" / "other.html").write_text("hidden")
        return store.tag("app/web", ImageConfig(cmd=("serve",)), [store.add_layer(tree, "tree")])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "deep").mkdir(parents=True)
    (site / "index.html").write_text("the host's")
    (site / "link").symlink_to("deep")
    os.chown(site / "index.html", 7, 8)
    (site / "index.html").chmod(0o640)
    os.utime(site / "index.html", (1e9, 1e9))
    return site


def layer_of(store: Store, image: Image, service: Service, application: Application | None = None) -> Path:
    made = add_contents(store, "app/web:files", image, service, application or Application((service,)), print)
    assert made.layers[:-1] == image.layers and made.reference == "app/web:files"
    assert store.verify(made) == ()
    return made.layers[-1].path


def test_what_is_bound_hides_what_the_image_has(store: Store, image: Image, site: Path) -> None:
    service = Service("web", Resources(), mounts=(Mount("bind", "/www", str(site)),))
    tree = layer_of(store, image, service)
    assert is_opaque(tree / "www") and (tree / "www" / "index.html").read_text() == "the host's"
    status = (tree / "www" / "index.html").lstat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), status.st_mtime) == (7, 8, 0o640, 1e9)
    assert (tree / "www" / "link").is_symlink() and not (tree / "www" / "other.html").exists()


def test_the_same_files_make_the_same_layer(store: Store, image: Image, site: Path) -> None:
    service = Service("web", Resources(), mounts=(Mount("bind", "/www", str(site)),))
    assert layer_of(store, image, service) == layer_of(store, image, service)
    (site / "index.html").write_text("changed")
    os.utime(site / "index.html", (1e9, 1e9))
    assert (layer_of(store, image, service) / "www" / "index.html").read_text() == "changed"


def test_secrets_and_volumes_are_where_their_targets_lead(store: Store, image: Image, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    service = Service(
        "web",
        Resources(),
        mounts=(Mount("volume", "/data/here", "data"), Mount("bind", "/made", str(tmp_path / "missing"))),
        secrets=(FileMount("key", "/var/run/secrets/key", uid="5", mode=0o400),),
        configs=(FileMount("conf", "/etc/app.conf"),),
    )
    application = Application(
        (service,),
        volumes=(Volume("data"),),
        secrets=(Content("key", tmp_path / "key"),),
        configs=(Content("conf", text="a=1"),),
    )
    tree = layer_of(store, image, service, application)
    key = tree / "run" / "secrets" / "key"
    assert key.read_text() == "k" and (key.lstat().st_uid, stat.S_IMODE(key.lstat().st_mode)) == (5, 0o400)
    assert (tree / "data" / "here").is_dir() and (tree / "made").is_dir()
    assert (tree / "etc" / "app.conf").read_text() == "a=1"
    etc = (tree / "etc").lstat()
    assert (etc.st_uid, etc.st_gid, stat.S_IMODE(etc.st_mode)) == (3, 4, 0o750), "as the image has it"
    assert not (tmp_path / "missing").exists(), "nothing of the host is changed"


def test_what_is_in_memory_is_no_content() -> None:
    service = Service("web", Resources(), mounts=(Mount("tmpfs", "/t"),))
    assert not has_contents(service)
    assert has_contents(replace(service, init=True))
    assert has_contents(replace(service, secrets=(FileMount("key", "/key"),)))
    assert has_contents(replace(service, mounts=(Mount("volume", "/v"),)))


def test_what_cannot_be_copied_is_named(
    store: Store, image: Image, tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service("web", Resources(), mounts=(Mount("bind", "/x", str(tmp_path / "none"), create=False),))
    with pytest.raises(UsageError, match=r"web: copy .*/none for /x: .*No such file"):
        layer_of(store, image, service)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(site / "docker.sock"))
        bound = replace(service, mounts=(Mount("bind", "/x", str(site)),))
        with pytest.raises(UsageError, match=r"docker\.sock is a socket, pipe or device"):
            layer_of(store, image, bound)
    (site / "docker.sock").unlink()
    monkeypatch.setattr(contents, "MOST_FILES", 3)
    with pytest.raises(UsageError, match="more than 3 files"):
        layer_of(store, image, bound)
    assert store.leftovers() == ()
