"""What people write after a task's name, as the task runner's library reads it.

That takes a word without an option's name only where a task must have one, and each that begins with a dash for an
option of the task's own.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType

# The option that a task's first word is the value of.
_FIRST: Mapping[str, str] = MappingProxyType(
    {
        "bench": "--scenario",
        "explain": "--scenario",
        "report": "--run",
        "index": "--folder",
        "up": "--scenario",
        "down": "--project",
        "ps": "--project",
    }
)
# Options of the tasks below that take a value, which is no word.
_VALUED = (
    *("--project", "-p", "--tail", "-t", "--service", "-s", "--words", "-w"),
    *("--user", "-u", "--directory", "-d"),
)
# The library's own, which stand before a task.
_BEFORE_TASKS = ("--search-root", "-r", "--collection", "-c", "--config", "-f", "--complete")


def arrange(words: Sequence[str]) -> list[str]:
    """Return the command line's words, without the program's name, so that each has its option before it."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in _BEFORE_TASKS else 1
    if at == len(words):
        return list(words)
    before, task, after = list(words[:at]), words[at], list(words[at + 1 :])
    if task == "ladder" and after[:1] == ["shell"]:  # the library has no task that is a group of tasks, too
        task, after = "ladder-shell", after[1:]
    if task in _FIRST and after and not after[0].startswith("-"):
        after.insert(0, _FIRST[task])
    elif task == "logs":
        after = _name_services(after)
    elif task == "exec":
        after = _name_command(after)
    return [*before, task, *after]


def _name_services(words: Sequence[str]) -> list[str]:
    """Each word that is no option, nor the value of one, is a service."""
    arranged: list[str] = []
    takes_value = False
    for word in words:
        if not takes_value and not word.startswith("-"):
            arranged.append("--service")
        arranged.append(word)
        takes_value = word in _VALUED
    return arranged


def _name_command(words: Sequence[str]) -> list[str]:
    """The first such word is the service; all that follow are the command, whatever they look like."""
    options: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "--":
        options.append(rest.pop(0))
        if options[-1] in _VALUED and rest:
            options.append(rest.pop(0))
    if rest[:1] == ["--"]:
        rest = rest[1:]
    if not rest:
        return options
    service, *command = rest
    if command[:1] == ["--"]:
        command = command[1:]
    return [*options, "--service", service, *(["--words", shlex.join(command)] if command else [])]
