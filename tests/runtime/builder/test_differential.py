"""The parser set against an independent one (``benchmarks/independent_parser.py``), instruction by instruction.

The files in ``dockerfiles/`` were written for this; random ones are put together of pieces that mean something.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.independent_parser import as_theirs, read_by_theirs
from runtime.builder.dockerfile import parse
from runtime.errors import UsageError

CORPUS = sorted((Path(__file__).parent / "dockerfiles").glob("*.dockerfile"))
REPOSITORY = Path(__file__).parents[3]
OWN = sorted((*REPOSITORY.glob("scenarios/*/*/Dockerfile"), *REPOSITORY.glob("vm_images/*.dockerfile")))


@pytest.mark.parametrize("path", [*CORPUS, *OWN], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_are_read_as_buildkit_reads_them(path: Path) -> None:
    text = path.read_text()
    ours = parse(text, path).instructions
    assert [as_theirs(entry) for entry in ours] == read_by_theirs(text)


# An array ends its line: in the package's release of the parser, but not in later ones, anything may follow it.
PIECES = (
    *("\\\n", "\\ \n", "`\n", "\n", "\n", "\n\n", "\n# comment\n", "\n  # indented\n", "\t", " ", "  ", "=", ":", ","),
    *(
        '"q r"',
        "'s t'",
        '["a", "b c"]\n',
        "[",
        "$A",
        "${A:-b}",
        "\\\\",
        "x",
        "y z",
        "/srv",
        "a=b ",
        'c="d e" ',
        "f=g\\ h ",
    ),
    *("<<EOF\n", " <<-EOF\n", ' <<"EOF" /x\n', "EOF\n", "EOF\n", "\tEOF\n", "<<<", "1<<2", "u v", "w z"),
    *("\nRUN ", "\nCOPY a b", "\nCOPY --from=x --link ", "\nENV a=b ", "\nARG k=", "\nLABEL l=", "\nCMD ", "\nUSER u"),
    *("\nADD --chown=a:b ", "\nADD -- x ", "\nEXPOSE 80 ", "\nVOLUME /v ", "\nVOLUME ", "\nONBUILD RUN x", "\nFROM a"),
    *("\nHEALTHCHECK CMD x", "\nHEALTHCHECK --retries=3 CMD ", "\nFROM a AS b", "\nSHELL ", "\nWORKDIR /x", "\r\n"),
    *(
        "\nSTOPSIGNAL 9",
        "\nMAINTAINER me ",
        "\nENTRYPOINT ",
        "\nrun x",
        "\n   RUN\tx",
        "\nRUN --mount=type=cache,target=/a b",
    ),
)


def test_random_files_are_read_alike_or_refused() -> None:
    """We may refuse more, for their parser leaves much to the builder; what we read, it reads, and alike."""
    generator = random.Random(5)
    read = 0
    for _ in range(4000):
        head = generator.choice(("", "", "# escape=`\n", "# syntax=docker/dockerfile:1\n"))
        text = f"{head}FROM base\n" + "".join(generator.choices(PIECES, k=generator.randrange(1, 9)))
        try:
            ours = parse(text).instructions
        except UsageError:
            continue
        read += 1
        assert [as_theirs(entry) for entry in ours] == read_by_theirs(text), text
    assert read > 700, "the pieces make too few files that can be read"
