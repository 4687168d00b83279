"""Users and passwords from the files that ``podman login`` and ``docker login`` write (containers-auth.json(5)).

Such a file may name a helper instead: ``docker-credential-NAME get``, with the server on standard input, prints them as
JSON (docker-credential-helpers).
"""

from __future__ import annotations

import binascii
import re
import subprocess
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct, field

from runtime.errors import PrerequisiteError, UsageError, in_words
from runtime.files import read_bounded
from runtime.output import shortened

_FILE_BYTES = 4 << 20
_HELPER_S = 60.0
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What helpers print when they have nothing for a server, which is not a failure (docker-credential-helpers, errors).
_NOT_FOUND = "credentials not found in native keychain"
# A helper's user name for a secret that is an identity token.
_TOKEN_USER = "<token>"  # noqa: S105


class Credential(Struct, frozen=True):
    """A user with a password, or an identity token, which is exchanged for others (OAuth 2's refresh token)."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.user!r}, ...)"


class _Entry(Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _File(Struct, frozen=True, rename="camel"):
    auths: dict[str, _Entry] | None = None
    cred_helpers: dict[str, str] | None = None
    creds_store: str = ""


class _Said(Struct, frozen=True, rename="pascal"):
    username: str = ""
    secret: str = ""


class Credentials(Struct, frozen=True):
    """Where credentials are looked for: ``files``, the first that has some wins."""

    files: tuple[Path, ...]
    environment: Mapping[str, str] = field(default_factory=dict)

    def find(self, host: str, path: str = "") -> Credential | None:
        """Return what there is for a repository, the closest entry first, or None.

        Raises UsageError for a file that is damaged, PrerequisiteError for a helper that fails.
        """
        for file in self.files:
            if file.exists():
                found = self._in_file(file, host, path)
                if found:
                    return found
        return None

    def _in_file(self, file: Path, host: str, path: str) -> Credential | None:
        try:
            content = msgspec.json.decode(read_bounded(file, _FILE_BYTES), type=_File)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise UsageError(f"read {file}: {shortened(str(error))}", "log in again, or mend it") from error
        helper = (content.cred_helpers or {}).get(host)
        if helper:
            return self._ask(helper, host, file)
        entries = {_key(key): entry for key, entry in (content.auths or {}).items()}
        for key in _keys(host, path):
            if key in entries and (found := _decode(entries[key], key, file)):
                return found
        return self._ask(content.creds_store, host, file) if content.creds_store else None

    def _ask(self, helper: str, host: str, file: Path) -> Credential | None:
        if not _HELPER.fullmatch(helper):
            raise UsageError(f"read {file}: {shortened(helper)!r} is not the name of a credential helper")
        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, "get"],
                input=host,
                capture_output=True,
                text=True,
                timeout=_HELPER_S,
                env=dict(self.environment),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            hint = f"{file} names it: install it, or log in again"
            raise PrerequisiteError(f"{program} get: {in_words(error)}", hint) from error
        if done.returncode:
            said = (done.stdout + done.stderr).strip()
            if _NOT_FOUND in said:
                return None
            raise PrerequisiteError(f"{program} get: {shortened(said) or f'it ended with {done.returncode}'}")
        try:
            answer = msgspec.json.decode(done.stdout, type=_Said)
        except ValueError as error:
            raise PrerequisiteError(f"{program} get: it printed no credentials") from error
        if answer.username == _TOKEN_USER:
            return Credential(identity_token=answer.secret)
        return Credential(answer.username, answer.secret) if answer.username else None


def from_environment(environment: Mapping[str, str]) -> Credentials:
    """Return the files of this user, in podman's order, then docker's; ``REGISTRY_AUTH_FILE`` alone if it is set."""
    if named := environment.get("REGISTRY_AUTH_FILE"):
        return Credentials((Path(named),), environment)
    home = Path(environment.get("HOME") or "/root")
    folders = [Path(environment[name], "containers") for name in ("XDG_RUNTIME_DIR",) if environment.get(name)]
    folders.append(Path(environment.get("XDG_CONFIG_HOME") or home / ".config", "containers"))
    docker = Path(environment.get("DOCKER_CONFIG") or home / ".docker", "config.json")
    return Credentials((*(folder / "auth.json" for folder in folders), docker), environment)


def _keys(host: str, path: str) -> Iterator[str]:
    """Yield ``host/a/b``, ``host/a``, ``host``."""
    name = f"{host}/{path}" if path else host
    while "/" in name:
        yield name
        name = name.rpartition("/")[0]
    yield host


def _key(written: str) -> str:
    """Return what an entry is for: old versions wrote an address, of which the host counts."""
    scheme, separator, rest = written.partition("://")
    return rest.partition("/")[0] if separator and scheme in ("http", "https") else written


def _decode(entry: _Entry, key: str, file: Path) -> Credential | None:
    if entry.identitytoken:
        return Credential(identity_token=entry.identitytoken)
    if not entry.auth:
        return Credential(entry.username, entry.password) if entry.username else None
    try:
        user, colon, password = b64decode(entry.auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise UsageError(f"read {file}: the entry for {shortened(key)} is not base64 of user:password", "log in again")
    return Credential(user, password.rstrip("\0"))
