"""One repository of a registry: its manifests, blobs, tags and referrers (distribution-spec 1.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar
from urllib.parse import quote, urljoin

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images.descriptors import (
    DOCUMENT_LIMIT_BYTES,
    INDEX,
    INDEXES,
    MANIFEST,
    MANIFESTS,
    Descriptor,
    Index,
    decode,
    digest_of,
)
from runtime.output import shortened
from runtime.registry import manifests
from runtime.registry.access import Access
from runtime.registry.addresses import shown
from runtime.registry.answers import Answer
from runtime.registry.download import Download
from runtime.registry.errors import CutError, NotThereError, RegistryError
from runtime.registry.manifests import ACCEPT, Received
from runtime.registry.references import DIGEST
from runtime.registry.upload import Upload

T = TypeVar("T")
_PAGES = 1000
_LISTED = 100_000
_NEXT = re.compile(r'\s*<([^>]*)>\s*;.*rel="?next"?')


class _Tags(Struct, frozen=True):
    tags: tuple[str, ...] | None = None


class _Listing(Struct, frozen=True, rename="camel"):
    """An index as it is written: the list of an image's referrers, where the registry keeps none itself."""

    schema_version: int
    media_type: str
    manifests: tuple[Descriptor, ...]


class Repository:
    """The repository ``path`` behind ``access``. Any thread may use it."""

    def __init__(self, access: Access, path: str) -> None:
        self.access, self.path = access, path
        self.uploads = Upload(access, path)

    def __str__(self) -> str:
        return f"{self.access.host}/{self.path}"

    @property
    def _pull(self) -> tuple[str, ...]:
        return (f"repository:{self.path}:pull",)

    def manifest(self, target: str, expected: Descriptor | None = None) -> Received:
        """Return the manifest or index with this tag or digest. If ``target`` is a digest, it has that.

        Raises NotThereError if there is none, RegistryError for what is not one, or another.
        """
        name = f"{self}{'@' if DIGEST.fullmatch(target) else ':'}{target}"
        headers = {"Accept": ACCEPT}

        def fetch() -> tuple[bytes, str]:
            answer = self._call("GET", f"manifests/{target}", self._pull, name, headers=headers)
            with answer:
                return answer.read(DOCUMENT_LIMIT_BYTES), answer.header("Content-Type")

        content, media_type = self._again(fetch)
        media_type = media_type.partition(";")[0].strip()
        found = Descriptor(media_type, digest_of(content), len(content))
        wanted = expected.digest if expected else target if DIGEST.fullmatch(target) else found.digest
        if found.digest != wanted:
            raise RegistryError(
                f"{name}: what was sent is {found.digest}", "the registry, or something before it, is broken"
            )
        if expected and expected.size != found.size:
            raise RegistryError(f"{name}: it has {found.size} bytes, and {expected.size} by the list that names it")
        document = manifests.read(content, found, name)
        if media_type not in MANIFESTS and media_type not in INDEXES:
            said = getattr(msgspec.json.decode(content, type=_Kind), "media_type", "")
            found = replace(found, media_type=said or (INDEX if isinstance(document, Index) else MANIFEST))
        return Received(content, found, document)

    def digest(self, tag: str) -> str | None:
        """Return the digest of the manifest with a tag, without getting it, or None if the registry does not say."""
        answer = self._call("HEAD", f"manifests/{tag}", self._pull, f"{self}:{tag}", headers={"Accept": ACCEPT})
        answer.close()
        said = answer.header("Docker-Content-Digest")
        return said if DIGEST.fullmatch(said) else None

    def blob(self, descriptor: Descriptor, others: Sequence[Repository] = (), *, check: bool = True) -> Download:
        """Return the stream of a blob. It is a context; nothing is asked for before the first read.

        ``others`` are asked for what this repository does not give. Without ``check`` the reader checks the digest.
        """
        asks = [partial(one._ask_blob, descriptor.digest) for one in (self, *others)]
        return Download(self.access.transport, descriptor, f"{self}@{descriptor.digest}", asks, check=check)

    def _ask_blob(self, digest: str, offset: int) -> Answer:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        return self._call(
            "GET", f"blobs/{digest}", self._pull, f"blob {digest} of {self}", headers=headers, good=(200, 206)
        )

    def put_manifest(self, content: bytes, media_type: str, target: str) -> str:
        """Push a manifest or index under a tag or its digest, and return its digest. One with a subject is listed with
        that: by the registry, or else by us under the tag that the specification gives such lists.

        Raises RegistryError and NotThereError.
        """
        digest = digest_of(content)
        answer = self.access.call(
            "PUT",
            f"{self.path}/manifests/{target}",
            self.uploads.scopes,
            headers={"Content-Type": media_type},
            body=content,
        )
        name = f"push {self}:{target}"
        if answer.status not in (200, 201, 202):
            raise self.access.refused(answer, name)
        answer.close()
        said = answer.header("Docker-Content-Digest")
        if said and DIGEST.fullmatch(said) and said != digest:
            raise RegistryError(f"{name}: the registry took it for {said}, and it is {digest}")
        listed = manifests.referrer(content, Descriptor(media_type, digest, len(content)))
        if listed and not answer.header("OCI-Subject"):
            self._list_referrer(*listed)
        return digest

    def tags(self) -> tuple[str, ...]:
        """Return the repository's tags, sorted. Raises RegistryError and NotThereError."""
        pages = self._pages(f"{self.path}/tags/list?n=1000", _Tags, f"tags of {self}")
        return tuple(sorted({tag for page in pages for tag in page.tags or ()}))

    def referrers(self, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the manifests whose subject has this digest (signatures, lists of parts), all or those of a type."""
        query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
        try:
            pages = self._pages(f"{self.path}/referrers/{digest}{query}", Index, f"referrers of {self}@{digest}")
            found = [one for page in pages for one in page.manifests]
        except NotThereError as error:
            if error.status != 404:
                raise
            found = list(self._listed(digest))
        return tuple(one for one in found if artifact_type in ("", one.artifact_type))

    def _listed(self, digest: str) -> tuple[Descriptor, ...]:
        """Return the referrers that stand under the fallback tag."""
        try:
            received = self.manifest(fallback_tag(digest))
        except NotThereError as error:
            if error.status != 404:
                raise
            return ()
        return received.document.manifests if isinstance(received.document, Index) else ()

    def _list_referrer(self, subject: Descriptor, referrer: Descriptor) -> None:
        listed = self._listed(subject.digest)
        if all(one.digest != referrer.digest for one in listed):
            listing = msgspec.json.encode(_Listing(2, INDEX, (*listed, referrer)))
            self.put_manifest(listing, INDEX, fallback_tag(subject.digest))

    def _pages(self, address: str, kind: type[T], name: str) -> list[T]:
        """Return a list that a registry gives in pages: each names the next in its header Link."""
        pages: list[T] = []
        base = urljoin(self.access.base, address)
        while address and len(pages) < _PAGES:
            here = address

            def fetch(here: str = here) -> tuple[T, str, str]:
                answer = self.access.call("GET", here, self._pull, headers={"Accept": "application/json, " + INDEX})
                if answer.status != 200:
                    raise self.access.refused(answer, name)
                with answer:
                    content = answer.read(DOCUMENT_LIMIT_BYTES)
                try:
                    return decode(content, kind, name), answer.header("Link"), answer.url
                except UsageError as error:
                    raise RegistryError(shortened(error.message)) from error

            page, link, url = self._again(fetch)
            pages.append(page)
            match = _NEXT.match(link[:4096])
            address = urljoin(url, match[1]) if match else ""
            if address and urljoin(address, "/") != urljoin(base, "/"):
                raise RegistryError(f"{name}: the next page is elsewhere, at {shown(address)}")
        if address:
            raise RegistryError(f"{name}: more than {_PAGES} pages")
        return pages

    def _call(
        self,
        method: str,
        address: str,
        scopes: Sequence[str],
        name: str,
        *,
        headers: dict[str, str],
        good: tuple[int, ...] = (200,),
    ) -> Answer:
        answer = self.access.call(method, f"{self.path}/{address}", scopes, headers=headers)
        if answer.status not in good:
            raise self.access.refused(answer, name)
        return answer

    def _again(self, fetch: Callable[[], T]) -> T:
        """Try again what was cut within a body."""
        for attempt in range(1, self.access.transport.limits.attempts):
            try:
                return fetch()
            except CutError:
                self.access.transport.wait(attempt)
        return fetch()


class _Kind(Struct, frozen=True, rename="camel"):
    media_type: str = ""


def fallback_tag(digest: str) -> str:
    """Return the tag of the list of an image's referrers (distribution-spec 1.1, "Referrers Tag Schema")."""
    return digest.replace(":", "-")[:128]
