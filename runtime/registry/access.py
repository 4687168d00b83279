"""One registry's interface: addresses, authentication, and errors in words.

Authentication begins when the registry asks for it, and then is what it asks for: a password with each request, or a
token for what is to be done, from the server that the registry names (distribution's token specification; OAuth 2 where
there is an identity token). Credentials go to the registry, and to that server, which must be encrypted if the registry
is; never along a redirect to another host.
"""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode, urljoin

import msgspec
from msgspec import Struct

from runtime.output import shortened
from runtime.registry import challenges
from runtime.registry.addresses import check_address, origin, shown
from runtime.registry.answers import Answer
from runtime.registry.challenges import Challenge
from runtime.registry.credentials import Credential, Credentials
from runtime.registry.errors import NotThereError, RegistryError
from runtime.registry.transport import Body, Transport

_TOKEN_BYTES = 1 << 20
_ERROR_BYTES = 1 << 16
# What a token is good for without `expires_in` (distribution, "Token Authentication Specification").
_LIFE_S = 60
_CLIENT = "testbed"


class _Token(Struct, frozen=True):
    token: str = ""
    access_token: str = ""
    expires_in: int = 0


class _Error(Struct, frozen=True):
    code: str = ""
    message: str = ""


class _Errors(Struct, frozen=True):
    errors: tuple[_Error, ...] = ()


class _Kept(Struct, frozen=True):
    """A header, and until when on the monotonic clock it is good."""

    header: str
    until_s: float


class Access:
    """The interface of one registry, over ``transport``. Any thread may use it."""

    def __init__(
        self,
        transport: Transport,
        host: str,
        credentials: Credentials,
        *,
        plain: bool = False,
        only_plain: bool = False,
    ) -> None:
        self.host = host
        self._transport, self._credentials = transport, credentials
        self._plain, self._only_plain = plain, only_plain
        self._lock = threading.Lock()
        self._base = ""
        self._challenge: Challenge | None = None
        self._headers: dict[tuple[str, ...], _Kept] = {}

    @property
    def transport(self) -> Transport:
        return self._transport

    @property
    def base(self) -> str:
        """The beginning of all addresses: ``https://HOST/v2/``. With ``plain``, HTTP where HTTPS does not answer."""
        with self._lock:
            if not self._base:
                self._base = self._find_base()
            return self._base

    def _find_base(self) -> str:
        encrypted, plain = f"https://{self.host}/v2/", f"http://{self.host}/v2/"
        if not self._plain:
            return encrypted
        if self._only_plain:
            return plain
        try:
            self._transport.request("GET", encrypted, {}, attempts=1).close()
        except RegistryError:
            return plain
        return encrypted

    def call(
        self,
        method: str,
        address: str,
        scopes: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        attempts: int = 0,
    ) -> Answer:
        """Return the answer to a request for ``address`` (below ``base``, or a whole one) with the rights ``scopes``
        (``repository:PATH:pull,push``), the first one's repository being the one it is about.

        The answer may have any status but 401. Raises RegistryError, and NotThereError for 401.
        """
        url = urljoin(self.base, address)
        check_address(url, self.base)
        is_ours = origin(url) == origin(self.base)
        for last in (False, True):
            authorization = self._authorization(tuple(scopes)) if is_ours else ""
            answer = self._transport.request(
                method, url, headers or {}, authorization=authorization, body=body, attempts=attempts
            )
            if answer.status != 401 or last or origin(answer.url) != origin(self.base):
                break
            asked = challenges.best(challenges.parse(answer.header("WWW-Authenticate")))
            if asked is None:
                break
            answer.close()
            with self._lock:
                self._challenge = asked
                self._headers.pop(tuple(scopes), None)
        if answer.status == 401:
            raise self.refused(answer, f"{method} {shown(url)}")
        return answer

    def refused(self, answer: Answer, what: str) -> RegistryError | NotThereError:
        """Return the error that an answer is, and close it; ``what`` was tried."""
        with answer:
            said = _said(answer)
        if answer.status in (401, 403):
            has = "these credentials are not enough" if self._challenge else "it wants credentials"
            return NotThereError(f"{what}: {said or 'refused'}", f"{has}: podman login {self.host}", answer.status)
        if answer.status == 404:
            return NotThereError(f"{what}: {said or 'not found'}", "", 404)
        if answer.status == 429:
            return RegistryError(f"{what}: {said or 'too many requests'}", "wait, or log in, which often allows more")
        return RegistryError(f"{what}: it answered {answer.status}{said and f': {said}'}")

    def _authorization(self, scopes: tuple[str, ...]) -> str:
        """Return the value of the header Authorization, empty while the registry has not asked for one."""
        with self._lock:
            challenge, kept = self._challenge, self._headers.get(scopes)
        if challenge is None:
            return ""
        if kept is None or time.monotonic() >= kept.until_s:
            kept = self._obtain(challenge, scopes)
            with self._lock:
                self._headers[scopes] = kept
        return kept.header

    def _obtain(self, challenge: Challenge, scopes: tuple[str, ...]) -> _Kept:
        path = scopes[0].split(":")[1] if scopes else ""
        credential = self._credentials.find(self.host, path)
        if challenge.scheme == "basic":
            return _Kept(basic(credential) if credential else "", float("inf"))
        realm = challenge.parameters.get("realm", "")
        check_address(realm, self.base)
        wanted = [*scopes, *(one for one in challenge.parameters.get("scope", "").split(" ") if one)]
        scope = list(dict.fromkeys(wanted))[:10]
        service = challenge.parameters.get("service", "")
        if credential and credential.identity_token:
            fields = {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
            form = urlencode({**fields, "service": service, "client_id": _CLIENT, "scope": " ".join(scope)})
            answer = self._transport.request(
                "POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body=form.encode()
            )
        else:
            query = urlencode([("service", service)] * bool(service) + [("scope", one) for one in scope])
            url = f"{realm}{'&' if '?' in realm else '?'}{query}" if query else realm
            answer = self._transport.request("GET", url, {}, authorization=basic(credential) if credential else "")
        return self._token(answer, realm)

    def _token(self, answer: Answer, realm: str) -> _Kept:
        if answer.status != 200:
            raise self.refused(answer, f"token of {shown(realm)} for {self.host}")
        with answer:
            try:
                token = msgspec.json.decode(answer.read(_TOKEN_BYTES), type=_Token)
            except (ValueError, RecursionError) as error:
                raise RegistryError(f"token of {shown(realm)}: {shortened(str(error))}") from error
        text = token.token or token.access_token
        if not text or not text.isascii() or not text.isprintable():
            raise RegistryError(f"token of {shown(realm)}: it sent none")
        life_s = min(max(token.expires_in, _LIFE_S), 24 * 3600)
        return _Kept(f"Bearer {text}", time.monotonic() + life_s * 0.8)


def basic(credential: Credential) -> str:
    """Return a user and password as the value of the header Authorization (RFC 7617)."""
    return "Basic " + b64encode(f"{credential.user}:{credential.password}".encode()).decode()


def _said(answer: Answer) -> str:
    """Return the registry's own words, of the body that the specification gives errors."""
    try:
        content = answer.read(_ERROR_BYTES)
        errors = msgspec.json.decode(content, type=_Errors).errors
    except (ValueError, RecursionError, RegistryError):
        return ""
    return shortened("; ".join(one.message or one.code for one in errors[:3]))
