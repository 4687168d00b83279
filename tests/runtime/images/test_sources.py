"""Only the distribution's own package sources go into an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError
from runtime.images.sources import (
    Source,
    check_keyrings,
    distribution_sources,
    parse_deb822,
    parse_one_line,
    read_texts,
    to_deb822,
)

DEBIAN = """\
Types: deb
# where it once came from
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://archive.example/debian-security
Suites: bookworm-security
Components: main contrib
"""
VENDOR = "Types: deb\nURIs: https://vendor.example/node\nSuites: nodistro\nComponents: main\n"
CLOUD = "deb https://vendor.example/apt cloud-sdk-bookworm main\n"


def chosen(**texts: str) -> tuple[Source, ...]:
    return distribution_sources({name.replace("_", "."): text for name, text in texts.items()}, "bookworm")


def test_third_parties_are_left_out() -> None:
    sources = chosen(cloud_list=CLOUD, debian_sources=DEBIAN, vendor_sources=VENDOR)
    assert [source.suites for source in sources] == [("bookworm", "bookworm-updates"), ("bookworm-security",)]
    assert sources[0].keyring == "/usr/share/keyrings/debian-archive-keyring.gpg"
    assert sources[1].components == ("main", "contrib")


def test_a_vendor_that_uses_the_codename_is_told_by_its_component() -> None:
    assert chosen(docker_list="deb [arch=amd64] https://vendor.example/linux/debian bookworm stable\n") == ()


def test_one_line_format() -> None:
    text = (
        "# deb http://archive.example/old bookworm main\n"
        "deb [ arch=amd64,arm64 signed-by=/usr/share/keyrings/k.gpg ] http://archive.example/debian bookworm main # x\n"
        "deb-src http://archive.example/debian bookworm main\n"
        "deb cdrom:[Debian]/ bookworm main\n"
        "deb http://archive.example/debian bullseye main\n"
        "deb http://archive.example/security bookworm/updates main\n"
    )
    first, second = chosen(sources_list=text)
    assert (first.uris, first.suites, first.components) == (
        ("http://archive.example/debian",),
        ("bookworm",),
        ("main",),
    )
    assert dict(first.options) == {"architectures": "amd64 arm64", "signed-by": "/usr/share/keyrings/k.gpg"}
    assert second.suites == ("bookworm/updates",)


def test_disabled_and_source_only_stanzas_do_not_count() -> None:
    assert chosen(a_sources=DEBIAN.replace("Types: deb\n", "Enabled: no\nTypes: deb\n", 1))[0].suites == (
        "bookworm-security",
    )
    assert chosen(a_sources=DEBIAN.replace("Types: deb deb-src", "Types: deb-src"))[-1].suites != ("bookworm-security",)


def test_the_same_source_twice_counts_once() -> None:
    assert len(chosen(a_sources=DEBIAN, b_sources=DEBIAN)) == 2


def test_what_is_written_reads_back() -> None:
    sources = chosen(debian_sources=DEBIAN)
    assert parse_deb822(to_deb822(sources)) == sources


def test_an_embedded_key_survives() -> None:
    key = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\n -----END PGP PUBLIC KEY BLOCK-----\n"
    sources = chosen(a_sources="Types: deb\nURIs: http://archive.example\nSuites: bookworm\nComponents: main\n" + key)
    assert sources[0].keyring is None
    assert key in to_deb822(sources)
    assert parse_deb822(to_deb822(sources)) == sources


def test_folders_of_the_host_are_read_and_other_files_are_not(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://archive.example/debian bookworm main\n")
    (parts / "x.list.disabled").write_text("deb http://elsewhere.example/debian bookworm main\n")
    (source,) = distribution_sources(read_texts(tmp_path), "bookworm")
    assert source.uris == ("http://archive.example/debian",)


@pytest.mark.parametrize(
    ("keyring", "message"),
    [
        ("/tmp/key.gpg", "lies outside"),
        ("/usr/share/keyrings/../../../tmp/key.gpg", "lies outside"),
        ("/usr/share/keyrings/no-such-key.gpg", "does not exist"),
    ],
)
def test_keys_come_from_where_keys_belong(keyring: str, message: str) -> None:
    sources = parse_one_line(f"deb [signed-by={keyring}] http://archive.example/debian bookworm main\n")
    with pytest.raises(PrerequisiteError, match=message):
        check_keyrings(sources, "debian-archive-keyring")


def test_ubuntus_own_sources_are_kept_and_a_vendors_are_not() -> None:
    text = (
        "Types: deb\nURIs: http://archive.example/ubuntu/\nSuites: noble noble-updates noble-backports\n"
        "Components: main restricted universe multiverse\nSigned-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n\n"
        "Types: deb\nURIs: http://vendor.example/\nSuites: noble\nComponents: stable\n"
    )
    (source,) = distribution_sources({"ubuntu.sources": text}, "noble")
    assert (source.suites, len(source.components)) == (("noble", "noble-updates"), 4)
