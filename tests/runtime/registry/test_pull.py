from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.errors import TestbedError, UsageError
from runtime.images.descriptors import DOCKER_INDEX, INDEX, digest_of
from runtime.images.model import Image
from runtime.images.oci import architecture
from runtime.images.rootfs import lookup
from runtime.images.store import Store
from runtime.images.unpack import Limits
from runtime.images.verification import verify_store
from runtime.registry.errors import NotThereError, RegistryError
from runtime.registry.pull import pull
from runtime.registry.repository import Repository
from runtime.registry.resolving import registry_resolver
from tests.runtime.images.images import tar_of
from tests.runtime.registry.conftest import Open, client_of
from tests.runtime.registry.images import members, push_blob, push_image
from tests.runtime.registry.servers import Exchange, Faulty, faulty

pytestmark = pytest.mark.root
ROOT = Path(__file__).resolve().parents[3]

NOISE = random.Random(1).randbytes(2_000_000)
LAYERS = [tar_of({"a": b"one", "large": NOISE}), tar_of({"b": b"two"}), tar_of({".wh.a": b"", "c": b"three"})]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def source(registry: str, open_repository: Open) -> Repository:
    return open_repository(registry, "team/app")


@pytest.fixture
def before(registry: str) -> Iterator[Faulty]:
    with faulty(registry) as server:
        yield server


def test_an_image_is_pulled_and_kept(store: Store, source: Repository, before: Faulty, tmp_path: Path) -> None:
    push_image(source, tmp_path, "1", LAYERS)
    lines: list[str] = []
    with client_of(tmp_path) as client:
        image = pull(store, client, f"{before.host}/team/app:1", lines.append)
        assert image.reference == f"{before.host}/team/app:1" and image.config.cmd == ("/x",)
        found = {name: lookup(name, image.layers) for name in ("a", "b", "c", "large")}
        assert found["a"] is None
        assert found["b"] is not None and found["b"].read_bytes() == b"two"
        assert found["large"] is not None and found["large"].read_bytes() == NOISE
        assert store.verify(image) == () and store.leftovers() == ()
        before.requests.clear()
        assert pull(store, client, f"{before.host}/team/app:1", lines.append) == image
    assert [path for path in before.asked("GET") if "/blobs/" in path] == []
    assert any("2000" in line for line in lines)


def test_a_short_name_is_one_of_the_configured_registry(
    store: Store, registry: str, open_repository: Open, tmp_path: Path
) -> None:
    push_image(open_repository(registry, "all/library/app"), tmp_path, "latest", LAYERS[1:2])
    with client_of(tmp_path, TESTBED_REGISTRY=f"http://{registry}/all") as client:
        image = pull(store, client, "app", print)
        assert image.reference == f"{registry}/all/library/app:latest"
        assert store.get("app").id == image.id
        with pytest.raises(NotThereError, match=r"none: .*all/none:latest: .*; .*all/library/none:latest"):
            pull(store, client, "none", print)
    with client_of(tmp_path) as client, pytest.raises(UsageError, match="which registry has"):
        pull(store, client, "app", print)


def test_what_a_list_has_for_a_platform_is_chosen(store: Store, source: Repository, tmp_path: Path) -> None:
    machine = architecture()
    listed = []
    for number, (one, variant) in enumerate([("s390x", ""), (machine, ""), ("arm", "v7")]):
        descriptor = push_image(source, tmp_path, f"part{number}", [tar_of({one: b""})], machine=one)
        platform = {"os": "linux", "architecture": one, **({"variant": variant} if variant else {})}
        listed.append(members(descriptor, platform=platform))
    for tag, kind in (("list", INDEX), ("dockers", DOCKER_INDEX)):
        content = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": listed}).encode()
        source.put_manifest(content, kind, tag)
    name = f"{source}:list"
    with client_of(tmp_path) as client:
        image = pull(store, client, name, print)
        assert lookup(machine, image.layers) is not None
        assert lookup(machine, pull(store, client, f"{source}:dockers", print).layers) is not None
        other = pull(store, client, name, print, "linux/arm/v7")
        assert lookup("arm", other.layers) is not None
        with pytest.raises(UsageError, match=r"there are: .*linux/s390x"):
            pull(store, client, name, print, "linux/mips")


