"""Split a Dockerfile's words, and expand quotes and ``$NAME``, as Docker's builder does.

(Docker's "Dockerfile reference", section "Environment replacement"; BuildKit, frontend/dockerfile/shell.)
Instructions for a shell (RUN, and the shell forms of CMD and ENTRYPOINT) do not pass through here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

ESCAPE = "\\"
# What BuildKit regards as a blank inside a line and at its ends (Go's unicode.IsSpace).
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
# What separates an instruction's name, and the arguments of one without quotes.
BLANKS = re.compile(r"[\t\v\f\r ]+")
# The kernel executes nothing with a longer argument or variable (MAX_ARG_STRLEN: 32 pages).
LONGEST = 131072
DEEPEST = 50

# A name, a positional parameter or one of the shell's special ones, which are never set here.
_NAME = re.compile(r"[0-9]+|[@*#?$!-]|[^\W\d]\w*")
# Characters that stand for themselves, by escape character.
_PLAIN = {escape: re.compile(rf"""[^'"$}}{re.escape(escape)}]+""") for escape in "\\`"}
_QUOTED = {escape: re.compile(rf"""[^"${re.escape(escape)}]+""") for escape in "\\`"}


def split(text: str, escape: str = ESCAPE) -> tuple[str, ...]:
    """Split at blanks that are neither quoted nor escaped; quotes and escapes stay, for ``expand``.

    Raises ValueError for a quote that is not closed.
    """
    words: list[str] = []
    word: list[str] = []
    quote, index = "", 0
    while index < len(text):
        character = text[index]
        if character == escape and quote != "'":
            # At the very end there is nothing to escape.
            word.append(text[index : index + 2] if index + 1 < len(text) else "")
            index += 2
            continue
        if character in "'\"" and quote in ("", character):
            quote = "" if quote else character
        if character in SPACES and not quote:
            words.append("".join(word))
            word = []
        else:
            word.append(character)
        index += 1
    if quote:
        raise ValueError(f"a quote {quote} is not closed")
    words.append("".join(word))
    return tuple(word for word in words if word)


def expand(text: str, variables: Mapping[str, str], escape: str = ESCAPE) -> str:
    """Replace variables, remove quotes and escapes.

    The forms are ``$NAME``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:+alternative}``; an unset variable is
    empty. Nothing is replaced between single quotes. Raises ValueError for another form, for a quote that is not
    closed, and for a result of more than LONGEST characters.
    """
    return _Expansion(text, variables, escape).up_to("", 0)


class _Expansion:
    """One pass over ``text``; ``index`` is the position in it, and ``size`` the number of characters made so far."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str) -> None:
        self.text = text
        self.variables = variables
        self.escape = escape
        self.index = 0
        self.size = 0

    def up_to(self, stop: str, depth: int) -> str:
        """Return what comes before ``stop``, which is skipped; "" is the end of the text."""
        if depth > DEEPEST:
            raise ValueError(f"${{...}} is nested more than {DEEPEST} deep")
        parts = []
        while (character := self.text[self.index : self.index + 1]) != stop:
            if not character:
                raise ValueError("the brace of ${...} is not closed")
            parts.append(self._part(character, depth))
        self.index += 1
        return "".join(parts)

    def _part(self, character: str, depth: int) -> str:
        """Return the value of what begins with ``character``: a quotation, a variable, an escape or plain text."""
        if character == "'":
            begin = self.index + 1
            end = self.text.find("'", begin)
            if end < 0:
                raise ValueError("a quote ' is not closed")
            self.index = end + 1
            return self._counted(self.text[begin:end])
        if character == '"':
            return self._double_quoted(depth)
        if character == "$":
            return self._variable(depth)
        if character == self.escape:
            self.index += 2
            return self._counted(self.text[self.index - 1 : self.index])
        return self._plain(_PLAIN[self.escape])

    def _double_quoted(self, depth: int) -> str:
        self.index += 1
        parts = []
        while (character := self.text[self.index : self.index + 1]) != '"':
            if not character:
                raise ValueError('a quote " is not closed')
            if character == "$":
                parts.append(self._variable(depth))
            elif character == self.escape:
                # Before any other character it stays, as in a shell.
                escapes = self.text[self.index + 1 : self.index + 2] in ('"', "$", self.escape)
                self.index += 2 if escapes else 1
                parts.append(self._counted(self.text[self.index - 1]))
            else:
                parts.append(self._plain(_QUOTED[self.escape]))
        self.index += 1
        return "".join(parts)

    def _variable(self, depth: int) -> str:
        """Return the value of the variable at the dollar sign."""
        braced = self.text.startswith("${", self.index)
        self.index += 2 if braced else 1
        match = _NAME.match(self.text, self.index)
        if match is None and not braced:
            return self._counted("$")
        name = match[0] if match else ""
        self.index += len(name)
        value = self.variables.get(name, "")
        if not braced:
            return self._counted(value)
        operator = self.text[self.index : self.index + 2]
        if name and operator[:1] == "}":
            self.index += 1
            return self._counted(value)
        if not operator:
            raise ValueError(f"the brace of ${{{name[:40]} is not closed")
        if not name or operator not in (":-", ":+"):
            begin = f"${{{name}{operator}"[:40]
            raise ValueError(f"{begin!r} begins none of ${{NAME}}, ${{NAME:-default}}, ${{NAME:+alternative}}")
        self.index += 2
        word = self.up_to("}", depth + 1)
        if operator == ":+":
            return word if value else ""
        return self._counted(value) or word

    def _plain(self, pattern: re.Pattern[str]) -> str:
        """Return characters that stand for themselves, at least one."""
        match = pattern.match(self.text, self.index)
        part = match[0] if match else self.text[self.index]
        self.index += len(part)
        return self._counted(part)

    def _counted(self, part: str) -> str:
        self.size += len(part)
        if self.size > LONGEST:
            raise ValueError(f"a value is longer than {LONGEST} characters: the kernel executes nothing with such")
        return part
