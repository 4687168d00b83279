from __future__ import annotations

import time

import pytest

from runtime.errors import UsageError
from runtime.registry.references import Reference, parse

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis", Reference("", "redis", "latest")),
        ("bitnami/redis:7", Reference("", "bitnami/redis", "7")),
        ("localhost/a:b", Reference("localhost", "a", "b")),
        ("localhost:5000/a", Reference("localhost:5000", "a", "latest")),
        ("example.org/a__b/c-d.e:V_1.2-x", Reference("example.org", "a__b/c-d.e", "V_1.2-x")),
        ("Host/a", Reference("Host", "a", "latest")),
        ("[::1]:5000/a/b", Reference("[::1]:5000", "a/b", "latest")),
        (f"example.org/a@{DIGEST}", Reference("example.org", "a", "", DIGEST)),
        (f"a:1@{DIGEST}", Reference("", "a", "1", DIGEST)),
        ("a---b/c", Reference("", "a---b/c", "latest")),
        ("a" * 255, Reference("", "a" * 255, "latest")),
    ],
)
def test_a_name_is_taken_apart(text: str, expected: Reference) -> None:
    assert parse(text) == expected
    assert parse(str(parse(text))) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":1",
            "a:",
            "a@",
            "/a",
            "a/",
            "a//b",
            "-a",
            "a.",
            "a..b",
            "a___b",
            "a/../b",
            "a/b:..%2f",
            "a b",
            "a\nb",
            "é",
        ),
        *("A", "example.org/A", "a:" + "b" * 129, "a:-b", "a@sha256:abc", f"a@{DIGEST.upper()}", "a@md5:" + "a" * 64),
        *(
            "example.org:0/a",
            "example.org:65536/a",
            "example.org:x/a",
            "exa_mple.org/a",
            "http://example.org/a",
            "[::1/a",
        ),
        *("a" * 256, "a" * 64, "a:b:c", "user@example.org/a", "example.org/a?b", "a/" * 2000 + "a"),
    ],
)
def test_what_is_no_name_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(UsageError, match="is not an image's name") as caught:
        parse(text)
    assert "\n" not in caught.value.message and len(caught.value.message) < 1000


def test_a_long_name_takes_no_time() -> None:
    began = time.process_time()
    for text in ("a-" * 500, "a" * 1024, "a." * 400 + "/b", "_" * 1000, "a/" * 500):
        with pytest.raises(UsageError):
            parse(text)
    assert time.process_time() - began < 0.5
