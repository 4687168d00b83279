from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from runtime.registry.errors import NotThereError, RegistryError
from tests.runtime.registry.conftest import Open
from tests.runtime.registry.servers import Exchange, Faulty, debian_registry, faulty

# Of `user` and `secret`, as `htpasswd -B` writes them.
HTPASSWD = "user:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"


def logged_in(folder: Path, host: str, **entry: str) -> Path:
    """An auth file with the credentials of ``user`` for a host, or another entry."""
    entry = entry or {"auth": b64encode(b"user:secret").decode()}
    path = folder / "auth.json"
    path.write_text(json.dumps({"auths": {host: entry}}))
    return path


def test_a_password_is_given_to_who_asks_for_it(tmp_path: Path, open_repository: Open) -> None:
    (tmp_path / "users").write_text(HTPASSWD)
    with debian_registry(tmp_path, f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/users}}}}") as host:
        repository = open_repository(host, "a/b", files=(logged_in(tmp_path, f"{host}/a"),))
        assert not repository.uploads.has("sha256:" + "0" * 64)
        with pytest.raises(NotThereError, match="authentication required") as caught:
            open_repository(host, "a/b").tags()
        assert f"podman login {host}" in caught.value.hint
        with pytest.raises(NotThereError, match="authentication required"):
            open_repository(host, "c", files=(logged_in(tmp_path, f"{host}/a"),)).tags()


def token_rule(server: Faulty, tokens: list[tuple[str, dict[str, list[str]], str]], life_s: int = 300) -> None:
    """Have a server want tokens, which it gives itself, and keep in mind what it was asked for."""

    def rule(exchange: Exchange) -> bool:
        address = urlsplit(exchange.path)
        if address.path == "/token":
            query = exchange.rfile.read(exchange.length).decode() if exchange.length else address.query
            tokens.append((exchange.command, parse_qs(query), exchange.headers.get("Authorization", "")))
            exchange.answer(200, {}, json.dumps({"token": f"T{len(tokens)}", "expires_in": life_s}).encode())
        elif exchange.headers.get("Authorization") not in {f"Bearer T{number + 1}" for number in range(len(tokens))}:
            scope = "repository:a/b:pull"
            challenge = f'Bearer realm="http://{server.host}/token",service="s x",scope="{scope}"'
            exchange.answer(401, {"WWW-Authenticate": challenge})
        else:
            exchange.answer(200, {}, b'{"tags":["1"]}')
        return True

    server.rule = rule


def test_tokens_are_fetched_once_for_what_is_to_be_done(tmp_path: Path, open_repository: Open) -> None:
    tokens: list[tuple[str, dict[str, list[str]], str]] = []
    with faulty() as server:
        token_rule(server, tokens)
        repository = open_repository(server.host, "a/b", files=(logged_in(tmp_path, server.host),))
        assert repository.tags() == repository.tags() == ("1",)
        assert repository.uploads.has("sha256:" + "0" * 64)
    password = "Basic " + b64encode(b"user:secret").decode()
    pull, push = ["repository:a/b:pull"], ["repository:a/b:pull,push", "repository:a/b:pull"]
    assert tokens == [
        ("GET", {"service": ["s x"], "scope": pull}, password),
        ("GET", {"service": ["s x"], "scope": push}, password),
    ]


def test_a_token_that_is_no_longer_good_is_replaced(open_repository: Open) -> None:
    tokens: list[tuple[str, dict[str, list[str]], str]] = []
    with faulty() as server:
        token_rule(server, tokens)
        repository = open_repository(server.host, "a/b")
        repository.tags()
        tokens[:] = []
        assert repository.tags() == ("1",)
    assert [authorization for _, _, authorization in tokens] == [""]


