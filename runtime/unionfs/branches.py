"""Parse the branches of a union in AUFS's own words, and change them; all of it is pure.

A union is a list of branches, the topmost first: ``br:/changes=rw:/system=ro``. A name that several branches have
shows the topmost one's. The words are those of the mount options in aufs(5); of its permissions ``rr`` is taken for
``ro``, and the attribute ``wh`` (whiteouts of a read-only branch count) is how every union here works.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from runtime.errors import UsageError

# More than AUFS (32,767) or overlayfs takes, so that a parser of hostile words ends.
BRANCHES_LIMIT = 32_767
_PERMISSIONS = {"rw": "rw", "ro": "ro", "rr": "ro", "ro+wh": "ro", "rr+wh": "ro"}
# AUFS's names of create policies, and mergerfs's names of the same.
POLICIES = {
    "tdp": "epff",
    "top-down-parent": "epff",
    "mfs": "mfs",
    "most-free-space": "mfs",
    "pmfs": "epmfs",
    "rand": "rand",
}
DEFAULT_POLICY = "tdp"

Permission = Literal["rw", "ro"]


class Branch(Struct, frozen=True):
    """A directory (an absolute path) with its permission in a union."""

    path: str
    permission: Permission

    def __str__(self) -> str:
        return re.sub(r"([:,\\])", r"\\\1", self.path) + f"={self.permission}"


class Union(Struct, frozen=True):
    """What a union is asked to be: its branches, the topmost first, and AUFS's name of the policy by which a new file
    gets its branch where several are writable."""

    branches: tuple[Branch, ...]
    policy: str = DEFAULT_POLICY

    @property
    def writable(self) -> tuple[Branch, ...]:
        """Return the branches that take writes."""
        return tuple(branch for branch in self.branches if branch.permission == "rw")

    @property
    def readonly(self) -> tuple[Branch, ...]:
        """Return the branches that nothing is written to."""
        return tuple(branch for branch in self.branches if branch.permission == "ro")

    def __str__(self) -> str:
        words = f"br:{':'.join(map(str, self.branches))}"
        return words if self.policy == DEFAULT_POLICY else f"{words},create={self.policy}"


def parse_union(words: str) -> Union:
    """Return the union that ``br:DIR=rw:DIR=ro`` describes, perhaps with ``,create=POLICY`` behind it.

    The first branch is ``rw`` when nothing is said, the others ``ro``. A colon or comma in a name is written with a
    backslash before it. Raises UsageError.
    """
    first, *options = split(words, ",") or [""]
    kind, branches = _take_keyword(first, ("br", "dirs"))
    if not kind:
        raise UsageError(f"union {words}: it does not begin with br:", "br:/changes=rw:/system=ro, the topmost first")
    named = split(branches, ":")
    if not named:
        raise UsageError(f"union {words}: it has no branch", "br:/changes=rw:/system=ro, the topmost first")
    policy = DEFAULT_POLICY
    for option in options:
        kind, value = _take_keyword(option, ("create",))
        if not kind or value not in POLICIES:
            raise UsageError(f"union option {option}: it is not understood", f"create={'|'.join(POLICIES)}")
        policy = value
    parsed = tuple(parse_branch(name, "ro" if i else "rw") for i, name in enumerate(named))
    return checked(Union(parsed, policy))


def split(text: str, separator: str) -> list[str]:
    """Return the parts between separators that have no backslash before them; the backslashes stay. Empty parts are
    left out."""
    return re.findall(rf"(?:[^\\{separator}]|\\.|\\$)+", text, re.DOTALL)


def _take_keyword(text: str, keywords: Sequence[str]) -> tuple[str, str]:
    """Return the keyword that a text begins with, before a colon or an equals sign, and the rest."""
    for keyword in keywords:
        if text.startswith((f"{keyword}:", f"{keyword}=")):
            return keyword, text[len(keyword) + 1 :]
    return "", text


def parse_branch(text: str, usual: Permission) -> Branch:
    """Return the branch that ``DIR``, ``DIR=rw`` or ``DIR=ro`` names; without a permission it is the ``usual`` one.

    Raises UsageError for a permission that there is not.
    """
    path, equals, permission = text.rpartition("=")
    if not equals or "/" in permission:
        path, permission = text, usual
    if permission not in _PERMISSIONS:
        raise UsageError(f"branch {text}: there is no permission {permission}", ", ".join(_PERMISSIONS))
    path = re.sub(r"\\([:,\\])", r"\1", path)
    if not path or "\0" in path:
        raise UsageError(f"branch {text}: it names no directory")
    check_readable(path)
    return Branch(os.path.abspath(path), "rw" if _PERMISSIONS[permission] == "rw" else "ro")


def checked(union: Union) -> Union:
    """Return the union when a driver can make it. Raises UsageError for a branch that occurs twice and for a writable
    branch below a read-only one."""
    paths = [branch.path for branch in union.branches]
    if not paths:
        raise UsageError("a union without branches shows nothing", "unmount it instead: union umount DIR")
    if len(paths) > BRANCHES_LIMIT:
        raise UsageError(f"union: {len(paths)} branches, above {BRANCHES_LIMIT}")
    if len(set(paths)) != len(paths):
        twice = next(path for i, path in enumerate(paths) if path in paths[:i])
        raise UsageError(f"union: the branch {twice} occurs twice", "name it once")
    seen_ro = ""
    for branch in union.branches:
        if branch.permission == "rw" and seen_ro:
            raise UsageError(
                f"union: the writable branch {branch.path} lies below the read-only {seen_ro}",
                "put writable branches on top: what changes a file must be above it to be seen",
            )
        seen_ro = branch.path if branch.permission == "ro" else seen_ro
    return union


def add(union: Union, words: str) -> Union:
    """Return the union with one more branch: ``INDEX:BRANCH`` (AUFS's ``add:``), ``append:BRANCH``, ``prepend:BRANCH``
    or a branch alone, which is put below the others. Without a permission it is ``ro``. Raises UsageError."""
    words = _take_keyword(words, ("add", "ins"))[1]
    kind, rest = _take_keyword(words, ("append", "prepend"))
    index = 0 if kind == "prepend" else len(union.branches)
    if not kind and (numbered := re.match(r"(\d{1,5}):", words)):
        index, rest = int(numbered[1]), words[numbered.end() :]
        if index > len(union.branches):
            raise UsageError(
                f"add {words}: the union has {len(union.branches)} branches", "counted from 0, the topmost"
            )
    branch = parse_branch(rest, "ro")
    return checked(Union((*union.branches[:index], branch, *union.branches[index:]), union.policy))


def delete(union: Union, words: str) -> Union:
    """Return the union without the branch ``DIR``. Raises UsageError when it has none of that name."""
    branch = _find(union, parse_branch(_take_keyword(words, ("del",))[1], "ro").path)
    return checked(Union(tuple(one for one in union.branches if one != branch), union.policy))


def modify(union: Union, words: str) -> Union:
    """Return the union with another permission of a branch, ``DIR=PERMISSION``. Raises UsageError."""
    words = _take_keyword(words, ("mod",))[1]
    if not words.endswith(tuple(f"={permission}" for permission in _PERMISSIONS)):
        raise UsageError(f"mod {words}: to which permission?", f"{words}=ro; there are {', '.join(_PERMISSIONS)}")
    changed = parse_branch(words, "ro")
    branch = _find(union, changed.path)
    return checked(Union(tuple(changed if one == branch else one for one in union.branches), union.policy))


def check_readable(path: str) -> None:
    """Raise UsageError for a path that is not UTF-8, which a record of a union could not hold."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"union: the name {path!r} is not UTF-8", "give the directory another name") from error


def _find(union: Union, path: str) -> Branch:
    for branch in union.branches:
        if branch.path == path:
            return branch
    raise UsageError(f"the union has no branch {path}", f"it has {', '.join(one.path for one in union.branches[:20])}")
