"""The command line's options, with and without argparse."""

from __future__ import annotations

import pytest

from runtime.oci.arguments import parsed, parser, plain

ENGINES = [
    "create --bundle /b --pid-file /p ID",
    "--log /l --log-format json create -b /b ID",
    "--root=/r --systemd-cgroup --log=/l --log-format=json create --console-socket=/c --preserve-fds 3 ID",
    "--cgroup-manager cgroupfs --rootless=auto create --no-pivot --no-new-keyring ID",
    "exec --pid-file /p --process /q --detach ID",
    "exec -p /q --console-socket /c -d -t ID",
    "exec --cwd /w --user 1:2 --no-new-privs ID cmd --flag -d",
    "create --config c.json --pidfd-socket /p --no-subreaper ID",
    "create -f c.json ID",
    "exec --apparmor a --process-label l --pidfd-socket /p --ignore-paused ID cmd",
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
    "exec --cgroup sub ID cmd",
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


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("-1", -1), ("1000", 1000), ("64m", 64 << 20), ("64MB", 64 << 20), ("1.5 GiB", 3 << 29), ("2k", 2048)],
)
def test_sizes_are_read_as_runc_reads_them(text: str, size: int) -> None:
    assert parsed(["update", "--memory", text, "ID"]).memory == size


@pytest.mark.parametrize("text", ["", "m", "-2", "-1m", "1e3", "1x", "0x10", "٣", "1mm", "nan"])
def test_what_is_no_size_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["update", f"--memory={text}", "ID"])
    assert "is not a size" in capsys.readouterr().err


def test_what_is_wrong_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(["create", "--nonsense", "ID"])
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err
