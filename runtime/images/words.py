"""Words and variables of a Dockerfile: splitting, quotes and ``$NAME``, as Docker's builder reads them.

(Docker's "Dockerfile reference", section "Environment replacement".) Instructions that are
handed to a shell (RUN, and the shell forms of CMD and ENTRYPOINT) do not pass through here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def split(text: str) -> tuple[str, ...]:
    """Split at blanks that are not quoted or escaped; quotes and backslashes stay for ``expand``.

    Raises ValueError for a quote that is not closed.
    """
    words: list[str] = []
    word, quote, index = "", "", 0
    while index < len(text):
        character = text[index]
        if character == "\\" and quote != "'":
            word += text[index : index + 2]
            index += 2
            continue
        if character in "'\"" and quote in ("", character):
            quote = "" if quote else character
        if character.isspace() and not quote:
            if word:
                words.append(word)
            word = ""
        else:
            word += character
        index += 1
    if quote:
        raise ValueError(f"a quote {quote} is not closed")
    return (*words, word) if word else tuple(words)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace variables, remove quotes and escapes.

    Knows ``$NAME``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:+alternative}``; an unset variable is
    empty. Nothing is replaced between single quotes. Raises ValueError for another form.
    """
    result, quote, index = "", "", 0
    while index < len(text):
        character = text[index]
        if character == "\\" and quote != "'" and index + 1 < len(text):
            escaped = text[index + 1]
            result += escaped if not quote or escaped in '"$\\' else "\\" + escaped
            index += 2
        elif character in "'\"" and quote in ("", character):
            quote = "" if quote else character
            index += 1
        elif character == "$" and quote != "'":
            value, index = _variable(text, index + 1, variables)
            result += value
        else:
            result += character
            index += 1
    return result


def _variable(text: str, index: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """The value of the variable whose name begins at ``index`` (after the dollar) and where the text goes on."""
    if text[index : index + 1] != "{":
        match = _NAME.match(text, index)
        return (variables.get(match[0], ""), match.end()) if match else ("$", index)
    end = _closing_brace(text, index)
    body = text[index + 1 : end]
    name = _NAME.match(body)
    if name is None:
        raise ValueError(f"${{{body}}} does not begin with a name")
    value, rest = variables.get(name[0], ""), body[name.end() :]
    if rest.startswith(":-"):
        value = value or expand(rest[2:], variables)
    elif rest.startswith(":+"):
        value = expand(rest[2:], variables) if value else ""
    elif rest:
        raise ValueError(f"${{{body}}} is none of ${{NAME}}, ${{NAME:-default}}, ${{NAME:+alternative}}")
    return value, end + 1


def _closing_brace(text: str, opening: int) -> int:
    depth = 0
    for index in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index
    raise ValueError(f"the brace of ${text[opening:]} is not closed")
