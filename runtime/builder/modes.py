"""The permissions that ``--chmod`` sets: an octal number, or chmod(1)'s symbols such as ``u=rwX,go=rX``."""

from __future__ import annotations

import re
import stat

from msgspec import Struct

_CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}


class Mode(Struct, frozen=True):
    """A change of permissions: to ``number``, or by ``clauses`` (who, operator, permissions) one after the other."""

    number: int | None = None
    clauses: tuple[tuple[str, str, str], ...] = ()

    def applied(self, mode: int) -> int:
        """Return the permissions of an entry that has the type and permissions ``mode`` (st_mode)."""
        if self.number is not None:
            return self.number
        permissions = stat.S_IMODE(mode)
        for who, operator, names in self.clauses:
            scope = 0
            for one in who.replace("a", "ugo") or "ugo":
                scope |= _WHO[one]
            bits = 0
            for name in names:
                if name == "X":
                    name = "x" if stat.S_ISDIR(mode) or permissions & 0o111 else ""
                bits |= _BITS.get(name, 0)
            if operator == "-":
                permissions &= ~(bits & scope)
            else:
                permissions = (permissions & ~scope if operator == "=" else permissions) | (bits & scope)
        return permissions


def parse_mode(text: str) -> Mode:
    """Return what a value of ``--chmod`` means. Raises ValueError for another text."""
    if re.fullmatch("[0-7]{1,4}", text):
        return Mode(int(text, 8))
    clauses = [_CLAUSE.fullmatch(part) for part in text[:200].split(",")]
    if len(text) > 200 or not all(clauses):
        raise ValueError(f"--chmod={text[:20]} is not an octal number of at most four digits, nor such as u=rwX,go=rX")
    return Mode(clauses=tuple((clause[1], clause[2], clause[3]) for clause in clauses if clause))
