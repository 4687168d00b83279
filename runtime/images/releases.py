"""The releases that base images are made of, and where a host gets the packages of one that is not its own.

A release's sources are, in this order: those in the file that ``TESTBED_SOURCES`` names, the host's own for it, and,
of the same distribution, the host's own with the other release's suites in place of theirs: one mirror has all of a
distribution's releases. No host of an archive is known here, so a release of another distribution needs the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.errors import PrerequisiteError, UsageError
from runtime.images.sources import KEYRING_FOLDERS, Source, check_keyrings, distribution_sources, read_texts

# Names a file of sources.list(5): deb822 if its name ends in .sources, else one line each.
SOURCES_VARIABLE = "TESTBED_SOURCES"


class Release(Struct, frozen=True):
    """A release of a distribution.

    ``python`` is the version of its python3; ``packages`` are those that a base image has beside the essential ones and
    apt: in bookworm apt still depended on what makes users. Where ``is_merged``, /bin is a link to /usr/bin from the
    first package on.
    """

    codename: str
    distribution: str
    title: str
    python: tuple[int, int]
    packages: tuple[str, ...] = ()
    is_merged: bool = False

    @property
    def keyring(self) -> str:
        """The file with all keys of the distribution's archive."""
        return f"{KEYRING_FOLDERS[0]}{self.distribution}-archive-keyring.gpg"

    @property
    def keyring_package(self) -> str:
        """The package that has this file, in either distribution."""
        return KEYRING_PACKAGES[self.distribution]


RELEASES = {
    release.codename: release
    for release in (
        Release("bookworm", "debian", "Debian 12", (3, 11)),
        Release("trixie", "debian", "Debian 13", (3, 13), ("passwd",)),
        Release("noble", "ubuntu", "Ubuntu 24.04", (3, 12), ("passwd",), is_merged=True),
    )
}
KEYRING_PACKAGES = {"debian": "debian-archive-keyring", "ubuntu": "ubuntu-keyring"}
# On a host of another release of the distribution.
DEFAULTS = {"debian": "trixie", "ubuntu": "noble"}


class Host(Struct, frozen=True):
    """What os-release(5) says of a host: its distribution, ``debian`` or ``ubuntu``, and its release."""

    distribution: str
    codename: str


def parse_host(os_release: str) -> Host:
    """Return the host from the text of os-release(5). Raises PrerequisiteError for another distribution."""
    fields = dict(line.partition("=")[::2] for line in os_release.splitlines())
    distribution, codename = (fields.get(name, "").strip("\"'") for name in ("ID", "VERSION_CODENAME"))
    if distribution not in DEFAULTS or not codename:
        hint = "base images are made on Debian and Ubuntu hosts"
        raise PrerequisiteError("/etc/os-release names no release of Debian's or Ubuntu's", hint)
    return Host(distribution, codename)


def choose_release(wanted: str, host: Host) -> Release:
    """Return the release that was asked for, by its codename; of "" the host's own, or its distribution's default.

    Raises UsageError for a release that base images are not made of.
    """
    if not wanted:
        return RELEASES.get(host.codename) or RELEASES[DEFAULTS[host.distribution]]
    if wanted not in RELEASES:
        known = ", ".join(f"{release.codename} ({release.title})" for release in RELEASES.values())
        raise UsageError(f"base {wanted}: there is no such release", known)
    return RELEASES[wanted]


def find_release_with(python: tuple[int, int]) -> str:
    """Return the codename of the release whose python3 has this version, or "" if none has."""
    return next((each.codename for each in RELEASES.values() if each.python == python), "")


def release_sources(
    release: Release,
    host: Host,
    apt_folder: Path = Path("/etc/apt"),
    environment: Mapping[str, str] = os.environ,
) -> tuple[Source, ...]:
    """Return where the packages of ``release`` come from, on this host.

    Raises PrerequisiteError that says what to configure if nothing does, or if a key is missing or misplaced.
    """
    texts = read_texts(apt_folder)
    sources = (
        distribution_sources(read_sources_file(environment), release.codename)
        or distribution_sources(texts, release.codename)
        or derive_sources(texts, host, release)
    )
    if not sources:
        raise PrerequisiteError(
            f"no package source for {release.codename} ({release.title}) in "
            f"{', '.join((*sources_file(environment), *texts)) or apt_folder}",
            explain_missing(release, host),
        )
    check_keyrings(sources, release.keyring_package)
    return sources


