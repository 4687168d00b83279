"""AUFS's words: what they mean, what is refused, and that hostile ones end in time."""

from __future__ import annotations

import time

import pytest

from runtime.errors import UsageError
from runtime.unionfs.branches import Branch, Union, add, delete, modify, parse_union


def paths(union: Union) -> str:
    return " ".join(f"{one.path}={one.permission}" for one in union.branches)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("br:/a=rw:/b=ro", "/a=rw /b=ro"),
        ("br=/a:/b:/c", "/a=rw /b=ro /c=ro"),
        ("dirs:/a=ro:/b=rr:/c=ro+wh", "/a=ro /b=ro /c=ro"),
        (r"br:/a\:b=rw:/c\,d=ro", "/a:b=rw /c,d=ro"),
        ("br:/with=sign/x:/b", "/with=sign/x=rw /b=ro"),
        ("br:/a/../b/=rw", "/b=rw"),
    ],
)
def test_words_of_aufs(words: str, meant: str) -> None:
    assert paths(parse_union(words)) == meant


def test_what_is_printed_can_be_read_again() -> None:
    for words in ("br:/a=rw:/b=ro", "br:/a=rw:/b=rw:/c=ro,create=pmfs", r"br:/a\:b=rw:/c\\d=ro"):
        assert str(parse_union(words)) == words and parse_union(str(parse_union(words))) == parse_union(words)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("/a=rw:/b=ro", "does not begin with br:"),
        ("br:", "no branch"),
        ("br:/a=xx", "no permission xx"),
        ("br:/a=rw,udba=reval", "udba=reval: it is not understood"),
        ("br:/a=rw,create=rr", "create=rr: it is not understood"),
        ("br:/a=ro:/b=rw", "writable branch /b lies below the read-only /a"),
        ("br:/a:/a", "/a occurs twice"),
        ("br:=rw", "names no directory"),
        ("br:/a\0b=rw", "names no directory"),
        ("br:/a\udcff=rw", "is not UTF-8"),
    ],
)
def test_other_words_are_refused(words: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_union(words)


def test_branches_come_go_and_change() -> None:
    union = parse_union("br:/a=rw:/b=ro")
    assert paths(add(union, "/c")) == "/a=rw /b=ro /c=ro"
    assert paths(add(union, "append:/c=ro")) == "/a=rw /b=ro /c=ro"
    assert paths(add(union, "prepend:/c=rw")) == "/c=rw /a=rw /b=ro"
    assert paths(add(union, "add:1:/c=ro")) == paths(add(union, "1:/c")) == "/a=rw /c=ro /b=ro"
    assert paths(delete(union, "del:/a")) == paths(delete(union, "/a/")) == "/b=ro"
    assert paths(modify(union, "mod:/a=ro")) == paths(modify(union, "/a=rr")) == "/a=ro /b=ro"
    assert add(parse_union("br:/a=rw,create=mfs"), "1:/b=rw").policy == "mfs"


@pytest.mark.parametrize(
    ("change", "words", "problem"),
    [
        (add, "7:/c", "the union has 2 branches"),
        (add, "0:/c", "lies below the read-only /c"),
        (add, "/a", "occurs twice"),
        (delete, "/c", "no branch /c"),
        (modify, "/a", "to which permission"),
        (modify, "/b=rw+x", "to which permission"),
    ],
)
def test_changes_that_make_no_union_are_refused(change: object, words: str, problem: str) -> None:
    assert callable(change)
    with pytest.raises(UsageError, match=problem):
        change(parse_union("br:/a=rw:/b=ro"), words)


def test_the_last_branch_stays() -> None:
    with pytest.raises(UsageError, match="shows nothing"):
        delete(Union((Branch("/a", "rw"),)), "/a")


def test_very_many_words_end_in_time() -> None:
    began_s = time.monotonic()
    with pytest.raises(UsageError, match="40000 branches"):
        parse_union("br:/top=rw:" + ":".join(f"/{number}" for number in range(39_999)))
    assert len(parse_union("br:" + "\\" * 1_000_000).branches) == 1
    assert time.monotonic() - began_s < 5
