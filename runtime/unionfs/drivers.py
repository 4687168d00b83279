"""Choose by trying what makes a union on this host, and make it; the driver is named in every result.

A driver is tried with two directories of its own, in a mount namespace of its own: that a kernel lists overlay, or a
program is installed, proves nothing. With one writable branch, a union is the kernel's overlay or fuse-overlayfs; with
several, mergerfs distributes new files among them, and what lies below the last of them is an overlay. ``copy`` shows
read-only branches as they are at that moment. ``aufs`` is there where the kernel was patched for it, and only taken
when it is asked for.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping

from msgspec import Struct

from runtime.errors import PrerequisiteError, TestbedError, UsageError, in_words
from runtime.plan.constants import MOUNT_ATTR_RDONLY
from runtime.unionfs import detached, mount_api
from runtime.unionfs.branches import POLICIES, Union
from runtime.unionfs.copying import copy_union
from runtime.unionfs.detached import Stack
from runtime.unionfs.lookup import OPAQUE_XATTR, USER_OPAQUE_XATTR
from runtime.unionfs.mount_api import FileSystem
from runtime.unionfs.overlay import WritableLayer

NAMES = ("overlay", "fuse-overlayfs", "mergerfs", "copy", "aufs")
FUSE_PROGRAMS = ("fuse-overlayfs", "mergerfs")
# Names what is tried; the number of the process that tries it follows.
TRIAL = "union-trial-"


class Verdict(Struct, frozen=True):
    """Whether a driver works here, and how or why not, in words."""

    driver: str
    works: bool
    detail: str


class Choice(Struct, frozen=True):
    """The driver that was chosen, how it works, and those before it that do not work, each with its reason."""

    driver: str
    detail: str
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.driver} ({self.detail})"


class Order(Struct, frozen=True):
    """A union that is to be made: ``source`` is what mountinfo shows, and ``work`` a directory for the driver's own
    use, beside the writable branch; copy puts the files there."""

    union: Union
    source: str
    work: str


def candidates(union: Union) -> tuple[str, ...]:
    """Return the drivers that can make such a union, the best first."""
    writable = len(union.writable)
    return ("mergerfs",) if writable > 1 else ("overlay", "fuse-overlayfs", *(("copy",) if not writable else ()))


def choose(union: Union, wanted: str, probe: Callable[[str], Verdict]) -> Choice:
    """Return the first candidate that works, or the driver that is ``wanted`` unless that is ``auto``.

    Raises UsageError for a driver that is not there or cannot make such a union, and PrerequisiteError when none works.
    """
    fitting = candidates(union)
    if wanted not in ("auto", *NAMES):
        raise UsageError(f"union driver {wanted}: there is none of that name", f"auto, {', '.join(NAMES)}")
    if wanted not in ("auto", "aufs", *fitting):
        what = f"{len(union.writable)} writable and {len(union.readonly)} read-only branches"
        raise UsageError(f"union driver {wanted}: it does not make a union of {what}", f"auto, or {', '.join(fitting)}")
    passed_over: list[str] = []
    for driver in fitting if wanted == "auto" else (wanted,):
        verdict = probe(driver)
        if verdict.works:
            return Choice(driver, verdict.detail, tuple(passed_over))
        passed_over.append(f"{driver}: {verdict.detail}")
    raise PrerequisiteError(f"no driver makes this union here: {'; '.join(passed_over)}", "./invoke doctor says more")


def probe(driver: str) -> Verdict:
    """Try a driver, and say how it works here or why not."""
    if driver == "copy":
        return Verdict(driver, True, "the files are copied; later changes of a branch do not show")
    if driver == "aufs":
        listed = "aufs" in _known_types()
        return Verdict(driver, listed, "the kernel's" if listed else "the kernel has none: it is a patch, not in Linux")
    if driver in FUSE_PROGRAMS and shutil.which(driver) is None:
        return Verdict(driver, False, "it is not on the PATH; its Debian package has the same name")
    tries = {"overlay": _try_overlay, "fuse-overlayfs": _try_fuse_overlay, "mergerfs": _try_mergerfs}
    try:
        return Verdict(driver, True, tries[driver]())
    except OSError as error:
        return Verdict(driver, False, in_words(error))
    except TestbedError as error:
        return Verdict(driver, False, error.message)


def probe_all() -> tuple[Verdict, ...]:
    """Try all drivers."""
    return tuple(map(probe, NAMES))


def _known_types() -> set[str]:
    with open("/proc/filesystems") as types:
        return {line.split()[-1] for line in types}


def _in_trial(make: Callable[[str], int]) -> None:
    """Have ``make`` make a union in a directory of a tmpfs, in a namespace of its own; nothing of it stays."""

    def attempt(opened: detached.Descriptors) -> None:
        folder = "/tmp/trial"
        for name in ("lower", "upper", "work"):
            os.makedirs(f"{folder}/{name}")
        made = make(folder)
        mount_api.attach(made, "/tmp/made")

    os.close(detached.in_namespace((), attempt))


def _trial_source() -> str:
    """Return the name of what this process tries."""
    return f"{TRIAL}{os.getpid()}"


def _trial_stack(folder: str) -> Stack:
    return Stack((f"{folder}/lower",), WritableLayer(f"{folder}/upper", f"{folder}/work"), _trial_source())


def _try_overlay() -> str:
    try:
        _in_trial(lambda folder: detached.overlay_by_descriptors(_trial_stack(folder)))
        way = "layers by descriptor"
    except OSError:
        _in_trial(lambda folder: detached.overlay_by_options(_trial_stack(folder)))
        way = "layers by mount options"
    return f"the kernel's, {way}{', userxattr' if detached.in_user_namespace() else ''}"


def _try_fuse_overlay() -> str:
    _in_trial(lambda folder: detached.fuse_overlay(_trial_stack(folder), "fuse-overlayfs"))
    return "a program behind FUSE"


def _try_mergerfs() -> str:
    branches = ("/tmp/trial/lower", "/tmp/trial/upper")
    _in_trial(lambda folder: detached.mergerfs(branches, None, _trial_source(), "mfs", "mergerfs"))
    return "a program behind FUSE, over the kernel's overlay where there are read-only branches"


def can_mount_beneath() -> bool:
    """Return whether the kernel mounts beneath another mount (MOVE_MOUNT_BENEATH, Linux 6.5)."""

    def attempt(opened: detached.Descriptors) -> None:
        for beneath in (False, True):
            with FileSystem.open("tmpfs") as new:
                mount = new.mount()
            mount_api.attach(mount, "/tmp/made", beneath)
            os.close(mount)

    try:
        os.close(detached.in_namespace((), attempt))
    except (OSError, PrerequisiteError):
        return False
    return True


def make(order: Order, choice: Choice) -> int:
    """Return the descriptor of the detached mount of a union. Raises TestbedError, with the kernel's words."""
    try:
        return _MAKERS[choice.driver](order)
    except OSError as error:
        what = f"union {order.union} by {choice}: {in_words(error)}"
        raise PrerequisiteError(what, "the kernel's log may say more: dmesg | tail") from error


