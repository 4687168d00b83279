"""The C header that the launcher is compiled with: all that it shares with the planner, from the classes of steps.

It has two parts. ``operations.h`` declares codes, arguments, prototypes and the dispatch; ``table.h``, which only the
reader of plans includes, is what it checks each step by.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Sequence

from runtime.launcher import frames, messages
from runtime.plan.encode import magic
from runtime.plan.steps import OPERATIONS, Step, base
from runtime.plan.steps.arguments import layout

_MADE = "/* Made by runtime/launcher/header.py of the classes in runtime/plan/steps. */"
_STEP = (
    "/* A step as the executor sees it; every pointer but `progress` points into the plan's own bytes. An argument",
    " * that is a string has its size beside it, and of a list there is the count: its strings, as encoded, begin at",
    " * `list`. */",
    "struct step {",
    "  uint16_t operation, tolerated_count;",
    "  uint32_t string_count;",
    "  const uint8_t *tolerated; /* tolerated_count little-endian u32 */",
    "  const uint8_t *strings, *list; /* all of them, as encoded; those after the first `string`s */",
    "  struct progress *progress; /* of what performs it */",
)


def c_name(kind: type[Step]) -> str:
    """An operation's name in C: ``SetHostname`` is ``set_hostname``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind.__name__).lower()


def _enum(name: str, prefix: str, values: Iterable[tuple[str, int]]) -> str:
    return f"enum {name} {{ {', '.join(f'{prefix}{label} = {value}' for label, value in values)} }};"


def _numbers(kind: type[Step]) -> list[str]:
    form = layout(kind)
    return [*(name for name, _ in form.numbers), *(f"{name}_count" for name in form.lists)]


def _arguments(kind: type[Step], most_strings: int) -> str:
    """A step's arguments by their names; empty without any. They lie upon the arrays of strings, sizes and numbers."""
    strings = [name for name, _ in layout(kind).strings]
    rest = most_strings - len(strings)
    members = [f"const char {', '.join(f'*{name}' for name in strings)};"] if strings else []
    members += [f"const char *no_string[{rest}];"] if rest else []
    members += [f"uint64_t {', '.join(f'{name}_size' for name in strings)};"] if strings else []
    members += [f"uint64_t no_size[{rest}];"] if rest else []
    members += [f"uint64_t {', '.join(_numbers(kind))};"] if _numbers(kind) else []
    return f"struct {{ {' '.join(members)} }} {c_name(kind)};" if strings or _numbers(kind) else ""


def _most(counts: Iterable[int]) -> int:
    return max(1, *counts)


def _declarations(kinds: Sequence[type[Step]]) -> Iterator[str]:
    most_strings = _most(len(layout(kind).strings) for kind in kinds)
    most_numbers = _most(len(_numbers(kind)) for kind in kinds)
    names = [c_name(kind) for kind in kinds]
    yield _enum("descriptor", "", ((name, fd) for name, fd in vars(base).items() if name.endswith("_FD")))
    yield _enum("message_kind", "MESSAGE_", ((name, kind) for name, kind in vars(messages).items() if name.isupper()))
    yield _enum("frame", "FRAME_", ((name, value) for name, value in vars(frames).items() if name.isupper()))
    yield f"enum operation {{ NO_OPERATION, {', '.join(f'OP_{name.upper()}' for name in names)}, OP_END }};"
    yield f"enum {{ STEP_STRINGS = {most_strings}, STEP_NUMBERS = {most_numbers} }};"
    yield from _STEP
    yield "  union {"
    yield "    struct { const char *string[STEP_STRINGS]; uint64_t size[STEP_STRINGS], number[STEP_NUMBERS]; };"
    yield from (f"    {arguments}" for kind in kinds if (arguments := _arguments(kind, most_strings)))
    yield "  };"
    yield "};"
    yield from (f"int perform_{name}(const struct step *s);" for name in names)
    yield "static inline int perform_operation(const struct step *s) {"
    yield "  switch (s->operation) {"
    yield from (f"  case OP_{name.upper()}: return perform_{name}(s);" for name in names)
    yield "  default: return -38; /* ENOSYS */"
    yield "  }"
    yield "}"


def operations_header(kinds: Sequence[type[Step]] = OPERATIONS) -> str:
    """``operations.h``, with these operations."""
    guard = "TESTBED_OPERATIONS_H"
    lines = (_MADE, f"#ifndef {guard}", f"#define {guard}", "#include <stdint.h>", *_declarations(kinds), "#endif", "")
    return "\n".join(lines)


def _subject(kind: type[Step]) -> int:
    """Which string of a step an error shows, counted from 1; 0 for none."""
    form = layout(kind)
    texts = [name for name, string in form.strings if not string.raw]
    order = [name for name, _ in form.strings] + list(form.lists)
    name = kind.subject or next(iter(texts), "")
    return order.index(name) + 1 if name else 0


def spoken_name(kind: type[Step]) -> str:
    """What an error calls an operation: the system call that its words begin with, or else its class's name."""
    call = re.match(r"(\w+)(?= \{|$)", kind.words)
    return call[1] if call else c_name(kind).replace("_", " ")


def _row(kind: type[Step], limits: list[int]) -> str:
    form = layout(kind)
    counts = f"{len(_numbers(kind))}, {len(form.lists)}, {len(form.strings)}, {_subject(kind)}"
    ranges = ", ".join(str(limits.index(number.largest)) for _, number in form.numbers) or "0"
    return f'  [OP_{c_name(kind).upper()}] = {{"{spoken_name(kind)}", {counts}, {{{ranges}}}}},'


def _error_names() -> Iterator[str]:
    """The names of the kernel's errors, by their numbers; those without one are called as the first is."""
    errors = max(errno.errorcode) + 1
    size = max(map(len, errno.errorcode.values())) + 1
    yield f"enum {{ ERRORS = {errors} }};"
    yield f"static const char error_names[ERRORS][{size}] = {{"
    yield from (f'  [{error}] = "{errno.errorcode.get(error, "errno")}",' for error in range(errors))
    yield "};"


def table_header(kinds: Sequence[type[Step]] = OPERATIONS) -> str:
    """``table.h``, with these operations: rows, not pointers, so that the binary needs no relocation."""
    limits = sorted({number.largest for kind in kinds for _, number in layout(kind).numbers})
    name_size = max(len(spoken_name(kind)) for kind in kinds) + 1
    version = "".join(f"\\x{byte:02x}" for byte in magic())
    lines = [
        _MADE,
        f'static const char MAGIC[8] = "{version}";',
        f"static const uint64_t limits[] = {{{', '.join(f'{limit:#x}u' for limit in limits)}}};",
        "/* Numbers, of them the lengths of lists, strings before the lists, which of all the strings an error shows",
        " * (from 1), and of each other number its limit. */",
        "struct layout {",
        f"  char name[{name_size}];",
        "  uint8_t numbers, lists, strings, subject, limit[STEP_NUMBERS];",
        "};",
        "static const struct layout layouts[OP_END] = {",
        '  {"?", 0, 0, 0, 0, {0}},',
        *(_row(kind, limits) for kind in kinds),
        "};",
        *_error_names(),
        "",
    ]
    return "\n".join(lines)
