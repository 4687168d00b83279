"""Public Dockerfiles: what is told of one that is read, refused, read otherwise, and built or not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import dockerfiles
from benchmarks.dockerfile_build import build_file, list_missing, make_absent, resolver_of, stand_in
from benchmarks.dockerfile_peer import Peer
from benchmarks.public_files import Listed, read_list
from runtime.builder.dockerfile import Dockerfile, parse, read
from runtime.errors import UsageError
from runtime.images.store import Store
from tests.runtime.images.conftest import store, tiny  # noqa: F401


def written(folder: Path, text: str) -> Dockerfile:
    path = folder / "Dockerfile"
    path.write_text(text)
    return read(path, folder)


def test_the_list_names_different_files_at_their_commits() -> None:
    listed = read_list(dockerfiles.LIST)
    assert len({(one.repository, one.path) for one in listed}) == len(listed) >= 200
    assert all(len(one.commit) == 40 and one.repository.count("/") == 1 for one in listed)


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        *((one, "testbed/base") for one in ("debian", "ubuntu:22.04", "docker.io/library/debian:12-slim@sha256:00")),
        *((one, one) for one in ("debian-extra", "someone/ubuntu", "node:18-slim", "elsewhere.example/debian")),
    ],
)
def test_a_distribution_has_a_stand_in_and_nothing_else(reference: str, name: str) -> None:
    assert stand_in(reference) == name


def test_images_that_cannot_be_had_are_those_that_the_last_stage_needs(tmp_path: Path) -> None:
    file = parse(
        "ARG V=2\nFROM nobody/a:$V AS a\nFROM nobody/b AS unneeded\nFROM node:18 AS c\n"
        "COPY --from=a /x /x\nCOPY --from=nobody/c /y /y\nFROM ubuntu\nCOPY --from=c /x /x\n"
    )
    assert list_missing(Store(tmp_path / "store"), file) == ("nobody/c", "nobody/a:2")
    with pytest.raises(UsageError, match="is empty here"):
        list_missing(Store(tmp_path / "store"), parse("ARG V\nFROM $V\n"))


@pytest.mark.parametrize(
    ("pattern", "made"),
    [
        ("tsconfig*.json", {"tsconfig.json": "{}\n"}),
        ("target/*.jar", {"target/x.jar": ""}),
        ("src", {"src/file": ""}),
        ("./src/", {"src/file": ""}),
        ("Makefile", {"Makefile": ""}),
        ("a*/b[0-9].txt", {"ax/b.txt": ""}),
        (".env", {".env": ""}),
        ("../../outside.txt", {}),
    ],
)
def test_what_is_not_there_is_made(tmp_path: Path, pattern: str, made: dict[str, str]) -> None:
    context = tmp_path / "one" / "context"
    context.mkdir(parents=True)
    make_absent(context, pattern)
    there = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {str(path.relative_to(context)): path.read_text() for path in there} == made


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_takes_the_package_that_is_made(tmp_path: Path) -> None:
    make_absent(tmp_path, "package*.json")
    for command in (("npm", "ci"), ("npm", "run", "build")):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.root
def test_files_are_built_with_what_is_made_or_told_why_not(store: Store, tiny: object, tmp_path: Path) -> None:  # noqa: F811
    text = "FROM tiny\nCOPY package*.json src ./\nRUN test -f /package.json\n"
    built = build_file(store, written(tmp_path, text), tmp_path, 60)
    assert (built.reason, built.made, built.run_failed) == ("", 2, False) and built.seconds > 0
    assert store.references() == ("tiny",), "what was built is let go"
    failed = build_file(store, written(tmp_path, "FROM tiny\nRUN exit 3\n"), tmp_path, 60)
    assert failed.run_failed and "exit status 3" in failed.reason
    other = build_file(store, written(tmp_path, "FROM tiny\nUSER nobody-knows\n"), tmp_path, 60)
    assert other.reason and not other.run_failed
    slow = build_file(store, written(tmp_path, "FROM tiny\nRUN sleep 60\n"), tmp_path, 0.5)
    assert slow.reason == "no end within 0.5 s" and not slow.run_failed


@pytest.mark.root
@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")
def test_what_buildah_has_otherwise_is_told(store: Store, tiny: object, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "peer").mkdir()
    peer = Peer(tmp_path / "peer", store)
    text = "FROM tiny\nVOLUME /v\nRUN mkdir -p /v /w && echo > /w/a && echo > /v/b && date > /tmp/log\n"
    try:
        built = build_file(store, written(tmp_path, text), tmp_path, 60, peer)
        assert built.beside is not None and not built.beside.reason and built.beside.count > 30
        assert [line.partition(":")[0] for line in built.beside.differs] == ["/v/b"], "buildah forgets it"
        broken = peer.compare(
            written(tmp_path, "FROM tiny\nRUN exit 3\n"), tmp_path, store.get("tiny"), resolver_of(store)
        )
        assert broken.reason and not broken.differs
    finally:
        peer.close()
    assert store.references() == ("tiny",)


def test_a_difference_to_the_other_parser_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, "FROM a\nRUN x\n")
    assert dockerfiles.compare(file, "FROM a\nRUN x\n") == ""
    assert dockerfiles.compare(file, "FROM a\nRUN y\n").startswith("line 2: ")
    assert dockerfiles.compare(file, "FROM a\n") == "2 instructions, there 1"


def test_a_file_in_a_folder_called_docker_is_built_in_the_folder_above() -> None:
    copy = Path("/corpus")
    assert dockerfiles.context_of(copy, Listed("a/b", "docker/Dockerfile", "")) == copy / "a/b"
    assert dockerfiles.context_of(copy, Listed("a/b", "backend/Dockerfile", "")) == copy / "a/b/backend"
