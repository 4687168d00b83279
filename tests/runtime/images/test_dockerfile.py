"""What the parser understands, and how it says what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import UsageError
from runtime.images.dockerfile import Instruction, parse, read


def only(text: str) -> Instruction:
    return parse(f"FROM base\n{text}").instructions[1]


def test_lines_comments_and_continuations() -> None:
    text = "# a comment\nFROM base\n\nRUN one && \\\n  # in between\n\n  two \\  \n  three\nUSER x\n"
    instructions = parse(text).instructions
    assert [(entry.name, entry.line) for entry in instructions] == [("FROM", 2), ("RUN", 4), ("USER", 9)]
    assert instructions[1].text.split() == ["one", "&&", "two", "three"]


def test_a_hash_inside_a_line_is_no_comment() -> None:
    assert only("RUN echo '#'").words[2] == "echo '#'"


def test_exec_and_shell_forms() -> None:
    assert only('CMD ["a", "b c"]').words == ("a", "b c")
    assert only("CMD a b").words == ("/bin/sh", "-c", "a b")
    assert only("RUN [ -d /x ] || true").words == ("/bin/sh", "-c", "[ -d /x ] || true")
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
        ("FROM base\nFOO bar\n", 2, "unknown instruction FOO; known: ARG, CMD, COPY, ENTRYPOINT"),
        ("FROM base\n\nRUN a \\\n b\nVOLUME /x\n", 5, "unknown instruction VOLUME"),
        ("RUN x\n", 1, "RUN before FROM"),
        ("# nothing\n", 1, "no FROM"),
        ("FROM a\nFROM b\n", 2, "second FROM"),
        ("FROM a b\n", 1, "takes one image"),
        ("FROM base\nCOPY x\n", 2, "at least one source"),
        ("FROM base\nCOPY --from=a x y\n", 2, "unknown flag --from; known: --chown, --chmod"),
        ("FROM base\nRUN\n", 2, "RUN needs an argument"),
        ("FROM base\nRUN []\n", 2, "empty"),
        ("FROM base\nRUN cat <<EOF\nx\nEOF\n", 2, "here-documents"),
        ("FROM base\nENV A\n", 2, "no value"),
        ("FROM base\nENV A=1 B\n", 2, "'B' is not NAME=value"),
        ('FROM base\nENV A="1\n', 2, "not closed"),
        ("FROM base\nLABEL a\n", 2, "not key=value"),
    ],
)
def test_errors_name_file_and_line(text: str, line: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, Path("web/Dockerfile"))
    assert caught.value.message.startswith(f"web/Dockerfile:{line}: ")
    assert message in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "Dockerfile")
