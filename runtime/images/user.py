"""Resolve the names of an image's USER to numbers, with the image's own /etc/passwd and /etc/group."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from runtime.config.decode import LAST_ID, is_number
from runtime.errors import UsageError
from runtime.images.model import Layer
from runtime.images.rootfs import read_text
from runtime.spec import User


class Account(Struct, frozen=True):
    """The fields of a line of passwd(5) that are used here."""

    name: str
    uid: int
    gid: int
    home: str


class Group(Struct, frozen=True):
    """A line of group(5)."""

    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(user: str, layers: Sequence[Layer]) -> User:
    """Return the identity of ``user`` in the image: "" (root), "1000", "name", "name:group", "uid:gid".

    As in the image-spec, the default is the account's own group with its supplementary groups (group 0 for a number
    without an account). Raises UsageError for a name that the image does not have, and for a number that no user can
    have.
    """
    name, _, group = user.partition(":")
    accounts = parse_passwd(read_text("/etc/passwd", layers))
    groups = parse_group(read_text("/etc/group", layers))
    account = _account(name or "0", accounts)
    if account is None and not is_number(name or "0"):
        raise UsageError(f"user {name!r} is not in the image's /etc/passwd", _known([a.name for a in accounts]))
    uid = account.uid if account else int(name or "0")
    if group:
        return _in_range(user, User(uid, _group_id(group, groups)))
    if account is None:
        return _in_range(user, User(uid, 0))
    supplementary = {g.gid for g in groups if account.name in g.members and g.gid != account.gid}
    return _in_range(user, User(uid, account.gid, additional_gids=tuple(sorted(supplementary))))


def add_groups(user: User, names: Sequence[str], layers: Sequence[Layer]) -> User:
    """Return the identity with further groups, by their names in the image or by number. Raises UsageError."""
    if not names:
        return user
    groups = parse_group(read_text("/etc/group", layers))
    more = {_group_id(name, groups) for name in names} - {user.gid}
    ids = tuple(sorted({*user.additional_gids, *more}))
    return _in_range(", ".join(names), replace(user, additional_gids=ids))


def resolve_owner(owner: str, layers: Sequence[Layer]) -> tuple[int, int]:
    """Return the user and the group that a build's files get: of ``--chown``, or of USER for what WORKDIR makes.

    The number of a user without a group is the group's, too (Docker's "Dockerfile reference", ``COPY --chown``). Raises
    UsageError as ``resolve_user`` does.
    """
    user = resolve_user(owner, layers)
    return (user.uid, user.uid) if is_number(owner) else (user.uid, user.gid)


def _in_range(name: str, user: User) -> User:
    for number in (user.uid, user.gid, *user.additional_gids):
        if number > LAST_ID:
            raise UsageError(f"user {name!r}: {number} is no user's or group's number", f"they end at {LAST_ID}")
    return user


def home_directory(uid: int, layers: Sequence[Layer]) -> str:
    """Return the home directory of ``uid`` in the image, or ``/`` without an account there."""
    for account in parse_passwd(read_text("/etc/passwd", layers)):
        if account.uid == uid:
            return account.home or "/"
    return "/"


def parse_passwd(text: str) -> tuple[Account, ...]:
    """Return the accounts in the text of passwd(5); invalid lines are left out, as in glibc."""
    fields = (line.split(":") for line in text.splitlines())
    return tuple(
        Account(f[0], int(f[2]), int(f[3]), f[5]) for f in fields if len(f) >= 7 and is_number(f[2]) and is_number(f[3])
    )


def parse_group(text: str) -> tuple[Group, ...]:
    """Return the groups in the text of group(5); invalid lines are left out, as in glibc."""
    fields = (line.split(":") for line in text.splitlines())
    return tuple(
        Group(f[0], int(f[2]), tuple(member for member in f[3].split(",") if member))
        for f in fields
        if len(f) >= 4 and is_number(f[2])
    )


def _account(name: str, accounts: Sequence[Account]) -> Account | None:
    for account in accounts:
        if account.name == name:
            return account
    for account in accounts:
        if is_number(name) and account.uid == int(name):
            return account
    return None


def _group_id(group: str, groups: Sequence[Group]) -> int:
    for known in groups:
        if known.name == group:
            return known.gid
    if is_number(group):
        return int(group)
    raise UsageError(f"group {group!r} is not in the image's /etc/group", _known([g.name for g in groups]))


def _known(names: Sequence[str]) -> str:
    return f"known: {', '.join(names)}" if names else "the image has no such file"
