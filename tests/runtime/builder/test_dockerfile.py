"""What the parser understands, and how it says what it does not."""

from __future__ import annotations

import contextlib
import os
import random
import time
from pathlib import Path

import pytest

from runtime.builder.dockerfile import parse, read
from runtime.builder.instruction import Instruction
from runtime.builder.words import expand
from runtime.errors import UsageError


def only(text: str) -> Instruction:
    return parse(f"FROM base\n{text}").instructions[1]


def test_lines_comments_and_continuations() -> None:
    text = "# a comment\nFROM base\n\nRUN one && \\\n  # in between\n\n  two \\  \n  three\nUSER x\n"
    instructions = parse(text).instructions
    assert [(entry.name, entry.line) for entry in instructions] == [("FROM", 2), ("RUN", 4), ("USER", 9)]
    assert instructions[1].text.split() == ["one", "&&", "two", "three"]


def test_a_hash_inside_a_line_is_no_comment() -> None:
    assert only("RUN echo '#'").words == ("echo '#'",)


def test_exec_and_shell_forms() -> None:
    assert only('CMD ["a", "b c"]').words == ("a", "b c")
    assert only("CMD a b").words == ("a b",)
    assert only("RUN [ -d /x ] || true").words == ("[ -d /x ] || true",)
    assert only('ENTRYPOINT ["x"]').exec_form and not only("ENTRYPOINT x").exec_form


def test_names_are_not_case_sensitive() -> None:
    assert only("user alice").name == "USER"


def test_both_forms_of_env() -> None:
    assert only('ENV A=1 B="x y"').pairs == (("A", "1"), ("B", '"x y"'))
    assert only("ENV A one two").pairs == (("A", "one two"),)


def test_arg_with_and_without_a_default() -> None:
    assert only("ARG A=1 B").pairs == (("A", "1"), ("B", None))


def test_flags_of_copy() -> None:
    entry = only("COPY --chown=a:b --chmod=750 x y /z/")
    assert dict(entry.flags) == {"chown": "a:b", "chmod": "750"}
    assert entry.words == ("x", "y", "/z/")
    assert str(entry) == "COPY --chown=a:b --chmod=750 x y /z/"


def test_arg_may_come_before_from() -> None:
    assert [entry.name for entry in parse("ARG A=1\nFROM $A").instructions] == ["ARG", "FROM"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM base\nFOO bar\n", 2, "unknown instruction FOO; known: ADD, ARG, CMD, COPY, ENTRYPOINT"),
        ("FROM base\n\nRUN a \\\n b\nMOUNT /x\n", 5, "unknown instruction MOUNT"),
        ("RUN x\n", 1, "RUN before FROM"),
        ("# nothing\n", 1, "no FROM"),
        ("FROM a AS 1b\n", 1, "'1b' is no name of a stage"),
        ("FROM a b\n", 1, "takes one image"),
        ("FROM base\nCOPY x\n", 2, "at least one source"),
        ("FROM base\nCOPY --form=a x y\n", 2, "unknown flag --form; known: --from, --chown, --chmod"),
        ("FROM base\nRUN\n", 2, "RUN: needs an argument"),
        ("FROM base\nRUN []\n", 2, "empty"),
        ("FROM base\n\nRUN cat <<EOF\nx\n", 3, "the here-document EOF is not ended"),
        ("FROM base\nENV A\n", 2, "no value"),
        ("FROM base\nENV A=1 B\n", 2, "'B' is not NAME=value"),
        ('FROM base\nENV A="1\n', 2, "not closed"),
        ("FROM base\nLABEL a\n", 2, "a has no value"),
        ("FROM base\nENV =x\n", 2, "'=x' is not NAME=value"),
        ("FROM base\nARG =x\n", 2, "'=x' is not NAME=value"),
        ("FROM base\nARG \\\n", 2, "ARG: needs an argument"),
        ('FROM base\nARG A="x\n', 2, "not closed"),
        ("FROM base\nCOPY --chown x /y\n", 2, "--chown needs a value"),
        ("FROM base\nCOPY --chown=a --chown=b x /y\n", 2, "--chown is there twice"),
        ("FROM base\nCOPY --Link x /y\n", 2, "unknown flag --Link"),
        ('FROM base\nRUN ["a", 1]\n', 2, "only strings"),
        ('FROM base\nCMD ["a", null]\n', 2, "only strings"),
        ('FROM base\nCOPY ["a", ["b"]]\n', 2, "only strings"),
        ('FROM base\nCMD ["a\\u0000b"]\n', 2, "no text that a process"),
        ('FROM base\nCMD ["\\ud800"]\n', 2, "no text that a process"),
        ("FROM base\nCOPY /x <<EOF\nx\nEOF\n", 2, "the destination is a here-document"),
        ("FROM base\nRUN sh 3<<-'END' # x\n", 2, "the here-document END is not ended"),
        ("FROM base\nRUN cat <<EOF\n\0\nEOF\n", 3, "a NUL character"),
        ("FROM base\nCOPY --link=maybe x /y\n", 2, "--link is true or false"),
        ("FROM base\nSHELL /bin/sh -c\n", 2, "takes a JSON array"),
        ("FROM base\nSHELL []\n", 2, "takes a JSON array"),
        ("FROM base\nONBUILD FROM x\n", 2, "FROM may not be triggered"),
        ("FROM base\nONBUILD ONBUILD RUN x\n", 2, "ONBUILD may not be triggered"),
        ("FROM base\nONBUILD MOUNT x\n", 2, "ONBUILD: unknown instruction MOUNT"),
        ("FROM base\nHEALTHCHECK true\n", 2, "'true' is neither CMD nor NONE"),
        ("FROM base\nHEALTHCHECK NONE x\n", 2, "NONE takes nothing else"),
        ("FROM base\nHEALTHCHECK CMD\n", 2, "CMD has no command"),
        ("FROM base\nHEALTHCHECK --interval=5 CMD x\n", 2, "--interval: '5' is no duration"),
        ("FROM base\nHEALTHCHECK --timeout=5us CMD x\n", 2, "less than a millisecond"),
        ("FROM base\nHEALTHCHECK --retries=-1 CMD x\n", 2, "--retries=-1 is no number"),
        ('FROM base\nVOLUME ["/a", ""]\n', 2, "none of its paths may be empty"),
        ("# escape=x\nFROM base\n", 1, "escape is 'x'; it can be"),
        ("# escape=`\n# syntax=a\n# ESCAPE=`\n", 3, "escape is there twice"),
        ("FROM base\nRUN a\\\n b\0c\n", 3, "a NUL character"),
        ("FROM base\nRUN a\\\n b\udcffc\n", 3, "byte 0xff is not UTF-8"),
    ],
)
def test_errors_name_file_and_line(text: str, line: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, Path("web/Dockerfile"))
    assert caught.value.message.startswith(f"web/Dockerfile:{line}: ")
    assert message in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "Dockerfile", tmp_path)