def sources_file(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the path of the file that ``TESTBED_SOURCES`` names, if it is set."""
    return (environment[SOURCES_VARIABLE],) if environment.get(SOURCES_VARIABLE) else ()


def read_sources_file(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the text of the file that ``TESTBED_SOURCES`` names, by its path. Raises PrerequisiteError."""
    try:
        return {path: Path(path).read_text(errors="replace") for path in sources_file(environment)}
    except OSError as error:
        hint = "it names a file of package sources, as sources.list(5) describes them"
        raise PrerequisiteError(f"{SOURCES_VARIABLE}: read {error.filename}: {error.strerror}", hint) from error


def derive_sources(texts: Mapping[str, str], host: Host, release: Release) -> tuple[Source, ...]:
    """Return the host's own sources with the suites of another release of the same distribution, and its keys.

    A key that is only the host's release's own, as its file's name says, is replaced by the file with all of them.
    """
    if host.distribution != release.distribution:
        return ()
    return tuple(_moved(source, host.codename, release) for source in distribution_sources(texts, host.codename))


def _moved(source: Source, codename: str, release: Release) -> Source:
    suites = tuple(release.codename + suite.removeprefix(codename) for suite in source.suites)
    options = source.options
    if source.keyring is not None and codename in Path(source.keyring).name:
        options = tuple((name, release.keyring if name == "signed-by" else value) for name, value in options)
    return replace(source, suites=suites, options=options)


def explain_missing(release: Release, host: Host) -> str:
    """Return what to do where no source of a release is configured."""
    codename = release.codename
    if host.distribution == release.distribution:
        return f"an image needs a source with the suite {codename} and the component main"
    components = "main universe" if release.distribution == "ubuntu" else "main"
    return "\n    ".join(
        (
            f"set {SOURCES_VARIABLE} to a file, its name ending in .sources, that names a mirror of {release.title}:",
            "Types: deb",
            "URIs: (the mirror)",
            f"Suites: {codename} {codename}-updates {codename}-security",
            f"Components: {components}",
            f"Signed-By: {release.keyring}",
        )
    )


_KEY_WORDS = ("NO_PUBKEY", "is not signed", "Missing key", "public key is not available", "Unknown key", "EXPKEYSIG")
_NETWORK_WORDS = (
    "Could not resolve",
    "Temporary failure resolving",
    "Could not connect",
    "Unable to connect",
    "Connection refused",
    "Connection timed out",
    "Connection failed",
    "Network is unreachable",
    "Could not handshake",
)
_ABSENT_WORDS = ("does not have a Release file", "404  Not Found", "403  Forbidden", "no longer has a Release file")


def explain_failure(output: str, release: Release, sources: Iterable[Source]) -> str:
    """Return what to do about an archive that could not be used, from what apt said of it."""
    other = f"or name another mirror in the file of {SOURCES_VARIABLE}"
    if _has(output, _KEY_WORDS):
        keyrings = ", ".join(sorted({source.keyring for source in sources if source.keyring})) or "apt's trusted keys"
        return (
            f"the archive's key is not in {keyrings}: install the newest {release.keyring_package}, "
            "or write the key into Signed-By"
        )
    if _has(output, _NETWORK_WORDS):
        return f"check the network and the proxy (does `apt-get update` work on this host?), {other}"
    if _has(output, _ABSENT_WORDS):
        return f"the mirror has no {release.codename}, or not all of it: check it with `apt-get update`, {other}"
    return "check that `apt-get update` works on this host"


def _has(output: str, words: Iterable[str]) -> bool:
    return any(word in output for word in words)
