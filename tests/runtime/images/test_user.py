"""Names to numbers, by the image's own files."""

from __future__ import annotations

import pytest

from runtime.errors import UsageError
from runtime.images.model import Image
from runtime.images.user import home_directory, parse_group, parse_passwd, resolve_owner, resolve_user
from runtime.spec import User

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0)),
        ("root", User(0, 0)),
        ("alice", User(1000, 100, additional_gids=(29,))),
        ("1000", User(1000, 100, additional_gids=(29,))),
        ("4711", User(4711, 0)),
        ("alice:audio", User(1000, 29)),
        ("alice:12", User(1000, 12)),
        ("4711:users", User(4711, 100)),
        (":audio", User(0, 29)),
    ],
)
def test_resolve(tiny: Image, user: str, expected: User) -> None:
    assert resolve_user(user, tiny.layers) == expected


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("", (0, 0)),
        ("alice", (1000, 100)),
        ("55", (55, 55)),
        ("1000", (1000, 1000)),
        ("10:11", (10, 11)),
        ("1:users", (1, 100)),
    ],
)
def test_whose_a_builds_files_are(tiny: Image, owner: str, expected: tuple[int, int]) -> None:
    assert resolve_owner(owner, tiny.layers) == expected


@pytest.mark.parametrize(("user", "message"), [("bob", "user 'bob'"), ("alice:staff", "group 'staff'")])
def test_unknown_names_are_errors_that_list_the_known(tiny: Image, user: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve_user(user, tiny.layers)
    assert caught.value.hint.startswith("known: root, ")


@pytest.mark.parametrize("user", ["4294967295", "4294967296", "0:4294967295", "9" * 20, "alice:1099511627776", "wraps"])
def test_numbers_that_are_nobodys_are_refused(tiny: Image, user: str) -> None:
    """(uid_t)-1 would leave the user as it is: root."""
    if user == "wraps":
        passwd = tiny.layers[0].path / "etc" / "passwd"
        passwd.write_text(passwd.read_text() + "wraps:x:4294967295:0::/:/bin/sh\n")
    with pytest.raises(UsageError, match="no user's or group's number"):
        resolve_user(user, tiny.layers)


@pytest.mark.parametrize("user", ["-1", "1e3", "²", "٣", "9" * 5000, "0x0", "1:-1", "+1"])
def test_what_is_not_a_number_is_a_name(tiny: Image, user: str) -> None:
    with pytest.raises(UsageError, match="is not in the image's"):
        resolve_user(user, tiny.layers)


def test_the_last_number_is_one(tiny: Image) -> None:
    assert resolve_user("4294967294:4294967294", tiny.layers) == User(4294967294, 4294967294)


def test_home(tiny: Image) -> None:
    assert home_directory(1000, tiny.layers) == "/home/alice"
    assert home_directory(4711, tiny.layers) == "/"


@pytest.mark.parametrize("number", ["-1", "9" * 5000, "1٣", "0x1", " 1"])
def test_an_account_whose_number_is_none_is_left_out(number: str) -> None:
    assert parse_passwd(f"a:x:{number}:0::/:/bin/sh\na:x:0:{number}::/:/bin/sh\n") == ()
    assert parse_group(f"a:x:{number}:\n") == ()


def test_lines_that_are_no_accounts_are_left_out() -> None:
    assert [a.name for a in parse_passwd("+nis::::::\nshort:x:1\n\na:x:1:2::/:/bin/sh\n")] == ["a"]
    assert [g.name for g in parse_group("b:x:many:\na:x:1:\n")] == ["a"]
