"""Package sources, reduced to those of one release of a distribution.

A host also lists third parties (a cloud's tools, a language's vendor). An image is made from, and later installs from,
only the stanzas whose suite is the release, its updates or its security fixes, and whose components are Debian's or
Ubuntu's. Both formats of sources.list(5) are read, and deb822 is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError

SUITE_ENDINGS = ("", "-updates", "-security", "/updates")
COMPONENTS = ("main", "contrib", "non-free", "non-free-firmware", "restricted", "universe", "multiverse")
# Where apt's documentation tells administrators to keep keys; a Signed-By elsewhere is not copied.
KEYRING_FOLDERS = ("/usr/share/keyrings/", "/etc/apt/keyrings/", "/etc/apt/trusted.gpg.d/")
# Fields about how packages are downloaded or trusted. The rest (Languages, Targets, ...) is the image's choice.
_KEPT_OPTIONS = ("architectures", "signed-by", "trusted", "check-valid-until", "check-date", "by-hash")
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>[^#]*)")
_SHORT_OPTIONS = {"arch": "architectures"}


class Source(Struct, frozen=True):
    """One stanza, which says where packages come from; ``options`` are deb822 fields in lower case."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()

    @property
    def keyring(self) -> str | None:
        """Return the file of ``Signed-By``, or None if that is absent, a fingerprint or the key itself."""
        value = dict(self.options).get("signed-by", "")
        return value if value.startswith("/") and "\n" not in value else None


def read_texts(folder: Path) -> dict[str, str]:
    """Return the files of package sources below ``folder`` (``/etc/apt``), by their paths, in apt's order."""
    paths = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    return {str(path): path.read_text() for path in paths if path.suffix in (".list", ".sources") and path.is_file()}


def distribution_sources(texts: Mapping[str, str], codename: str) -> tuple[Source, ...]:
    """Return the sources in ``texts`` (file name to content, in apt's order) that belong to the release, without their
    other suites and components."""
    found: list[Source] = []
    for name, text in texts.items():
        stanzas = parse_deb822(text) if name.endswith(".sources") else parse_one_line(text)
        for source in stanzas:
            kept = _reduced(source, codename)
            if kept is not None and kept not in found:
                found.append(kept)
    return tuple(found)


def parse_deb822(text: str) -> tuple[Source, ...]:
    """Return the enabled binary sources of a ``.sources`` file."""
    found = []
    for stanza in re.split(r"\n\s*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        options = tuple((name, fields[name]) for name in _KEPT_OPTIONS if name in fields)
        found.append(
            Source(
                tuple(fields.get("uris", "").split()),
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                options,
            )
        )
    return tuple(found)


def parse_one_line(text: str) -> tuple[Source, ...]:
    """Return the binary sources of a ``.list`` file."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.strip())
        if match is None:
            continue
        given = dict(word.partition("=")[::2] for word in (match["options"] or "").split())
        named = {_SHORT_OPTIONS.get(name, name): value.replace(",", " ") for name, value in given.items()}
        options = tuple((name, named[name]) for name in _KEPT_OPTIONS if name in named)
        found.append(Source((match["uri"],), (match["suite"],), tuple(match["components"].split()), options))
    return tuple(found)


def to_deb822(sources: Iterable[Source]) -> str:
    """Return the text of a ``.sources`` file with these sources."""
    stanzas = []
    for source in sources:
        lines = [
            "Types: deb",
            f"URIs: {' '.join(source.uris)}",
            f"Suites: {' '.join(source.suites)}",
            f"Components: {' '.join(source.components)}",
            *(f"{name.title()}:{_multiline(value)}" for name, value in source.options),
        ]
        stanzas.append("\n".join(lines) + "\n")
    return "\n".join(stanzas)


def _multiline(value: str) -> str:
    return value if value.startswith("\n") else f" {value}"


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line[:1].isspace() and name:
            fields[name] += "\n" + line.rstrip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _reduced(source: Source, codename: str) -> Source | None:
    suites = tuple(suite for suite in source.suites if suite in {codename + ending for ending in SUITE_ENDINGS})
    components = tuple(component for component in source.components if component in COMPONENTS)
    uris = tuple(uri for uri in source.uris if not uri.startswith("cdrom:"))
    if not (suites and components and uris):
        return None
    return Source(uris, suites, components, source.options)


def check_keyrings(sources: Iterable[Source], package: str) -> None:
    """Raise PrerequisiteError if a key of these sources lies where keys do not belong, or does not exist.

    ``package`` is what installs the distribution's own keys.
    """
    for path in (source.keyring for source in sources):
        if path is None:
            continue
        if ".." in Path(path).parts or not path.startswith(KEYRING_FOLDERS):
            raise PrerequisiteError(
                f"the package source's key {path} lies outside {', '.join(KEYRING_FOLDERS)}",
                "move the key there and correct Signed-By",
            )
        if not Path(path).is_file():
            raise PrerequisiteError(
                f"the package source's key {path} does not exist",
                f"install {package}, copy the file from a host that has it, or write the key itself into Signed-By",
            )
