"""By what the last command of a build that failed said, its reason is told."""

from __future__ import annotations

import pytest

from benchmarks.dockerfile_reasons import ALPINE, FILES, HOST, OTHER, PROGRAM, RELEASE, TIME, explain


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("no end within 180 s", TIME),
        ("x:3: RUN apk add --no-cache bash: exit status 127\n    /bin/sh: 1: apk: not found", ALPINE),
        ("x:3: RUN adduser -S app: exit status 1\n    adduser: Unknown option: S", ALPINE),
        ("x:19: RUN curl -O -s https://a/b && tar x: exit status 6", HOST),
        ("fatal: unable to access 'https://a/b.git/': Could not resolve host: a", HOST),
        ("E: Package 'python' has no installation candidate", RELEASE),
        ("sed: can't read /etc/apt/sources.list: No such file or directory", RELEASE),
        ('npm ERR! Missing script: "build"', FILES),
        ("chmod: cannot access 'test': No such file or directory", FILES),
        ("/bin/sh: 1: poetry: not found", PROGRAM),
        ("COPY a.txt: an error of ours", OTHER),
    ],
)
def test_a_reason_is_told_by_its_marks(message: str, reason: str) -> None:
    assert explain(message) == reason
