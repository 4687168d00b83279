"""Here-documents of RUN, COPY and ADD, as BuildKit's parser recognises them.

(Docker's "Dockerfile reference", section "Here-documents"; BuildKit, frontend/dockerfile/parser/parser.go.)
"""

from __future__ import annotations

import re

from msgspec import Struct

from runtime.builder import words

# No `<` follows: `<<<` is another operator of some shells.
_BEGIN = re.compile(r"[0-9]*<<(-?)([^<]*)")


class Heredoc(Struct, frozen=True):
    """A here-document: the ``name`` that begins and ends it, and its ``content``, whole lines.

    ``expands`` is false where the name was quoted, and ``chomps`` is true after ``<<-``: leading tabs are dropped.
    """

    name: str
    expands: bool
    chomps: bool
    content: str = ""

    def ends_at(self, line: str) -> bool:
        """Return whether a line, without its end, is the last one."""
        return (line.lstrip("\t") if self.chomps else line) == self.name

    @property
    def text(self) -> str:
        """Return the content as it is meant, without the tabs that ``<<-`` drops."""
        return re.sub(r"^\t+", "", self.content, flags=re.MULTILINE) if self.chomps else self.content


def parse_heredoc(word: str) -> Heredoc | None:
    """Return the here-document that a word such as ``<<EOF`` or ``3<<-"EOF"`` begins, without its content; or None."""
    match = _BEGIN.fullmatch(word)
    if match is None or not match[2]:
        return None
    try:
        quoted = words.split(match[2])
        name = words.expand(match[2], {})
    except ValueError:
        return None
    if len(quoted) != 1 or not name:
        return None
    return Heredoc(name, name == quoted[0], bool(match[1]))


def find_heredocs(text: str) -> tuple[Heredoc, ...]:
    """Return the here-documents that a line begins, in order; none if its quotes are not closed."""
    if "<<" not in text:
        return ()
    try:
        found = words.split(text)
    except ValueError:  # for the shell to judge
        return ()
    return tuple(heredoc for word in found if (heredoc := parse_heredoc(word)) is not None)
