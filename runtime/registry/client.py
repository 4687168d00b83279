"""Find images by their names: which registries are asked, in which order, with which credentials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from msgspec import Struct

from runtime.errors import TestbedError, UsageError
from runtime.images.descriptors import Index, choose_platform
from runtime.registry import credentials, references, settings
from runtime.registry.access import Access
from runtime.registry.answers import Limits
from runtime.registry.errors import NotThereError, RegistryError
from runtime.registry.manifests import Received
from runtime.registry.references import Reference
from runtime.registry.repository import Repository
from runtime.registry.settings import Source
from runtime.registry.transport import Transport

# Blobs that are on their way at once: as many as other clients have, which registries are made for.
PARALLEL = 4
# An index may list indexes. Nobody needs more.
_DEPTH = 3


class Found(Struct, frozen=True):
    """An image in a registry: its full name, its manifest, and the repositories that may have its blobs, beginning with
    the one that has the manifest."""

    reference: Reference
    repositories: tuple[Repository, ...]
    received: Received


class Client:
    """The settings and credentials of an environment, and connections to registries, which the context closes.

    ``plain_http`` has all registries be asked without encryption.
    """

    def __init__(
        self, environment: Mapping[str, str], *, plain_http: bool = False, limits: Limits | None = None
    ) -> None:
        self.settings = settings.load(environment)
        self.transport = Transport(limits)
        self._credentials = credentials.from_environment(environment)
        self._plain = plain_http
        self._accesses: dict[tuple[str, bool], Access] = {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    @contextmanager
    def working(self) -> Iterator[ThreadPoolExecutor]:
        """Yield threads for what goes on side by side. A failure or an interrupt within the context ends what they wait
        for, and this client's connections."""
        pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="registry")
        try:
            yield pool
        except BaseException:
            self.transport.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def repository(self, source: Source) -> Repository:
        """Return the repository that a source names."""
        plain, only_plain = source.plain or self._plain, source.only_plain or self._plain
        access = self._accesses.get((source.host, plain))
        if access is None:
            access = Access(self.transport, source.host, self._credentials, plain=plain, only_plain=only_plain)
            self._accesses[source.host, plain] = access
        return Repository(access, source.reference.path)

    def target(self, name: str) -> tuple[Reference, Repository]:
        """Return where an image of this name is pushed to: never a mirror. Raises UsageError."""
        reference = self.settings.candidates(references.parse(name))[0]
        return reference, self.repository(self.settings.sources(reference)[-1])

    def find(self, name: str, platform: str = "") -> Found:
        """Return the image called ``name`` for ``platform`` (``os/architecture[/variant]``; empty: this host's).

        The registries that the settings name are asked one after the other, mirrors first. Raises UsageError for a name
        that is none, and NotThereError or RegistryError, which say what each of them answered.
        """
        failures: list[TestbedError] = []
        for reference in self.settings.candidates(references.parse(name)):
            sources = self.settings.sources(reference)
            for number, source in enumerate(sources):
                repositories = tuple(map(self.repository, sources[number:]))
                try:
                    received = _choose(repositories[0], source.reference.target, platform)
                    return Found(reference, repositories, received)
                except (NotThereError, RegistryError) as error:
                    failures.append(error)
        raise _summary(name, failures)


def _choose(repository: Repository, target: str, platform: str) -> Received:
    """Return the manifest of an image, or of what its index has for a platform."""
    received = repository.manifest(target)
    for _ in range(_DEPTH):
        if not isinstance(received.document, Index):
            return received
        chosen = choose_platform(received.document.manifests, platform, f"{repository}:{target}")
        received = repository.manifest(chosen.digest, chosen)
    raise RegistryError(f"{repository}:{target}: lists of lists of images")


def _summary(name: str, failures: Sequence[TestbedError]) -> TestbedError:
    if len(failures) == 1:
        return failures[0]
    what = f"{name}: " + "; ".join(error.message for error in failures)
    hint = next((error.hint for error in failures if error.hint), "")
    if all(isinstance(error, UsageError) for error in failures):
        return NotThereError(what, hint)
    return RegistryError(what, hint)