@pytest.mark.parametrize(
    ("text", "instructions"),
    [
        # An escape character that is itself escaped continues nothing; three are read as BuildKit reads them.
        ("ENV A=b\\\\\nENV C=d", ["ENV A=b\\\\", "ENV C=d"]),
        ("RUN a \\\\\\\nUSER b", ["RUN a \\\\\\", "USER b"]),
        ("RUN a \\ \t\n  b", ["RUN a   b"]),
        ("\\\nUSER a", ["USER a"]),
        ("USER a \\", ["USER a"]),
        ("USER a\\\n\n# c\n  # d\nb", ["USER ab"]),
        ("USER\ta", ["USER a"]),
        ("\t user \t a \t", ["USER a"]),
        ("RUN a \\\r\n b\r\nUSER c\r\n", ["RUN a  b", "USER c"]),
        ("RUN a\u2028b\x0bc\x0cd\x85e\x1cf\rg", ["RUN a\u2028b\x0bc\x0cd\x85e\x1cf\rg"]),
    ],
)
def test_where_lines_and_instructions_end(text: str, instructions: list[str]) -> None:
    assert [str(entry) for entry in parse(f"FROM base\n{text}").instructions[1:]] == instructions


@pytest.mark.parametrize(
    ("head", "escape"),
    [
        ("# escape=`\n", "`"),
        ("#escape = ` \r\n", "`"),
        ("\ufeff  # Syntax=docker/dockerfile:1\n# ESCAPE=`\n", "`"),
        ("# escape=\\\n", "\\"),
        ("# a comment\n# escape=`\n", "\\"),
        ("\n# escape=`\n", "\\"),
        ("# other=1\n# escape=`\n", "\\"),
        ("# escape=\n# escape=`\n", "\\"),
        ("ARG A\n# escape=`\n", "\\"),
        ("#" + " " * 100_000 + "escape" + " " * 100_000 + "=`\n", "`"),
    ],
)
def test_directives_come_first_or_are_comments(head: str, escape: str) -> None:
    file = parse(f"{head}FROM base\nRUN a {escape}\n b\n")
    assert file.escape == escape
    assert file.instructions[-1].text == "a  b"


def test_another_escape_character_holds_everywhere() -> None:
    entry = parse("# escape=`\nFROM base\nENV A=C:\\ B=x` y\n").instructions[1]
    assert entry.pairs == (("A", "C:\\"), ("B", "x` y"))


