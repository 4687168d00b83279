"""The command line's options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runtime.oci.arguments import Said, parsed, parser

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
    "create ID --pid-file /p",
    "create --preserve-fds -1 ID",
    "create -- ID",
    "--explain create ID",
    "--debug create ID",
    "exec --env A=b ID cmd",
    "exec --cgroup sub ID cmd",
    "exec ID -- cmd",
    "state ID",
    "--root state state ID",
    "--log create delete --force ID",
]
MISTAKES = [
    "create",
    "create ID more",
    "create --preserve-fds x ID",
    "create --pid-file --no-pivot ID",
    "create --no-pivot=yes ID",
    "--log-format xml create ID",
    "exec --help",
    "--root",
    "--version",
    "nonsense ID",
    "",
]


def outcome(read: Callable[[list[str]], Any], words: list[str]) -> object:
    try:
        return vars(read(words))
    except Said as said:
        return said.status, said.descriptor, said.text


@pytest.mark.parametrize("line", [*ENGINES, *MISTAKES])
def test_one_commands_parser_reads_as_that_of_all_does(line: str) -> None:
    words = line.split()
    said = outcome(parsed, words)
    assert said == outcome(parser().parse_args, words)
    assert isinstance(said, dict) == (line in ENGINES)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("-1", -1), ("1000", 1000), ("64m", 64 << 20), ("64MB", 64 << 20), ("1.5 GiB", 3 << 29), ("2k", 2048)],
)
def test_sizes_are_read_as_runc_reads_them(text: str, size: int) -> None:
    assert parsed(["update", "--memory", text, "ID"]).memory == size


@pytest.mark.parametrize("text", ["", "m", "-2", "-1m", "1e3", "1x", "0x10", "٣", "1mm", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(Said, match="is not a size") as said:
        parsed(["update", f"--memory={text}", "ID"])
    assert (said.value.status, said.value.descriptor) == (2, 2)


def test_what_is_wrong_is_refused() -> None:
    with pytest.raises(Said, match="unrecognized arguments: --nonsense"):
        parsed(["create", "--nonsense", "ID"])
