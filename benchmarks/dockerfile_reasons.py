"""Why a public Dockerfile was not built, as one of a few reasons, by what its last command said."""

from __future__ import annotations

import re

ALPINE = "asks for Alpine's packages or programs, of which no image can be had"
RELEASE = "asks for packages or versions of another release than its stand-in is"
HOST = "asks a host that is not reached from here"
FILES = "needs files of its repository, in place of which empty ones were made"
PROGRAM = "asks for a program that its image's substitute lacks"
TIME = "had not ended in time"
OTHER = "for another reason"

# The marks of each, as regular expressions; of several reasons, the first is told.
_KINDS = {
    TIME: ("no end within",),
    ALPINE: (
        r"\bapk: not found",
        "(?:adduser|addgroup): (?:Unknown option|Option)",
        r"RUN .*\b(?:adduser|addgroup) -[A-Za-z]\b",
    ),
    HOST: (
        "[Cc]ould not resolve",
        "Name or service not known",
        "unable to resolve",
        "Temporary failure",
        "no valid OpenPGP data found",
        "getaddrinfo",
        "ENOTFOUND",
        "Network is unreachable",
        "Connection (?:refused|timed out|reset)",
        "[Ff]ailed to connect",
        r"RUN .*curl .*exit status 6\b",
        r"RUN .*wget -q.*exit status 4\b",
        "40[34] +(?:Forbidden|Not Found)",
        "50[23] (?:Service|Bad)",
    ),
    RELEASE: (
        "no installation candidate",
        "Unable to locate package",
        "Couldn't find any package",
        "externally-managed-environment",
        r"sources\.list: No such file",
        "does not have a Release file",
        "No matching distribution",
        "requires a different Python",
        "EBADENGINE",
        "[Uu]nsupported engine",
        "is incompatible with this module",
        "npm ERR! notarget",
    ),
    FILES: (
        "npm ci",
        "Missing script",
        "No workspaces",
        "No such file or directory",
        "cannot access",
        "ENOENT",
        "No module named",
        "Cannot find module",
        "does not appear to be a Python project",
        "JSONDecodeError",
        "Couldn't find a package.json",
        "No makefile",
        "Failed to build installable wheels",
        "is not a valid wheel filename",
        "is not installable",
        r"\./\S+: Permission denied",
        "getting requirements to build wheel",
        "LockfileCorrupt",
        r"Failed to parse `uv\.lock`",
        "Unexpected end",
        "no such file",
        r"Command \".*\" not found",
    ),
    PROGRAM: (
        ": not found",
        "command not found",
        "exit status 127",
    ),
}


def explain(message: str) -> str:
    """Return the reason for which a build failed. It is the first of which its message has a mark."""
    return next((reason for reason, marks in _KINDS.items() if any(re.search(mark, message) for mark in marks)), OTHER)
