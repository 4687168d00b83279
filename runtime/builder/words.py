"""Split a Dockerfile's words, and expand quotes and ``$NAME``, as Docker's builder does.

(Docker's "Dockerfile reference", section "Environment replacement"; BuildKit, frontend/dockerfile/shell.)
Instructions for a shell (RUN, and the shell forms of CMD and ENTRYPOINT) do not pass through here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from runtime.builder.substitution import remove_prefix, remove_suffix, substitute

ESCAPE = "\\"
# What BuildKit regards as a blank inside a line and at its ends (Go's unicode.IsSpace).
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
# What separates an instruction's name, and the arguments of one without quotes.
BLANKS = re.compile(r"[\t\v\f\r ]+")
# The kernel executes nothing with a longer argument or variable (MAX_ARG_STRLEN: 32 pages).
LONGEST = 131072
DEEPEST = 50
# What may stand between braces, for an error.
FORMS = (
    *("${NAME}", "${NAME:-default}", "${NAME:+alternative}", "${NAME:?error}"),
    *("${NAME#pattern}", "${NAME%pattern}", "${NAME/pattern/replacement}"),
)

# A name, a positional parameter or one of the shell's special ones, which are never set here.
_NAME = re.compile(r"[0-9]+|[@*#?$!-]|[^\W\d]\w*")
# Characters that stand for themselves, by escape character.
_PLAIN = {escape: re.compile(rf"""[^'"$/}}{re.escape(escape)}]+""") for escape in "\\`"}
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


def json_words(text: str) -> tuple[str, ...] | None:
    """Return the strings of an exec form, or None if the text is not JSON: then it is for a shell, as in Docker.

    Raises ValueError for an array that holds anything but strings.
    """
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError("a JSON array may hold only strings")
    return tuple(value)


def _refused(constant: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python's reader accepts although JSON does not have them."""
    raise ValueError(constant)


def expand(text: str, variables: Mapping[str, str], escape: str = ESCAPE, *, quotes: bool = True) -> str:
    """Replace variables, remove quotes and escapes; with ``quotes`` False, as in a here-document, quotes stay.

    The forms are ``$NAME``, ``${NAME}``; ``${NAME:-default}``, ``${NAME:+alternative}``, ``${NAME:?error}``, and these
    without the colon, for which an empty value counts as set; ``${NAME#pattern}``, ``##``, ``%``, ``%%``,
    ``${NAME/pattern/replacement}`` and ``//``. An unset variable is empty. Nothing is replaced between single quotes.
    Raises ValueError for another form, for a quote that is not closed, for a value that ``?`` demands, and for a result
    of more than LONGEST characters.
    """
    return _Expansion(text, variables, escape, quotes).up_to("", 0)


class _Expansion:
    """One pass over ``text``; ``index`` is the position in it, and ``size`` the number of characters made so far.

    ``raw`` is true within patterns, where escapes stay, for they have a meaning there.
    """

    def __init__(self, text: str, variables: Mapping[str, str], escape: str, quotes: bool) -> None:
        self.text = text
        self.variables = variables
        self.escape = escape
        self.quotes = quotes
        self.raw = False
        self.index = 0
        self.size = 0

    def up_to(self, stop: str, depth: int, raw: bool = False) -> str:
        """Return what comes before ``stop``, which is skipped; "" is the end of the text."""
        if depth > DEEPEST:
            raise ValueError(f"${{...}} is nested more than {DEEPEST} deep")
        outer, self.raw = self.raw, raw
        parts = []
        while (character := self.text[self.index : self.index + 1]) != stop:
            if not character:
                raise ValueError("the brace of ${...} is not closed" if stop == "}" else "${.../ has no second slash")
            parts.append(self._part(character, depth))
        self.index += 1
        self.raw = outer
        return "".join(parts)

    def _part(self, character: str, depth: int) -> str:
        """Return the value of what begins with ``character``: a quotation, a variable, an escape or plain text."""
        if character == "'" and self.quotes:
            begin = self.index + 1
            end = self.text.find("'", begin)
            if end < 0:
                raise ValueError("a quote ' is not closed")
            self.index = end + 1
            return self._counted(self.text[begin:end])
        if character == '"' and self.quotes:
            return self._double_quoted(depth)
        if character == "$":
            return self._variable(depth)
        if character == self.escape:
            self.index += 2
            return self._counted(self.text[self.index - (2 if self.raw else 1) : self.index])
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
                begin = self.index if self.raw or not escapes else self.index + 1
                self.index += 2 if escapes else 1
                parts.append(self._counted(self.text[begin : self.index]))
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
        value = self.variables.get(name)
        if not braced:
            return self._counted(value or "")
        return self._braced(name, value, depth)

    def _braced(self, name: str, value: str | None, depth: int) -> str:
        """Return what ``${name`` and all up to its closing brace stands for."""
        begin = self.index
        colon = self.text.startswith(":", begin)
        operator = self.text[begin + colon : begin + colon + 1]
        self.index += colon + 1
        if name and operator == "}" and not colon:
            return self._counted(value or "")
        if not self.text[begin:]:
            raise ValueError(f"the brace of ${{{name[:40]} is not closed")
        if name and operator and operator in "-+?":
            return self._conditional(name, value or None if colon else value, operator, self.up_to("}", depth + 1))
        if name and operator and operator in "#%":
            return self._trimmed(value or "", operator, depth)
        if name and operator == "/" and not colon:
            return self._replaced(value or "", depth)
        shown = f"${{{name}{self.text[begin : begin + 2]}"[:40]
        raise ValueError(f"{shown!r} begins none of {', '.join(FORMS)}")

    def _conditional(self, name: str, value: str | None, operator: str, word: str) -> str:
        if operator == "+":
            return "" if value is None else word
        if value is None and operator == "?":
            raise ValueError(f"{name[:40]}: {word[:200] or 'it must be set, and not be empty'}")
        return word if value is None else self._counted(value)

    def _trimmed(self, value: str, operator: str, depth: int) -> str:
        longest = self.text.startswith(operator, self.index)
        self.index += longest
        pattern = self.up_to("}", depth + 1, raw=True)
        remove = remove_prefix if operator == "#" else remove_suffix
        return self._counted(remove(pattern, value, longest))

    def _replaced(self, value: str, depth: int) -> str:
        every = self.text.startswith("/", self.index)
        self.index += every
        pattern = self.up_to("/", depth + 1, raw=True)
        replacement = self.up_to("}", depth + 1, raw=True)
        return "".join(self._counted(part) for part in substitute(pattern, value, replacement, every))

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
