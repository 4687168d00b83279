"""A second tree of this code, at another revision, with programs of its own, for as long as a run needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from runtime.errors import PrerequisiteError, TestbedError, UsageError
from testbed.aliases import name_at

ROOT = Path(__file__).resolve().parents[2]
# What a revision must have to be measured beside this one.
_PLAYER = "testbed/duet/player.py"
_LAUNCHER = "runtime/launcher/testbed-launcher"
_COMPILE = "from runtime.launcher import build as b; b.build_for({python!r}, b.PACKAGES, b.BINARY)"
# The modules that compile what measures, where the revision has them: the first trial must not wait for a compiler.
_MEASURING = ("testbed.load.build", "testbed.sampler.build")


class Revision(Struct, frozen=True):
    """A commit of this repository, and how it was ``asked`` for."""

    asked: str
    commit: str

    def name_platforms(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return what these platforms are called when the revision runs them."""
        return tuple(name_at(name, self.commit) for name in names)


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ("git", "-c", f"safe.directory={root}", "-C", str(root), *arguments)
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise PrerequisiteError(f"--against: run git: {error.strerror}", "install git") from error


def without_python_paths() -> dict[str, str]:
    """Return the environment in which an interpreter imports from its working directory first."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}


def find_revision(asked: str, root: Path = ROOT) -> Revision:
    """Return the commit that ``asked`` names. Raises UsageError when there is none, or when it is older than what
    measures two revisions side by side; PrerequisiteError without git."""
    found = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{asked}^{{commit}}")
    if found.returncode:
        raise UsageError(
            f"--against {asked}: no commit of the repository at {root}", "name a branch, a tag or a commit of it"
        )
    commit = found.stdout.decode().strip()
    if _git(root, "cat-file", "-e", f"{commit}:{_PLAYER}").returncode:
        raise UsageError(
            f"--against {asked}: the commit {commit[:12]} has no {_PLAYER}",
            "a revision can be measured beside this one from the commit on that added this file",
        )
    return Revision(asked, commit)


def make_tree(revision: Revision, target: Path, root: Path = ROOT) -> Path:
    """Write the revision's files to ``target``, which must not exist, compile its programs, and return the directory.

    Raises TestbedError when git or the compiler fails.
    """
    archive = _git(root, "archive", "--format=tar", revision.commit)
    if archive.returncode:
        raise TestbedError(f"git archive {revision.commit[:12]}: {archive.stderr.decode(errors='replace').strip()}")
    target.mkdir()
    unpacked = subprocess.run(
        ["tar", "--extract", "--no-same-owner", "--directory", str(target)],
        input=archive.stdout,
        capture_output=True,
        check=False,
    )
    if unpacked.returncode:
        raise TestbedError(f"tar --extract in {target}: {unpacked.stderr.decode(errors='replace').strip()}")
    _compile(revision, target, "the launcher", "-c", _COMPILE.format(python=sys.executable))
    if not (target / _LAUNCHER).exists():
        raise TestbedError(f"compile the launcher of {revision.commit[:12]}: there is no {_LAUNCHER}", f"in {target}")
    for module in _MEASURING:
        if (target / module.replace(".", "/")).with_suffix(".py").exists():
            _compile(revision, target, module, "-m", module)
    return target


def _compile(revision: Revision, target: Path, what: str, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=target,
        env=without_python_paths(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-3:] or [f"exit status {done.returncode}"]
        raise TestbedError(f"compile {what} of {revision.commit[:12]}: {' '.join(said)}", f"in {target}")
