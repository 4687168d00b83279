"""Files of variables, in Compose's format and without any."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runtime.errors import UsageError
from testbed.compose.dotenv import read_variables

FILE = r"""# a comment
A=1
B = two words   # a comment
export C=exported
D: yaml style
E="double \"quoted\" $A ${NONE:-d} \$A \n."
F='single $A \n it'
G=
H="a
b"
I=a#b
J=${A}/${E2-x}
K
L
 M=indented
N=it's
"""


def test_the_format(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(FILE)
    read = read_variables(tmp_path / ".env", {"K": "environment's", "A": "outer"})
    assert read["A"] == "1" and read["B"] == "two words" and read["C"] == "exported" and read["D"] == "yaml style"
    assert read["E"] == 'double "quoted" outer d $A \n.', "the environment comes first"
    assert read["F"] == "single $A \\n it"
    assert (read["G"], read["H"], read["I"], read["J"]) == ("", "a\nb", "a#b", "outer/x")
    assert read["K"] == "environment's" and "L" not in read
    assert (read["M"], read["N"]) == ("indented", "it's")


def test_without_a_format_what_follows_is_the_value(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("# c\nA='1' # x\nB=$A\\n\nC\nD=\n")
    assert read_variables(tmp_path / "raw", {"C": "c"}, raw=True) == {"A": "'1' # x", "B": "$A\\n", "C": "c", "D": ""}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A=1\nB C=2\n", ":2: 'B C=2' is no variable"),
        (b"A=1\n=2\n", ":2: '=2' is no variable"),
        (b'A="1\n', ":1: a quotation mark without its end"),
        (b"A='1' x\n", ":1: something after the quotation mark"),
        (b"A=1\nB=${\n", ":2: B has '"),
        (b"A=\xff\n", ":1: byte 0xff is not UTF-8"),
        (b"A=\0\n", ":1: has a NUL character"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_variables(tmp_path / ".env", {})
    assert str(caught.value).startswith(f"{tmp_path}/.env{message}")


@pytest.mark.parametrize("line", ["A=$A\n", "A='x'\n", "   \n", "#\n", "A\n"])
def test_a_long_file_takes_time_in_proportion(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(line * (300_000 // len(line)))
    began_s = time.process_time()
    read_variables(tmp_path / ".env", {"A": "b"})
    assert time.process_time() - began_s < 5
