"""One instruction of a Dockerfile as frozen data, neither expanded nor executed yet."""

from __future__ import annotations

from msgspec import Struct

from runtime.builder.heredocs import Heredoc


class Instruction(Struct, frozen=True):
    """One instruction.

    It begins in ``line`` (counted from 1), and ``text`` is what follows its name and flags, with continuation lines
    joined. ``flags`` are pairs of name and value in order; some may be given several times. ``words`` are the
    arguments: of the exec form (a JSON array, then ``exec_form`` is true), split at blanks, or the text for a shell as
    a single one. ``pairs`` are those of ENV, LABEL and ARG; a value of None is that of an ARG without a default.
    ``heredocs`` are the here-documents below it. ``trigger`` is true for an ONBUILD of the parent image, whose line
    is that of FROM.
    """

    name: str
    line: int
    text: str
    flags: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str | None], ...] = ()
    exec_form: bool = False
    heredocs: tuple[Heredoc, ...] = ()
    trigger: bool = False

    def __str__(self) -> str:
        flags = "".join(f" --{name}={value}" for name, value in self.flags)
        return f"{self.name}{flags} {self.whole_text}"

    @property
    def whole_text(self) -> str:
        """Return the text with the here-documents below it, as a shell reads both."""
        return "\n".join((self.text, *(f"{one.content}{one.name}" for one in self.heredocs)))

    def flag(self, name: str, default: str = "") -> str:
        """Return the value of a flag that can be given once."""
        return next((value for flag, value in self.flags if flag == name), default)

    def flag_values(self, name: str) -> tuple[str, ...]:
        """Return all values of a flag, in order."""
        return tuple(value for flag, value in self.flags if flag == name)
