"""Public compose files: what is made up for those that come without what they name, and what cannot be had."""

from __future__ import annotations

from pathlib import Path

from benchmarks import compose
from benchmarks.compose_start import list_missing
from benchmarks.public_files import Listed, compare_blobs, name_blob, read_list
from runtime.images.store import Store
from testbed.scenario.model import load


def test_the_list_names_different_files_at_their_commits() -> None:
    listed = read_list(compose.LIST)
    assert len({(one.repository, one.path) for one in listed}) == len(listed) >= 100
    assert all(len(one.commit) == 40 and len(one.blob) in (0, 40) and one.repository.count("/") == 1 for one in listed)


def test_a_content_is_held_against_the_list(tmp_path: Path) -> None:
    for name, content in (("same", b"one\n"), ("other", b"two\r\n")):
        (tmp_path / "a/b").mkdir(parents=True, exist_ok=True)
        (tmp_path / "a/b" / name).write_bytes(content)
    blob = name_blob(b"one\n")
    assert blob == "5626abf0f72e58d7a153368ba57db4c673c0e171", "as git hash-object has it"
    listed = [Listed("a/b", "same", "", blob), Listed("a/b", "other", "", blob), Listed("a/b", "gone", "", blob)]
    assert compare_blobs([*listed, Listed("a/b", "other", "")], tmp_path) == [
        "1 have the content that the list names",
        "another: a/b/other",
    ]


def test_variables_get_values_that_fit(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(
        "services:\n  a:\n    image: ${NAME}:$TAG\n    command: $$SHELL $${HOME} ${KEPT:-x}\n"
        "    ports: ['${PORT}:80']\n"
        "    volumes:\n    - ${MEDIA}:/media\n    - '${BASE}/a:/b:ro'\n    environment: [A=${NEEDED:?say it}]\n"
    )
    values = compose.invent_variables(file)
    assert values.pop("PORT").isdigit()
    assert values == {"NAME": "value", "TAG": "value", "NEEDED": "value", "MEDIA": "./value", "BASE": "./value"}


def test_what_is_missing_beside_a_file_is_made(tmp_path: Path) -> None:
    """A file of variables has what databases ask for; a secret is empty."""
    file = tmp_path / "compose.yaml"
    file.write_text(
        "services:\n  a:\n    image: postgres\n    env_file: [config/.env]\n    secrets: [s]\n"
        "secrets:\n  s: {file: ./s.txt}\n"
    )
    assert compose.read(file, "a", completing=False).reasons
    read = compose.read(file, "a", completing=True)
    assert (read.reasons, read.services) == ((), 1)
    assert "POSTGRES_PASSWORD=value\n" in (tmp_path / "config/.env").read_text()
    assert (tmp_path / "s.txt").read_text() == ""


def test_images_that_cannot_be_had_are_told_of_dockerfiles_too(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    (tmp_path / "web").mkdir()
    (tmp_path / "web/Dockerfile").write_text("ARG V=1\nFROM nobody/web:$V AS a\nFROM redis AS b\n")
    (tmp_path / "later").mkdir()
    (tmp_path / "later/Dockerfile").touch()
    file.write_text(
        "services:\n"
        "  web: {build: {context: web, target: a, args: {V: 2}}, image: mine}\n"
        "  same: {build: {context: web}}\n"
        "  inline: {build: {dockerfile_inline: 'FROM nobody/inline'}}\n"
        "  mine: {image: mine}\n"
        "  db: {image: nobody/db}\n"
        "  cache: {image: 'redis:7'}\n"
        "  later: {build: later}\n"
    )
    missing = list_missing(Store(tmp_path / "store"), load(str(file), tmp_path, environment={}))
    assert sorted(missing) == ["later (its Dockerfile is not at hand)", "nobody/db", "nobody/inline", "nobody/web:2"]
