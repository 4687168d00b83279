"""The command line's options, with and without argparse."""

from __future__ import annotations

import pytest

from runtime.arguments import parsed, parser, plain

ENGINES = [
    "create --bundle /b --pid-file /p ID",
    "--log /l --log-format json create -b /b ID",
    "--root=/r --systemd-cgroup --log=/l --log-format=json create --console-socket=/c --preserve-fds 3 ID",
    "--cgroup-manager cgroupfs --rootless=auto create --no-pivot --no-new-keyring ID",
    "exec --pid-file /p --process /q --detach ID",
    "exec -p /q --console-socket /c -d -t ID",
    "exec --cwd /w --user 1:2 --no-new-privs ID cmd --flag -d",
]
OTHERS = [
    "create",
    "create ID more",
    "create ID --pid-file /p",
    "create --preserve-fds x ID",
    "create --preserve-fds -1 ID",
    "create --pid-file --no-pivot ID",
    "create --no-pivot=yes ID",
    "create -- ID",
    "--log-format xml create ID",
    "--explain create ID",
    "--debug create ID",
    "exec --env A=b ID cmd",
    "exec --help",
    "exec ID -- cmd",
    "state ID",
    "--root",
    "",
]


@pytest.mark.parametrize("line", ENGINES)
def test_what_engines_write_is_read_as_argparse_reads_it(line: str) -> None:
    words = line.split()
    read = plain(words)
    assert read is not None and vars(read) == vars(parser().parse_args(words))


@pytest.mark.parametrize("line", OTHERS)
def test_all_else_is_argparses(line: str) -> None:
    assert plain(line.split()) is None


def test_what_is_wrong_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["create", "--nonsense", "ID"])
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err
