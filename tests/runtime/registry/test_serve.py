from __future__ import annotations

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runtime.errors import PrerequisiteError
from runtime.images.descriptors import MANIFEST, Descriptor
from runtime.images.model import Image, ImageConfig
from runtime.images.rootfs import lookup
from runtime.images.store import Store
from runtime.registry.pull import pull
from runtime.registry.serve import served_names, serving
from tests.runtime.images.images import tar_of
from tests.runtime.registry.conftest import Open, client_of
from tests.runtime.registry.images import push_image

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def image(store: Store) -> Image:
    """An image that was made here, in the store."""
    with store.building(print), store.scratch() as scratch:
        tree = scratch / "root"
        tree.mkdir()
        (tree / "file").write_text("served" * 1000)
        return store.tag("team/app", ImageConfig(cmd=("/x",)), [store.add_layer(tree, "test")])


@pytest.fixture
def host(store: Store, image: Image) -> Iterator[str]:
    with serving(store) as address:
        yield address


def ask(host: str, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def test_another_store_pulls_from_it(host: str, image: Image, tmp_path: Path, registry: str, store: Store) -> None:
    with client_of(tmp_path) as client:
        back = pull(Store(tmp_path / "other"), client, f"{host}/team/app", print)
    assert back.id == image.id and back.config == image.config
    found = lookup("file", back.layers)
    assert found is not None and found.read_text() == "served" * 1000


def test_what_came_from_a_registry_is_served_as_it_came(
    store: Store, registry: str, open_repository: Open, tmp_path: Path
) -> None:
    pushed = push_image(open_repository(registry, "team/other"), tmp_path, "1", [tar_of({"a": b"x"})])
    with client_of(tmp_path) as client, serving(store) as host:
        pull(store, client, f"{registry}/team/other:1", print)
        received = open_repository(host, "team/other").manifest("1")
        assert received.descriptor.digest == pushed.digest
        pull(Store(tmp_path / "other"), client, f"{host}/team/other@{pushed.digest}", print)
        assert open_repository(host, "team/other").tags() == ("1",)
        assert open_repository(host, "team/other").referrers(pushed.digest) == ()


@pytest.mark.parametrize("program", ["skopeo", "podman"])
def test_others_pull_from_it(host: str, image: Image, tmp_path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt-get install {program}")
    source = f"docker://{host}/team/app:latest"
    if program == "skopeo":
        command = ["skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", source, f"dir:{tmp_path}/dir"]
        subprocess.run(command, check=True)
        assert json.loads((tmp_path / "dir/manifest.json").read_text())["config"]["digest"] == image.id
        return
    with TemporaryDirectory(prefix="podman-") as folder:  # its sockets want short names
        root = ["podman", "--storage-driver=vfs", f"--root={folder}/root", f"--runroot={folder}/run"]
        subprocess.run([*root, "pull", "-q", "--tls-verify=false", source], check=True, capture_output=True)
        done = subprocess.run([*root, "images", "--no-trunc", "-q"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == image.id


def test_parts_of_blobs(host: str, image: Image) -> None:
    blobs = f"/v2/team/app/blobs/{image.layers[0].diff_id}"
    status, headers, whole = ask(host, blobs)
    assert status == 200 and int(headers["Content-Length"]) == len(whole)
    for blob in (blobs, f"/v2/team/app/blobs/{image.id}"):
        whole = ask(host, blob)[2]
        for first, last in ((0, 9), (5, ""), (len(whole) - 1, 99_999_999)):
            status, headers, part = ask(host, blob, Range=f"bytes={first}-{last}")
            end = min(int(last or len(whole)), len(whole) - 1)
            assert (status, part) == (206, whole[int(first) : end + 1])
            assert headers["Content-Range"] == f"bytes {first}-{end}/{len(whole)}"
        assert ask(host, blob, Range=f"bytes={len(whole)}-")[0] == 416
        status, headers, body = ask(host, blob, "HEAD")
        assert (status, headers["Content-Length"], body) == (200, str(len(whole)), b"")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/team/app/manifests/none", "MANIFEST_UNKNOWN"),
        ("/v2/team/none/manifests/latest", "NAME_UNKNOWN"),
        ("/v2/team/app/blobs/sha256:" + "0" * 64, "BLOB_UNKNOWN"),
        ("/v2/team/app/blobs/..", "BLOB_UNKNOWN"),
        ("/v2/team/app/blobs/sha256:..%2f..%2findex.json", "NAME_UNKNOWN"),
        ("/v2/../../etc/passwd", "NAME_UNKNOWN"),
        ("/", "NAME_UNKNOWN"),
    ],
)
def test_what_is_not_there_is_said(host: str, path: str, code: str) -> None:
    status, _, body = ask(host, path)
    assert status == 404 and json.loads(body)["errors"][0]["code"] == code


def test_nothing_is_written_and_no_page_of_another_name_reads(host: str) -> None:
    assert ask(host, "/v2/team/app/blobs/uploads/", "POST")[0] == 501
    assert ask(host, "/v2/", Host="evil.example")[0] == 403
    assert ask(host, "/v2/", Host=f"localhost:{host.rpartition(':')[2]}")[0] == 200


def test_a_port_that_is_taken_is_said(store: Store, host: str) -> None:
    for port in (int(host.rpartition(":")[2]), 99999):
        with pytest.raises(PrerequisiteError, match="serve images at"), serving(store, port):
            pass


def test_names_are_served_with_and_without_their_host() -> None:
    one, two = (Descriptor(MANIFEST, "sha256:" + digit * 64, 1) for digit in "12")
    names = {"a.example/x:1": one, "x:1": two, "127.0.0.1:5000/y": one, "not a name": one}
    assert served_names(names) == {"a.example/x": {"1": one}, "x": {"1": two}, "y": {"latest": one}}