def test_an_image_for_another_machine_is_refused(store: Store, source: Repository, tmp_path: Path) -> None:
    push_image(source, tmp_path, "foreign", LAYERS[1:2], machine="s390x")
    with client_of(tmp_path) as client:
        with pytest.raises(UsageError, match=f"it is for linux/s390x, and linux/{architecture()} is wanted"):
            pull(store, client, f"{source}:foreign", print)
        assert store.references() == ()
        pull(store, client, f"{source}:foreign", print, "linux/s390x")


def test_a_resolver_asks_registries_for_what_is_not_here(
    store: Store, source: Repository, before: Faulty, tmp_path: Path
) -> None:
    push_image(source, tmp_path, "resolved", LAYERS)
    environment = {"CONTAINERS_REGISTRIES_CONF": "/none", "REGISTRY_AUTH_FILE": "/none"}
    with pytest.raises(UsageError, match="no image 'team/app:resolved'") as caught:
        registry_resolver(lambda name, _: store.get(name), store, print, environment)("team/app:resolved", "")
    assert "known images: none; or name it as HOST/team/app:resolved" in caught.value.hint
    environment["TESTBED_REGISTRY"] = f"http://{before.host}"
    resolve = registry_resolver(lambda name, _: store.get(name), store, print, environment)
    image = resolve("team/app:resolved", "")
    asked = len(before.requests)
    assert image is not None and lookup("c", image.layers) is not None and asked > 0
    again = resolve("team/app:resolved", "")
    assert again is not None and again.id == image.id and len(before.requests) == asked
    with pytest.raises(NotThereError, match="none"):
        resolve("team/none", "")


def test_an_image_for_another_machine_takes_nobodys_name(
    store: Store, registry: str, source: Repository, tmp_path: Path
) -> None:
    foreign = push_image(source, tmp_path, "both", LAYERS[1:2], machine="s390x")
    own = push_image(source, tmp_path, "both", LAYERS[2:])
    listed = [
        members(one, platform={"os": "linux", "architecture": machine})
        for one, machine in ((foreign, "s390x"), (own, architecture()))
    ]
    content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode()
    source.put_manifest(content, INDEX, "both")
    environment = {"CONTAINERS_REGISTRIES_CONF": "/none", "REGISTRY_AUTH_FILE": "/none"}
    environment["TESTBED_REGISTRY"] = f"http://{registry}"

    def local(name: str, platform: str) -> Image:
        if platform:
            raise UsageError("this host builds for itself")
        return store.get(name)

    resolve = registry_resolver(local, store, print, environment)
    first = resolve("team/app:both", "linux/s390x")
    assert first is not None and store.references() == (f"{registry}/team/app@{foreign.digest}",)
    second = resolve("team/app:both", "")
    assert second is not None and second.id != first.id and store.get("team/app:both").id == second.id


def test_layers_are_fetched_side_by_side(store: Store, source: Repository, before: Faulty, tmp_path: Path) -> None:
    push_image(source, tmp_path, "side", LAYERS)
    both = threading.Barrier(len(LAYERS), timeout=30)
    config: list[str] = []

    def rule(exchange: Exchange) -> bool:
        if exchange.command == "GET" and "/blobs/" in exchange.path:
            if not config:
                config.append(exchange.path)
            else:
                both.wait()
        return False

    before.rule = rule
    with client_of(tmp_path) as client:
        image = pull(store, client, f"{before.host}/team/app:side", print)
    assert len(image.layers) == len(LAYERS)
    assert not both.broken, "each waited for all the others to be asked for"


def test_a_layer_that_occurs_twice_is_fetched_once(
    store: Store, source: Repository, before: Faulty, tmp_path: Path
) -> None:
    push_image(source, tmp_path, "twice", [LAYERS[1], LAYERS[2], LAYERS[1]])
    with client_of(tmp_path) as client:
        image = pull(store, client, f"{before.host}/team/app:twice", print)
    assert len(image.layers) == 3
    assert len([path for path in before.asked("GET") if "/blobs/" in path]) == 3