def test_the_old_form_takes_the_rest_of_the_line() -> None:
    assert only("LABEL name  a value").pairs == (("name", "a value"),)
    assert only("LABEL\tname\tvalue=x").pairs == (("name", "value=x"),)
    assert only('ENV A "b  c"').pairs == (("A", '"b  c"'),)


def test_what_is_not_json_is_the_shells() -> None:
    for text in ('["a"] b', "['a']", '["a",]', "[NaN]", "[" * 100_000):
        entry = only(f"RUN {text}")
        assert (entry.words, entry.exec_form) == ((text,), False)
    assert only('COPY ["a"] /b').words == ('["a"]', "/b")
    assert only('EXPOSE ["80"]').words == ('["80"]',)


def test_arithmetic_is_no_here_document() -> None:
    for text in ("echo $((1<<2))", "x=a<<b", "cat <<<word", "echo '<<EOF'", "a << b", "a <<-"):
        assert not only(f"RUN {text}").exec_form


def test_two_dashes_end_the_flags() -> None:
    assert only("COPY --chmod=644 -- --x /y").words == ("--x", "/y")


def test_bytes_that_are_not_utf8_may_be_in_comments(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_bytes(b"\xef\xbb\xbf# caf\xe9\nFROM base\nRUN a \\\n # \xe9\n b\n")
    assert len(read(path, tmp_path).instructions) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"FROM base\nRUN \xe9\n", ":2: byte 0xe9 is not UTF-8"),
        ("FROM base\n".encode("utf-16"), "is UTF-16"),
        (b"\0" * 9, ":1: a NUL character"),
        (b"#" * (2**20 + 1), "longer than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_text(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read(path, tmp_path)


def test_a_file_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "a named pipe"),
        (tmp_path, "a directory"),
        (Path("/dev/zero"), "a device"),
    ):
        with pytest.raises(UsageError, match=message):
            read(path, tmp_path)


def test_a_link_may_not_lead_out_of_the_context(tmp_path: Path) -> None:
    secret, context = tmp_path / "secret", tmp_path / "context"
    secret.mkdir()
    (secret / "shadow").write_text("root:$y$password:1::\n")
    context.mkdir()
    (context / "inside").write_text("FROM base\n")
    (context / "Dockerfile").symlink_to("inside")
    assert read(context / "Dockerfile", context).instructions[0].name == "FROM"
    (context / "out").symlink_to("../secret/shadow")
    (context / "folder").symlink_to("../secret")
    (context / "loop").symlink_to("loop")
    (context / "nowhere").symlink_to("absent")
    for name in ("out", "folder/shadow", "loop", "nowhere"):
        with pytest.raises(UsageError, match="a link that leads") as caught:
            read(context / name, context)
        assert "password" not in str(caught.value)


def test_time_grows_as_the_text_does() -> None:
    began = time.monotonic()
    many = "".join(f"ENV A{number}=1\n" for number in range(60_000))
    assert len(parse(f"FROM base\n{many}").instructions) == 60_001
    parse("FROM base\nRUN " + "a \\\n" * 200_000)
    parse("FROM base\nRUN " + "--mount=target=/x " * 50_000 + "true")
    with pytest.raises(UsageError, match="ONBUILD may not be triggered"):
        parse("FROM base\n" + "ONBUILD " * 100_000)
    with pytest.raises(UsageError, match="the here-document a is not ended"):
        parse("FROM base\nRUN cat" + " <<a" * 200_000)
    assert time.monotonic() - began < 10


def test_any_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """Pieces that mean something, put anywhere in a real Dockerfile: an answer, and no other error."""
    seed = (Path(__file__).parents[3] / "scenarios/clickme/web/Dockerfile").read_bytes()
    pieces = (
        *(b"\\\n", b"\\\\", b"`", b"${", b":-", b"}", b"'", b'"', b"[", b"]", b",", b"--", b"=", b"\t", b"\r\n", b"\0"),
        *(b"\xff", b"\xe2\x80\xa8", b" <<EOF", b"\nFROM ", b"\nENV ", b"\nCOPY ", b"\nRUN ", b"#", b"9" * 30, b"\n"),
    )
    generator = random.Random(1)
    path = tmp_path / "Dockerfile"
    for _ in range(1500):
        content = bytearray(b"# escape=`\n" * generator.randrange(2) + seed)
        for _ in range(generator.randrange(1, 6)):
            at = generator.randrange(len(content))
            content[at : at + generator.randrange(4)] = generator.choice(pieces) * generator.choice((1, 1, 50))
        path.write_bytes(content)
        try:
            file = read(path, tmp_path)
        except UsageError as error:
            assert error.message.startswith(f"{path}:") or "read" in error.message
            continue
        for text in (text for entry in file.instructions for _, text in entry.pairs if text):
            with contextlib.suppress(ValueError):
                expand(text, {}, file.escape)
