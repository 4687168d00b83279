from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.registry.references import parse
from runtime.registry.settings import Settings, load


def settings_of(folder: Path, text: str = "", **environment: str) -> Settings:
    path = folder / "registries.conf"
    path.write_text(text)
    return load({"CONTAINERS_REGISTRIES_CONF": str(path), **environment})


def asked(settings: Settings, name: str) -> list[str]:
    return [str(source.reference) for source in settings.sources(parse(name))]


def test_a_short_name_has_no_registry_until_one_is_given(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which registry has 'redis:7'") as caught:
        settings_of(tmp_path).candidates(parse("redis:7"))
    assert "TESTBED_REGISTRY=HOST" in caught.value.hint and "HOST/redis:7" in caught.value.hint


def test_a_name_with_a_host_means_itself(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, TESTBED_REGISTRY="mirror.example")
    assert settings.candidates(parse("a.example/b")) == (parse("a.example/b"),)


def test_the_variable_gives_short_names_a_registry(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, TESTBED_REGISTRY="http://mirror.example:5000/all")
    expected = [parse(f"mirror.example:5000/all/{name}") for name in ("redis:7", "library/redis:7")]
    assert [*settings.candidates(parse("redis:7"))] == expected
    assert [*settings.candidates(parse("a/redis"))] == [parse("mirror.example:5000/all/a/redis")]
    assert [source.only_plain for source in settings.sources(expected[0])] == [True]
    assert [source.plain for source in settings.sources(parse("other.example/a"))] == [False]


@pytest.mark.parametrize("text", ["ftp://a", "a b", "mirror.example/A", "mirror.example/../a", "/a", "https://"])
def test_a_malformed_variable_is_refused(tmp_path: Path, text: str) -> None:
    if text == "https://":
        assert settings_of(tmp_path, TESTBED_REGISTRY=text).default == ""
        return
    with pytest.raises(UsageError, match="TESTBED_REGISTRY"):
        settings_of(tmp_path, TESTBED_REGISTRY=text)


def test_registries_are_searched_and_aliases_come_before(tmp_path: Path) -> None:
    text = """
unqualified-search-registries = ["one.example", "two.example:5000"]
[aliases]
"web" = "three.example/team/web"
"""
    settings = settings_of(tmp_path, text)
    expected = ["one.example/a:1", "one.example/library/a:1", "two.example:5000/a:1", "two.example:5000/library/a:1"]
    assert [str(one) for one in settings.candidates(parse("a:1"))] == expected
    assert [str(one) for one in settings.candidates(parse("web:2"))] == ["three.example/team/web:2"]
    forced = settings_of(tmp_path, text, TESTBED_REGISTRY="four.example")
    assert str(forced.candidates(parse("web:2"))[0]) == "four.example/web:2"


REGISTRIES = """
[[registry]]
prefix = "a.example"
location = "b.example:5000/copy"
[[registry]]
prefix = "a.example/team"
insecure = true
location = "c.example"
[[registry.mirror]]
location = "m1.example/x"
insecure = true
[[registry.mirror]]
location = "m2.example"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "*.wild.example"
blocked = true
[[registry]]
location = "same.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m3.example"
"""


def test_the_longest_prefix_decides(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, REGISTRIES)
    digest = "sha256:" + "0" * 64
    assert asked(settings, "a.example/x:1") == ["b.example:5000/copy/x:1"]
    assert asked(settings, "a.example/teamwork:1") == ["b.example:5000/copy/teamwork:1"]
    assert asked(settings, "a.example/team/x:1") == ["m1.example/x/x:1", "c.example/x:1"]
    expected = [f"m1.example/x/x@{digest}", f"m2.example/x@{digest}", f"c.example/x@{digest}"]
    assert asked(settings, f"a.example/team/x@{digest}") == expected
    assert asked(settings, "same.example/x:1") == ["same.example/x:1"]
    assert asked(settings, f"same.example/x@{digest}") == [f"m3.example/x@{digest}", f"same.example/x@{digest}"]
    assert asked(settings, "a.example.org/x:1") == ["a.example.org/x:1"]
    assert [source.plain for source in settings.sources(parse("a.example/team/x"))] == [True, True]
    with pytest.raises(UsageError, match="blocked"):
        settings.sources(parse("very.wild.example/x"))


@pytest.mark.parametrize(
    "text",
    ["[", "registry = 1", "[[registry]]", "[[registry]]\nlocation = 'a b'", "[aliases]\na = 'b'", "x = " + "[" * 9999],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"read .*registries\.conf: ") as caught:
        settings_of(tmp_path, text)
    assert "\n" not in caught.value.message


def test_later_files_override_earlier_ones(tmp_path: Path) -> None:
    own = tmp_path / ".config" / "containers"
    (own / "registries.conf.d").mkdir(parents=True)
    (own / "registries.conf").write_text('unqualified-search-registries = ["one.example"]')
    (own / "registries.conf.d" / "zz.conf").write_text('unqualified-search-registries = ["two.example"]')
    settings = load({"HOME": str(tmp_path)})
    assert settings.searched == ("two.example",)
    assert settings.files[0] == own / "registries.conf" and settings.files[-1].name == "zz.conf"