def test_an_identity_token_is_exchanged(tmp_path: Path, open_repository: Open) -> None:
    tokens: list[tuple[str, dict[str, list[str]], str]] = []
    with faulty() as server:
        token_rule(server, tokens)
        file = logged_in(tmp_path, server.host, identitytoken="I&D")
        open_repository(server.host, "a/b", files=(file,)).tags()
    fields = {"grant_type": ["refresh_token"], "refresh_token": ["I&D"], "client_id": ["testbed"], "service": ["s x"]}
    assert tokens == [("POST", {**fields, "scope": ["repository:a/b:pull"]}, "")]


def test_an_identity_token_goes_along_no_redirect(tmp_path: Path, open_repository: Open) -> None:
    with faulty() as other, faulty() as server:

        def rule(exchange: Exchange) -> bool:
            exchange.rfile.read(exchange.length)
            if exchange.command == "POST":
                exchange.answer(307, {"Location": f"http://{other.host}/token"})
            else:
                exchange.answer(401, {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})
            return True

        server.rule = rule
        file = logged_in(tmp_path, server.host, identitytoken="I")
        with pytest.raises(RegistryError, match="on to another host"):
            open_repository(server.host, "a/b", files=(file,)).tags()
        assert other.requests == []


@pytest.mark.parametrize(
    "challenge", ["", "Negotiate", 'Bearer realm="file:///etc/passwd"', "Bearer", "Bearer realm=x"]
)
def test_a_challenge_that_cannot_be_met_is_said(open_repository: Open, challenge: str) -> None:
    def rule(exchange: Exchange) -> bool:
        exchange.answer(401, {"WWW-Authenticate": challenge}, b'{"errors":[{"code":"X","message":"go \x1b[31maway"}]}')
        return True

    with faulty(rule=rule) as server, pytest.raises((NotThereError, RegistryError)) as caught:
        open_repository(server.host, "a/b").tags()
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "token", [b"", b"[]", b"{}", b'{"token":"a\\r\\nX: y"}', b'{"token":1}', b'{"token":"' + b"a" * 2**21]
)
def test_a_token_that_is_none_is_said(open_repository: Open, token: bytes) -> None:
    def rule(exchange: Exchange) -> bool:
        if exchange.path.startswith("/token"):
            exchange.answer(200, {}, token)
        else:
            exchange.answer(401, {"WWW-Authenticate": f'Bearer realm="http://{exchange.server.host}/token"'})
        return True

    with faulty(rule=rule) as server, pytest.raises(RegistryError):
        open_repository(server.host, "a/b").tags()


def test_credentials_go_to_no_other_host(tmp_path: Path, open_repository: Open) -> None:
    """Neither along a redirect, nor to where another server says that an upload is to go, nor by its challenge."""
    with faulty() as other, faulty() as server:

        def elsewhere(exchange: Exchange) -> bool:
            exchange.answer(401, {"WWW-Authenticate": "Basic realm=x"})
            return True

        def rule(exchange: Exchange) -> bool:
            if not exchange.headers.get("Authorization"):
                exchange.answer(401, {"WWW-Authenticate": "Basic realm=x"})
            elif exchange.command == "POST":
                exchange.answer(202, {"Location": f"http://{other.host}/upload"})
            elif exchange.command == "HEAD":
                exchange.answer(404)
            else:
                exchange.answer(307, {"Location": f"http://{other.host}/there"})
            return True

        server.rule, other.rule = rule, elsewhere
        repository = open_repository(server.host, "a/b", files=(logged_in(tmp_path, server.host),))
        with pytest.raises(NotThereError):
            repository.tags()
        blob = tmp_path / "blob"
        blob.write_bytes(b"x")
        from runtime.images.descriptors import LAYER_TAR, Descriptor, digest_of

        with pytest.raises(NotThereError), blob.open("rb") as content:
            repository.uploads.send(Descriptor(LAYER_TAR, digest_of(b"x"), 1), content)
        assert len(other.requests) == 2
        assert all("Authorization" not in headers for _, _, headers in other.requests)