def test_what_a_mirror_lacks_the_next_gives(
    store: Store, registry: str, open_repository: Open, before: Faulty, tmp_path: Path
) -> None:
    """One mirror is not there, the next has the manifest, and fails within the blobs, for good."""
    push_image(open_repository(registry, "origin/app"), tmp_path, "1", LAYERS)

    def rule(exchange: Exchange) -> bool:
        if "/blobs/" not in exchange.path:
            return False
        status, headers, body = exchange.upstream()
        if exchange.headers.get("Range"):
            exchange.answer(404)
        else:
            exchange.begin(status, headers)
            exchange.wfile.write(body[: len(body) // 2])
            exchange.cut()
        return True

    before.rule = rule
    text = f"""
[[registry]]
prefix = "origin.example"
location = "{registry}/origin"
[[registry.mirror]]
location = "127.0.0.1:1"
[[registry.mirror]]
location = "{before.host}/origin"
"""
    with client_of(tmp_path, text) as client:
        image = pull(store, client, "origin.example/app:1", print)
        assert image.reference == "origin.example/app:1" and store.verify(image) == ()
        assert len([path for path in before.asked("GET") if "/blobs/" in path]) > len(LAYERS)
        with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1/.*refused; .*manifest unknown; .*manifest unknown"):
            pull(store, client, "origin.example/none:1", print)


FAULTS = ("other bytes", "not gzip", "cut gzip", "a bomb", "an escape", "a wrong diff_id", "too few layers", "no layer")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_image_leaves_nothing(store: Store, source: Repository, tmp_path: Path, fault: str) -> None:
    layers = [LAYERS[1]]
    diff_ids: list[str] = []
    if fault == "an escape":
        layers = [tar_of({"../../../escaped": b"x"})]
    elif fault == "a bomb":
        layers = [tar_of({"zeroes": bytes(30 << 20)})]
    elif fault == "a wrong diff_id":
        diff_ids = ["sha256:" + "0" * 64]
    elif fault == "too few layers":
        diff_ids = [digest_of(LAYERS[1])] * 2
    descriptor = push_image(source, tmp_path, "damaged", layers, diff_ids=diff_ids)
    manifest = json.loads(source.manifest(descriptor.digest).content)
    if fault in ("not gzip", "cut gzip"):
        content = b"nothing of that kind" * 100 if fault == "not gzip" else gzip.compress(LAYERS[1])[:-20]
        manifest["layers"] = [members(push_blob(source, tmp_path, content, manifest["layers"][0]["mediaType"]))]
    elif fault == "no layer":
        manifest["layers"][0]["size"] += 1
    source.put_manifest(json.dumps(manifest).encode(), manifest["mediaType"], "damaged")

    def rule(exchange: Exchange) -> bool:
        if fault != "other bytes" or manifest["layers"][0]["digest"] not in exchange.path:
            return False
        status, headers, body = exchange.upstream()
        exchange.answer(status, headers, bytes(len(body)))
        return True

    with (
        faulty(source.access.host, rule) as server,
        client_of(tmp_path) as client,
        pytest.raises(TestbedError) as caught,
    ):
        pull(store, client, f"{server.host}/team/app:damaged", print, limits=Limits(expanded_bytes=1 << 20))
    assert "\n" not in caught.value.message
    assert store.references() == () and store.leftovers() == ()
    assert not (tmp_path / "escaped").exists()
    assert [path for path in (store.root / "layers").iterdir()] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_pull_that_is_ended_leaves_a_sound_store(
    store: Store, source: Repository, before: Faulty, tmp_path: Path, number: signal.Signals
) -> None:
    push_image(source, tmp_path, "ended", LAYERS)
    asked = threading.Event()

    def rule(exchange: Exchange) -> bool:
        status, headers, body = exchange.upstream()
        if len(body) < 1_000_000:
            exchange.answer(status, headers, body)
            return True
        exchange.begin(status, headers)
        exchange.wfile.write(body[:1_000_000])
        asked.set()
        exchange.rfile.read(1)
        return True

    before.rule = rule
    script = f"""
import pathlib, runtime.images.store as stores, runtime.registry.client as clients, runtime.registry.pull as pulls
client = clients.Client({{"CONTAINERS_REGISTRIES_CONF": "/none", "REGISTRY_AUTH_FILE": "/none"}}, plain_http=True)
pulls.pull(stores.Store(pathlib.Path({str(store.root)!r})), client, "{before.host}/team/app:ended", print)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        assert asked.wait(60)
        process.send_signal(number)
        process.wait(20)
    assert number == signal.SIGKILL or store.leftovers() == ()
    with store.writing(print):
        assert store.leftovers() == () and store.references() == ()
    assert verify_store(store, (), print) == []
    before.rule = lambda exchange: False
    with client_of(tmp_path) as client:
        assert store.verify(pull(store, client, f"{before.host}/team/app:ended", print)) == ()
