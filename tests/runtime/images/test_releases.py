"""Which release a base image is made of, where its packages come from, and what is said when they cannot be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.errors import PrerequisiteError, UsageError
from runtime.images.releases import (
    RELEASES,
    SOURCES_VARIABLE,
    Host,
    choose_release,
    derive_sources,
    explain_failure,
    find_release_with,
    parse_host,
    release_sources,
)
from runtime.images.sources import Source

BOOKWORM, TRIXIE, NOBLE = (RELEASES[name] for name in ("bookworm", "trixie", "noble"))
ON_BOOKWORM, ON_TRIXIE, ON_NOBLE = Host("debian", "bookworm"), Host("debian", "trixie"), Host("ubuntu", "noble")
DEBIAN = """\
deb http://archive.example/debian bookworm main contrib
deb http://archive.example/debian bookworm-updates main
deb http://archive.example/debian bookworm-backports main
deb http://archive.example/debian-security bookworm-security main
deb http://vendor.example/docker bookworm stable
"""
UBUNTU = """\
Types: deb
URIs: http://archive.example/ubuntu
Suites: noble noble-updates noble-security
Components: main universe
"""


def test_the_host() -> None:
    assert parse_host('ID=debian\nVERSION_CODENAME="bookworm"\n') == ON_BOOKWORM
    assert parse_host("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n") == ON_NOBLE
    for text in ("ID=fedora\nVERSION_CODENAME=x\n", "ID=debian\n", ""):
        with pytest.raises(PrerequisiteError, match="no release of Debian's or Ubuntu's"):
            parse_host(text)


@pytest.mark.parametrize(
    ("wanted", "host", "release"),
    [
        ("", ON_BOOKWORM, BOOKWORM),
        ("", ON_TRIXIE, TRIXIE),
        ("", ON_NOBLE, NOBLE),
        ("", Host("debian", "forky"), TRIXIE),
        ("", Host("debian", "bullseye"), TRIXIE),
        ("", Host("ubuntu", "jammy"), NOBLE),
        ("trixie", ON_BOOKWORM, TRIXIE),
        ("noble", ON_BOOKWORM, NOBLE),
        ("bookworm", ON_NOBLE, BOOKWORM),
    ],
)
def test_the_base_is_the_hosts_own_release_or_the_one_asked_for(wanted: str, host: Host, release: object) -> None:
    assert choose_release(wanted, host) == release


def test_a_release_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="base buzz: there is no such release") as caught:
        choose_release("buzz", ON_BOOKWORM)
    assert caught.value.hint == "bookworm (Debian 12), trixie (Debian 13), noble (Ubuntu 24.04)"


def test_the_release_with_a_python() -> None:
    assert [find_release_with((3, minor)) for minor in (11, 12, 13, 14)] == ["bookworm", "noble", "trixie", ""]


def test_another_release_has_the_hosts_mirror_components_and_options() -> None:
    text = DEBIAN.replace("deb ", "deb [check-valid-until=no] ")
    derived = derive_sources({"sources.list": text}, ON_BOOKWORM, TRIXIE)
    assert [source.suites for source in derived] == [("trixie",), ("trixie-updates",), ("trixie-security",)]
    assert derived[0] == Source(
        ("http://archive.example/debian",), ("trixie",), ("main", "contrib"), (("check-valid-until", "no"),)
    )
    assert derived[2].uris == ("http://archive.example/debian-security",)


def test_a_key_of_the_hosts_release_alone_is_replaced_by_all_of_the_distribution() -> None:
    folder = "/usr/share/keyrings"
    for own, expected in (
        ("debian-archive-bookworm-stable.gpg", "debian-archive-keyring.gpg"),
        ("debian-archive-keyring.gpg", "debian-archive-keyring.gpg"),
        ("ours.gpg", "ours.gpg"),
    ):
        text = f"deb [signed-by={folder}/{own}] http://archive.example/debian bookworm main\n"
        (source,) = derive_sources({"sources.list": text}, ON_BOOKWORM, TRIXIE)
        assert source.keyring == f"{folder}/{expected}"


def test_no_mirror_is_derived_across_distributions() -> None:
    assert derive_sources({"sources.list": DEBIAN}, ON_BOOKWORM, NOBLE) == ()
    assert derive_sources({"ubuntu.sources": UBUNTU}, ON_NOBLE, TRIXIE) == ()


def test_what_the_host_says_of_the_release_itself_comes_first(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(DEBIAN + "deb http://other.example/debian trixie main\n")
    (source,) = release_sources(TRIXIE, ON_BOOKWORM, tmp_path, {})
    assert source.uris == ("http://other.example/debian",)


def test_the_file_that_is_named_comes_before_all_else(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(DEBIAN)
    named = tmp_path / "noble.sources"
    named.write_text(UBUNTU)
    environment = {SOURCES_VARIABLE: str(named)}
    (source,) = release_sources(NOBLE, ON_BOOKWORM, tmp_path, environment)
    assert (source.uris, source.components) == (("http://archive.example/ubuntu",), ("main", "universe"))
    # It says nothing of Debian, whose releases come from where they came before.
    assert release_sources(TRIXIE, ON_BOOKWORM, tmp_path, environment)[0].suites == ("trixie",)
    named.write_text(UBUNTU + "\n" + UBUNTU.replace("noble", "bookworm").replace("/ubuntu", "/near"))
    assert release_sources(BOOKWORM, ON_BOOKWORM, tmp_path, environment)[0].uris == ("http://archive.example/near",)


def test_another_distribution_without_a_mirror_is_told_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(DEBIAN)
    with pytest.raises(
        PrerequisiteError, match=r"no package source for noble \(Ubuntu 24.04\) in .*sources.list"
    ) as no:
        release_sources(NOBLE, ON_BOOKWORM, tmp_path, {})
    assert SOURCES_VARIABLE in no.value.hint
    assert "Suites: noble noble-updates noble-security" in no.value.hint
    assert "Components: main universe" in no.value.hint  # where Ubuntu has Sinatra
    assert "ubuntu-archive-keyring.gpg" in no.value.hint


def test_a_host_without_its_own_release_is_told_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://archive.example/debian sid main\n")
    with pytest.raises(PrerequisiteError, match="no package source for bookworm") as no:
        release_sources(BOOKWORM, ON_BOOKWORM, tmp_path, {})
    assert no.value.hint == "an image needs a source with the suite bookworm and the component main"


def test_a_named_file_that_is_not_there_or_has_no_key_says_so(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.sources")
    with pytest.raises(PrerequisiteError, match=f"{SOURCES_VARIABLE}: read {absent}: No such file or directory"):
        release_sources(NOBLE, ON_BOOKWORM, tmp_path, {SOURCES_VARIABLE: absent})
    named = tmp_path / "noble.sources"
    named.write_text(UBUNTU + "Signed-By: /usr/share/keyrings/no-such-archive-keyring.gpg\n")
    with pytest.raises(PrerequisiteError, match=r"no-such-archive-keyring\.gpg does not exist") as no:
        release_sources(NOBLE, ON_BOOKWORM, tmp_path, {SOURCES_VARIABLE: str(named)})
    assert "install ubuntu-keyring" in no.value.hint


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("E: The repository 'http://m noble InRelease' is not signed.", "the archive's key is not in /usr/share/k.gpg"),
        ("W: GPG error: http://m noble InRelease: NO_PUBKEY 871920D1991BC93C", "install the newest ubuntu-keyring"),
        (
            "Sub-process /usr/bin/sqv returned an error code (1): Missing key 9D6D",
            "or write the key into Signed-By",
        ),
        ("Err:1 http://m noble InRelease  Could not resolve 'm'", "check the network and the proxy"),
        ("Err:1 http://m noble InRelease  Could not connect to m:80 (192.0.2.1)", SOURCES_VARIABLE),
        ("E: The repository 'http://m noble Release' does not have a Release file.", "the mirror has no noble"),
        ("something else", "apt-get update"),
    ],
)
def test_what_apt_says_decides_what_is_advised(said: str, advice: str) -> None:
    source = Source(("http://m",), ("noble",), ("main",), (("signed-by", "/usr/share/k.gpg"),))
    assert advice in explain_failure(said, NOBLE, (source,))


def test_no_archive_is_named_in_the_code() -> None:
    text = (Path(__file__).parents[3] / "runtime/images/releases.py").read_text()
    assert "://" not in text


def test_the_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = tmp_path / "noble.sources"
    named.write_text(UBUNTU)
    monkeypatch.setenv(SOURCES_VARIABLE, str(named))
    assert os.environ[SOURCES_VARIABLE] == str(named)
    assert release_sources(NOBLE, ON_BOOKWORM, tmp_path)[0].uris == ("http://archive.example/ubuntu",)
