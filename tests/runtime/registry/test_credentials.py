from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError, TestbedError, UsageError
from runtime.registry.credentials import Credential, Credentials, from_environment


def entry(user: str, password: str) -> dict[str, str]:
    return {"auth": b64encode(f"{user}:{password}".encode()).decode()}


def file_of(folder: Path, content: object) -> Path:
    path = folder / "auth.json"
    path.write_text(json.dumps(content))
    return path


def test_the_closest_entry_counts(tmp_path: Path) -> None:
    auths = {
        "a.example": entry("host", "p"),
        "a.example/team": entry("team", "p:q"),
        "https://old.example/v1/": entry("old", "p"),
        "a.example:5000": {"username": "port", "password": "p"},
        "t.example": {"identitytoken": "T", "auth": ""},
    }
    found = Credentials((tmp_path / "none", file_of(tmp_path, {"auths": auths}))).find
    assert found("a.example", "team/x") == Credential("team", "p:q")
    assert found("a.example", "teams/x") == Credential("host", "p")
    assert found("a.example") == Credential("host", "p")
    assert found("a.example:5000", "team/x") == Credential("port", "p")
    assert found("old.example", "x") == Credential("old", "p")
    assert found("t.example", "x") == Credential(identity_token="T")
    assert found("b.example", "x") is None


def test_a_secret_is_not_shown() -> None:
    assert "secret" not in repr(Credential("user", "secret", "secret"))


def test_helpers_are_asked(tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-fake"
    helper.write_text(
        """#!/bin/sh
read -r server
case "$1 $server" in
"get a.example") echo '{"ServerURL":"a.example","Username":"u","Secret":"s"}' ;;
"get t.example") echo '{"Username":"<token>","Secret":"T"}' ;;
"get broken.example") echo nothing; exit 1 ;;
"get odd.example") echo nothing ;;
*) echo "credentials not found in native keychain"; exit 1 ;;
esac
"""
    )
    helper.chmod(0o755)
    helpers = {f"{name}.example": "fake" for name in ("a", "t", "broken", "odd", "other")}
    file = file_of(tmp_path, {"credHelpers": {**helpers, "x.example": "../../bin/sh", "y.example": "absent"}})
    found = Credentials((file,), {"PATH": f"{tmp_path}:/usr/bin:/bin"}).find
    assert found("a.example") == Credential("u", "s")
    assert found("t.example") == Credential(identity_token="T")
    assert found("other.example") is None
    for host, kind, text in (
        ("broken.example", PrerequisiteError, "docker-credential-fake get: nothing"),
        ("odd.example", PrerequisiteError, "it printed no credentials"),
        ("x.example", UsageError, "is not the name of a credential helper"),
        ("y.example", PrerequisiteError, "docker-credential-absent get: "),
    ):
        with pytest.raises(kind, match=text):
            found(host)
    store = Credentials((file_of(tmp_path, {"credsStore": "fake"}),), {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert store.find("a.example") == Credential("u", "s") and store.find("b.example") is None


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"auths":1}', '{"auths":{"a.example":{"auth":"%"}}}', '{"auths":' + '{"a":' * 5000]
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(content)
    with pytest.raises(TestbedError, match=r"read .*auth\.json: ") as caught:
        Credentials((path,)).find("a.example")
    assert "\n" not in caught.value.message


def test_the_usual_files_are_looked_at(tmp_path: Path) -> None:
    environment = {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/1"}
    expected = (
        "/run/user/1/containers/auth.json",
        "/home/u/.config/containers/auth.json",
        "/home/u/.docker/config.json",
    )
    assert from_environment(environment).files == tuple(map(Path, expected))
    assert from_environment({**environment, "REGISTRY_AUTH_FILE": "/a"}).files == (Path("/a"),)
    assert from_environment({**environment, "DOCKER_CONFIG": "/d"}).files[-1] == Path("/d/config.json")
