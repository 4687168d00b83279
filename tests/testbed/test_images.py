"""The images of a scenario's services: on which base they are built, under which name, and how that is found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.home import SEAL
from runtime.images.model import Image, ImageConfig, Layer
from runtime.images.releases import Host
from runtime.images.store import Store
from testbed import images
from testbed.neighbours.image import REFERENCE as NEIGHBOUR_IMAGE
from testbed.scenario.model import load

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"


@pytest.mark.parametrize(
    ("base", "reference"),
    [
        ("", "clickme/web"),
        ("bookworm", "clickme/web"),
        ("trixie", "clickme/web:trixie"),
        ("noble", "clickme/web:noble"),
    ],
)
def test_an_image_on_another_base_than_the_hosts_has_it_in_its_name(
    monkeypatch: pytest.MonkeyPatch, base: str, reference: str
) -> None:
    built: list[tuple[str, str]] = []

    def build(_store: Store, *, reference: str, base: str, **_rest: object) -> Image:
        built.append((reference, base))
        return Image(reference, "sha256:0", ImageConfig(), ())

    monkeypatch.setattr(images, "build", build)
    monkeypatch.setattr(images, "read_host", lambda: Host("debian", "bookworm"))
    found = images.build_images(load("clickme", SCENARIOS), print, base)
    assert found["web"].reference == reference
    assert (reference, base) in built


def test_the_base_of_an_image_is_found_by_its_layer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path))
    store = Store(tmp_path / "images")
    with store.building(print), store.scratch() as scratch:
        layers = []
        for name in ("base", "above"):
            tree = scratch / name
            tree.mkdir()
            (tree / name).write_text(name)
            layers.append(store.add_layer(tree, name))
        base = store.tag("testbed/base:trixie", ImageConfig(), layers[:1])
        image = store.tag("s/web:trixie", ImageConfig(), layers)
    assert images.find_base(image) == base
    assert images.find_base(Image("scratch", "", ImageConfig(), (Layer("sha256:1", tmp_path),))) is None


def test_the_neighbours_image_is_built_where_neighbours_are_measured_and_found_in_a_sealed_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path))
    monkeypatch.setattr(
        images, "build", lambda _store, *, reference, **_rest: Image(reference, "sha256:0", ImageConfig(), ())
    )
    scenario = load("idle", SCENARIOS)
    assert list(images.build_images(scenario, print)) == [scenario.services[0].name]
    built = images.build_images(scenario, print, measures=("start", "neighbours"))[NEIGHBOUR_IMAGE]
    assert built.config.entrypoint == ("/testbed-neighbour",)
    (layer,) = built.layers
    assert sorted(path.name for path in layer.path.iterdir()) == ["testbed-neighbour", "tmp"]
    store = Store(tmp_path / "images")
    for service in scenario.services:  # as the reference machine has them: all there is, and nothing is built
        store.tag(f"idle/{service.name}", ImageConfig(), built.layers)
    (tmp_path / SEAL).touch()
    sealed = images.build_images(scenario, print, measures=("neighbours",))
    assert sealed[NEIGHBOUR_IMAGE].id == built.id and len(sealed) == 1 + len(scenario.services)
    assert images.image_name("idle", NEIGHBOUR_IMAGE) == NEIGHBOUR_IMAGE


@pytest.mark.usefixtures("no_registry")
def test_a_service_may_name_an_image_that_is_there_or_that_another_builds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "home"))
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /file\n")
    text = "services: {a: {image: own}, b: {build: ., image: own}, c: {image: 'x/there:1'}}\n"
    (tmp_path / "compose.yaml").write_text(text)
    store = Store(tmp_path / "home" / "images")
    with store.building(print), store.scratch() as scratch:
        tree = scratch / "tree"
        tree.mkdir()
        (tree / "file").write_text("x")
        there = store.tag("x/there:1", ImageConfig(), [store.add_layer(tree, "tree")])
    scenario = load(str(tmp_path), tmp_path)
    found = images.build_images(scenario, print)
    assert found["a"] == found["b"] and found["b"].reference == f"{scenario.name}/b"
    assert found["c"] == there
    (tmp_path / "compose.yaml").write_text("services: {a: {image: 'mongo:7'}}\n")
    with pytest.raises(UsageError, match="the image mongo:7 cannot be had: no such image") as caught:
        images.build_images(load(str(tmp_path), tmp_path), print)
    assert "postgres" in caught.value.hint


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What this host knows of registries is not asked."""
    (tmp_path / "registries.conf").touch()
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    monkeypatch.delenv("TESTBED_REGISTRY", raising=False)


INLINE = """
services:
  a:
    build:
      args: {NAME: b}
      dockerfile_inline: |
        FROM scratch
        ARG NAME
        COPY file /$$NAME
"""


def test_a_dockerfile_may_be_in_the_compose_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "home"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "compose.yaml").write_text(INLINE)
    image = images.build_images(load(str(tmp_path), tmp_path), print)["a"]
    assert [path.name for path in image.layers[-1].path.iterdir()] == ["b"]
    (tmp_path / "compose.yaml").write_text(INLINE.replace("COPY", "NOTHING"))
    with pytest.raises(UsageError, match=r"dockerfile_inline of a:3: .*NOTHING"):
        images.build_images(load(str(tmp_path), tmp_path), print)


STAGES = """
services:
  a:
    image: made
    build:
      context: .
      target: first
      additional_contexts: {other: "docker-image://x/there"}
      secrets: [s]
secrets: {s: {content: hidden}}
"""


@pytest.mark.usefixtures("no_registry")
def test_a_build_has_its_target_and_its_contexts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TESTBED_HOME", str(tmp_path / "home"))
    (tmp_path / "Dockerfile").write_text(
        "FROM scratch AS first\nCOPY --from=other /file /a\nFROM scratch\nCOPY none /\n"
    )
    (tmp_path / "compose.yaml").write_text(STAGES)
    store = Store(tmp_path / "home" / "images")
    with store.building(print), store.scratch() as scratch:
        tree = scratch / "tree"
        tree.mkdir()
        (tree / "file").write_text("x")
        store.tag("x/there", ImageConfig(), [store.add_layer(tree, "tree")])
    image = images.build_images(load(str(tmp_path), tmp_path), print)["a"]
    assert [path.name for path in image.layers[-1].path.iterdir()] == ["a"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("another")
    (tmp_path / "compose.yaml").write_text(STAGES.replace("docker-image://x/there", "./folder"))
    image = images.build_images(load(str(tmp_path), tmp_path), print)["a"]
    assert (image.layers[-1].path / "a").read_text() == "another"
    (tmp_path / "compose.yaml").write_text(STAGES.replace("docker-image://x/there", "service:b"))
    with pytest.raises(UsageError, match=r"a: build.additional_contexts.other: service:b is neither a folder nor an"):
        images.build_images(load(str(tmp_path), tmp_path), print)
