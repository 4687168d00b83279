"""What the probes' program prints is read as what may be anything."""

from __future__ import annotations

from testbed.probes.lines import Trace, parse_lines

NAMES = ("files-a", "files-b", "files-c", "files-d")


def test_lines_say_how_far_each_attempt_came() -> None:
    text = (
        "begin files-a\nend files-a EPERM -\nbegin files-b\nend files-b - got_it\nbegin files-c\nhang files-c\n"
        "begin files-d\ncrash files-d 11\ndone 0123abcd\n"
    )
    printed = parse_lines(text, NAMES, "0123abcd")
    assert printed.done and printed.traces == {
        "files-a": Trace("files-a", "ended", "EPERM"),
        "files-b": Trace("files-b", "ended", "", "got_it"),
        "files-c": Trace("files-c", "hung"),
        "files-d": Trace("files-d", "crashed", signal=11),
    }


def test_a_console_has_other_lines_and_carriage_returns() -> None:
    printed = parse_lines("[    1.0] booting\r\n[ 2.1] begin files-a\r\ncut end files-a - x\r\n", NAMES, "0123abcd")
    assert printed.traces["files-a"] == Trace("files-a", "ended", "", "x") and not printed.done


def test_what_does_not_fit_is_nothing() -> None:
    text = (
        "begin other\nend files-a EPERM\nend files-a nothing x\ndone ffffffff\n\0\nend files-b - " + "x" * 5000 + "\n"
    )
    printed = parse_lines(text, NAMES, "0123abcd")
    assert printed.traces == {} and not printed.done


def test_the_first_end_counts() -> None:
    printed = parse_lines(
        "begin files-a\nend files-a EPERM -\nend files-a - secret\nbegin files-a\n", NAMES, "0123abcd"
    )
    assert printed.traces["files-a"].errno == "EPERM"