def _stack(order: Order) -> Stack:
    """Return what an overlay is made of: the last writable branch over the read-only ones."""
    writable = order.union.writable
    layer = WritableLayer(writable[-1].path, order.work) if writable else None
    return Stack(tuple(branch.path for branch in order.union.readonly), layer, order.source)


def _make_overlay(order: Order) -> int:
    stack = _stack(order)
    try:
        return detached.overlay_by_descriptors(stack)
    except OSError:
        return detached.overlay_by_options(stack)  # whose error counts: every kernel knows that way


def _make_fuse_overlay(order: Order) -> int:
    return detached.fuse_overlay(_stack(order), "fuse-overlayfs")


def _make_mergerfs(order: Order) -> int:
    writable = [branch.path for branch in order.union.writable]
    below = _stack(order) if order.union.readonly else None
    policy = POLICIES[order.union.policy]
    return detached.mergerfs(writable[:-1] if below else writable, below, order.source, policy, "mergerfs")


def _make_copy(order: Order) -> int:
    attribute = USER_OPAQUE_XATTR if detached.in_user_namespace() else OPAQUE_XATTR
    copy_union(tuple(branch.path for branch in order.union.branches), order.work, attribute)
    return mount_api.clone_tree(order.work, MOUNT_ATTR_RDONLY)


def _make_aufs(order: Order) -> int:
    paths = tuple(branch.path for branch in order.union.branches)

    def attempt(opened: detached.Descriptors) -> None:
        shown = detached.show(opened)
        words = ":".join(
            f"{name}={branch.permission}" for name, branch in zip(shown, order.union.branches, strict=True)
        )
        mount_api.mount(order.source, "/tmp/made", "aufs", 0, f"br:{words},create={order.union.policy}")

    return detached.in_namespace(paths, attempt)


_MAKERS: Mapping[str, Callable[[Order], int]] = {
    "overlay": _make_overlay,
    "fuse-overlayfs": _make_fuse_overlay,
    "mergerfs": _make_mergerfs,
    "copy": _make_copy,
    "aufs": _make_aufs,
}
