from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.images.descriptors import CONFIG, DOCKER_INDEX, INDEX, MANIFEST, Descriptor, Index, Manifest, digest_of
from runtime.registry.errors import NotThereError, RegistryError
from runtime.registry.repository import Repository, fallback_tag
from tests.runtime.registry.conftest import Open
from tests.runtime.registry.servers import Exchange, faulty

Make = Callable[..., tuple[Descriptor, Path]]


def manifest_of(config: Descriptor, **more: object) -> bytes:
    named = {"mediaType": CONFIG, "digest": config.digest, "size": config.size}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": named, "layers": [], **more}).encode()


@pytest.fixture
def config(make_blob: Make) -> tuple[Descriptor, Path]:
    return make_blob(100, 1)


def pushed(repository: Repository, config: tuple[Descriptor, Path]) -> None:
    with config[1].open("rb") as content:
        repository.uploads.send(config[0], content)


def test_manifests_come_back_as_they_were_pushed(
    registry: str, open_repository: Open, config: tuple[Descriptor, Path]
) -> None:
    repository = open_repository(registry, "one/a")
    pushed(repository, config)
    content = manifest_of(config[0])
    digest = repository.put_manifest(content, MANIFEST, "1")
    for target in ("1", digest):
        received = repository.manifest(target)
        assert received.content == content and received.descriptor == Descriptor(MANIFEST, digest, len(content))
        assert isinstance(received.document, Manifest) and received.document.config.digest == config[0].digest
    index = json.dumps(
        {"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": digest, "size": len(content)}]}
    ).encode()
    repository.put_manifest(index, INDEX, "all")
    listed = repository.manifest("all")
    assert isinstance(listed.document, Index) and listed.descriptor.media_type == INDEX
    assert repository.digest("1") == digest and repository.tags() == ("1", "all")
    with pytest.raises(NotThereError, match=f"{registry}/one/a:2: manifest unknown"):
        repository.manifest("2")


def test_referrers_are_listed_where_the_registry_does_not(
    registry: str, open_repository: Open, config: tuple[Descriptor, Path]
) -> None:
    repository = open_repository(registry, "two/a")
    pushed(repository, config)
    subject = manifest_of(config[0])
    digest = repository.put_manifest(subject, MANIFEST, "1")
    assert repository.referrers(digest) == ()
    about = {"mediaType": MANIFEST, "digest": digest, "size": len(subject)}
    for kind in ("x/signature", "x/parts", "x/signature"):
        content = manifest_of(config[0], subject=about, artifactType=kind, annotations={"a": "b"})
        repository.put_manifest(content, MANIFEST, digest_of(content))
    found = repository.referrers(digest)
    assert [one.artifact_type for one in found] == ["x/signature", "x/parts"]
    assert [one.artifact_type for one in repository.referrers(digest, "x/parts")] == ["x/parts"]
    assert found[0].annotations == {"a": "b"}
    assert fallback_tag(digest) in repository.tags()


def test_referrers_and_pages_of_a_registry_that_lists_them(open_repository: Open) -> None:
    pages = [
        [{"mediaType": MANIFEST, "digest": "sha256:" + f"{number}" * 64, "size": 1, "artifactType": kind}]
        for number, kind in enumerate(("x/a", "x/b"))
    ]

    def rule(exchange: Exchange) -> bool:
        if "/referrers/" in exchange.path:
            second = "page=2" in exchange.path
            link = {} if second else {"Link": '</v2/a/referrers/x?page=2>; rel="next"'}
            exchange.answer(200, link, json.dumps({"schemaVersion": 2, "manifests": pages[second]}).encode())
        return "/referrers/" in exchange.path

    with faulty(rule=rule) as server:
        repository = open_repository(server.host, "a")
        digest = "sha256:" + "f" * 64
        assert [one.artifact_type for one in repository.referrers(digest)] == ["x/a", "x/b"]
        assert [one.artifact_type for one in repository.referrers(digest, "x/b")] == ["x/b"]
        assert "artifactType=x%2Fb" in server.requests[2][1]


def test_pages_do_not_lead_elsewhere_nor_on_forever(open_repository: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.registry.repository._PAGES", 20)
    links = ['<http://127.0.0.1:1/v2/a>; rel="next"', '</v2/a/tags/list?again>; rel="next"']

    def rule(exchange: Exchange) -> bool:
        exchange.answer(200, {"Link": links[0]}, b'{"tags":["1"]}')
        return True

    with faulty(rule=rule) as server:
        with pytest.raises(RegistryError, match="elsewhere"):
            open_repository(server.host, "a").tags()
        links.pop(0)
        with pytest.raises(RegistryError, match="more than 20 pages"):
            open_repository(server.host, "a").tags()


WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", MANIFEST),
    "no JSON": (b"<html>", "text/html"),
    "a list": (b"[]", MANIFEST),
    "deep": (b'{"a":' * 100_000, MANIFEST),
    "schema 1": (b'{"schemaVersion":1}', "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    "both": (b'{"schemaVersion":2,"manifests":[],"layers":[]}', INDEX),
    "another": (b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % DOCKER_INDEX.encode(), INDEX),
    "a path": (manifest_of(Descriptor(CONFIG, "sha256:../../../etc/passwd", 1)), MANIFEST),
    "a size": (manifest_of(Descriptor(CONFIG, "sha256:" + "0" * 64, -1)), MANIFEST),
    "large": (b" " * (5 << 20), MANIFEST),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_manifest_is_refused_in_a_line(open_repository: Open, kind: str) -> None:
    def rule(exchange: Exchange) -> bool:
        exchange.answer(200, {"Content-Type": WRONG[kind][1]}, WRONG[kind][0])
        return True

    with faulty(rule=rule) as server, pytest.raises(RegistryError) as caught:
        open_repository(server.host, "a").manifest("1")
    assert len(caught.value.message) < 1000 and caught.value.message.isprintable()
    assert server.host in caught.value.message


def test_another_manifest_than_the_digest_says_is_refused(
    registry: str, open_repository: Open, config: tuple[Descriptor, Path]
) -> None:
    content = manifest_of(config[0])

    def rule(exchange: Exchange) -> bool:
        exchange.answer(200, {"Content-Type": MANIFEST, "Docker-Content-Digest": "sha256:" + "0" * 64}, content)
        return True

    with faulty(rule=rule) as server:
        repository = open_repository(server.host, "a")
        with pytest.raises(RegistryError, match="what was sent is sha256"):
            repository.manifest("sha256:" + "0" * 64)
        with pytest.raises(RegistryError, match="by the list that names it"):
            repository.manifest(digest_of(content), Descriptor(MANIFEST, digest_of(content), 1))
        assert repository.manifest("1").descriptor.digest == digest_of(content)


def test_a_manifest_that_was_cut_is_asked_for_again(open_repository: Open, config: tuple[Descriptor, Path]) -> None:
    content = manifest_of(config[0])
    cuts = [1, 1]

    def rule(exchange: Exchange) -> bool:
        exchange.begin(200, {"Content-Type": MANIFEST, "Content-Length": str(len(content))})
        exchange.wfile.write(content[: len(content) // 2 if cuts else None])
        if cuts:
            cuts.pop()
            exchange.cut()
        return True

    with faulty(rule=rule) as server:
        assert open_repository(server.host, "a").manifest("1").content == content
