"""What a workload writes stays within bounds, and does not reach a terminal as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime.output import QUOTED_CHARACTERS, BoundedLog, last_lines, printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, übersetzt: 日本\tand\nlines", "plain, übersetzt: 日本\tand\nlines"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;aGk=\nnext", "\nnext"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x1bc\x1b(0\x1b#8reset", "reset"),
        ("\x9b2Jc1\x9d0;t\x9c", "c1"),
        ("over\rwritten\x08\x7f\x00", "overwritten"),
        ("\u202egnp.exe\u2028\u200b", "gnp.exe"),
        ("cut \x1b[3", "cut "),
        ("\udc9b", ""),
        ("\x1b", ""),
    ],
)
def test_what_a_terminal_would_obey_is_taken_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_no_control_character_passes() -> None:
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        assert set(printable(f"a{chr(code)}b{chr(code)}\n")) <= set("ab\n\t"), hex(code)


def test_a_quoted_line_is_cut() -> None:
    assert shortened("x" * 10_000_000) == "x" * QUOTED_CHARACTERS + " ..."
    assert shortened("x" * QUOTED_CHARACTERS) == "x" * QUOTED_CHARACTERS


@pytest.mark.parametrize("piece", [b"0123456789abcdef", b"fifteen letters\n", b"\0" * 1000, b"one\n" * 2000])
def test_a_log_has_the_beginning_the_end_and_the_number_of_what_lacks(piece: bytes, tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", head=1000, tail=2000)
    written = b""
    for number in range(200):
        part = b"%d:" % number + piece
        log.write(part)
        written += part
        assert (tmp_path / "log").stat().st_size <= 1000 + 2 * 2000 + 100
    log.close()
    text = (tmp_path / "log").read_bytes()
    if len(written) <= 3000:
        assert text == written and not log.dropped
        return
    assert text.startswith(written[:1000]) and len(text) <= 3100
    (said,) = re.findall(rb"\n\[\.\.\. (\d+) bytes are not stored here \.\.\.\]\n", text)
    end = text.partition(b" bytes are not stored here ...]\n")[2]
    assert written.endswith(end) and len(end) > 900
    assert int(said) == log.dropped == len(written) - 1000 - len(end)


def test_what_a_file_has_already_counts(tmp_path: Path) -> None:
    for _ in range(50):
        log = BoundedLog(tmp_path / "log", head=100, tail=100)
        log.write(b"x" * 90)
        log.close()
        log.close()
    assert (tmp_path / "log").stat().st_size < 400


def test_the_last_lines_of_a_file_of_any_size(tmp_path: Path) -> None:
    file = tmp_path / "log"
    assert last_lines(file) == []
    file.write_text("")
    assert last_lines(file) == []
    file.write_text("one\n\n\x1b[1mtwo\r\nhalf")
    assert last_lines(file) == ["one", "", "two", "half"]
    with file.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse
        stream.seek(0, 2)
        stream.write(b"\nend\n")
    *_, long, end = last_lines(file)
    assert (long, end) == ("", "end")
    file.write_bytes(b"y" * (1 << 22))
    assert last_lines(file) == ["y" * QUOTED_CHARACTERS + " ..."]
