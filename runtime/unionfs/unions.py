"""Mount unions and change them while they are in use, as AUFS did: add a branch, take one away, change its permission.

A changed union is made detached and then attached beneath the one that is seen, which is taken away above it: whoever
looks a name up meanwhile sees the old one or the new one. Files that are open stay open in the old one, which goes
with the last of them; so does a process's working directory, which is entered again to see the new one. For that while
two overlays have one writable branch. What is open is the branch's own file, so both show what is written to it; but a
name that a process makes from its working directory in the old one need not show in the new one. Before Linux 6.5 a
mount cannot go beneath another: there the new union covers the old one, which stays until both are unmounted.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EBUSY
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from runtime.atomic import remove
from runtime.errors import PrerequisiteError, UsageError, in_words
from runtime.unionfs import drivers, mount_api
from runtime.unionfs.branches import Union, check_readable, parse_union
from runtime.unionfs.detached import in_user_namespace
from runtime.unionfs.drivers import Choice, Order
from runtime.unionfs.lookup import OPAQUE_XATTR, USER_OPAQUE_XATTR, find_entry, is_whiteout
from runtime.unionfs.mount_api import FileSystem
from runtime.unionfs.records import Generation, Record, Records, generation_of, own_namespace

_NAMED_PROCESSES = 5


class Result(Struct, frozen=True):
    """What became of a union: where it is, what it is made of, by which driver and how, and whether the new one went
    ``beneath`` or ``above`` the old one, or is the first."""

    target: str
    union: str
    driver: str
    detail: str
    attached: str
    passed_over: tuple[str, ...] = ()


class Location(Struct, frozen=True):
    """Which branch a file of a union comes from: its ``branch`` and ``path`` there, both empty where the union has it
    not; which other branches have the name, too; in which it was ``deleted_in``, so that those below do not show; and
    how the union differs from its branches, if it does."""

    file: str
    branch: str
    path: str
    also_in: tuple[str, ...]
    deleted_in: tuple[str, ...]
    driver: str
    differs: str = ""


def mount(words: str, target: str, driver: str = "auto", records: Records | None = None) -> Result:
    """Mount the union that ``br:DIR=rw:DIR=ro`` describes at a directory. Raises TestbedError; nothing is left then."""
    union, records = parse_union(words), records or Records()
    target = _directory(target, "union mount")
    with records.locked(), _told(target):
        if any(one.target == target for one in records.here()):
            raise UsageError(
                f"{target}: there is a union of ours", "union add, del or mod changes it; umount removes it"
            )
        record = Record(secrets.token_hex(4), target, own_namespace(), ())
        return _replace(records, record, union, driver)


def change(target: str, decide: Callable[[Union], Union], records: Records | None = None) -> Result:
    """Have the union at ``target`` become what ``decide`` makes of it; the same branches again show what was changed
    beneath them. Raises TestbedError; the union is then what it was."""
    records = records or Records()
    target = os.path.realpath(target)
    with records.locked(), _told(target):
        record = records.find(target)
        old = record.generation()
        union = decide(old.union)
        return _replace(records, record, union, old.driver if old.driver in drivers.candidates(union) else "auto")


def unmount(target: str, lazy: bool = False, records: Records | None = None) -> None:
    """Unmount a union; ``lazy``, files that are open in it stay open. Raises UsageError while it is in use."""
    records = records or Records()
    target = os.path.realpath(target)
    with records.locked():
        record = records.find(target)
        _check_uncovered(record)
        try:
            mount_api.unmount(target, lazy)
        except OSError as error:
            raise _in_use(f"unmount {target}: {in_words(error)}", target, "or --lazy") from error
        for _ in record.generations:  # those that it has covered
            if _is_in(record, record.target):
                mount_api.unmount(target, lazy=True)
        records.forget(record)


def which(file: str, records: Records | None = None) -> Location:
    """Say from which branch a file of a union comes. Raises UsageError for one that is in no union."""
    path = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(file))), os.path.basename(file.rstrip("/")))
    records = records or Records()
    above = [one for one in records.here() if f"{path}/".startswith(f"{one.target}/")]
    if not above:
        raise UsageError(f"{file}: it is in no union of ours", "union list shows them")
    record = max(above, key=lambda one: len(one.target))
    folder = record.target if path == record.target else os.path.dirname(path)
    if not _is_in(record, folder):
        raise UsageError(f"{file}: another mount covers that part of the union {record.target}")
    name = os.path.relpath(path, record.target)
    generation = record.generation()
    paths = tuple(branch.path for branch in generation.union.branches)
    entry = find_entry(paths, name, USER_OPAQUE_XATTR if in_user_namespace() else OPAQUE_XATTR)
    there = [one for one in generation.union.branches if os.path.lexists(os.path.join(one.path, name))]
    deleted = [one for one in there if is_whiteout(os.lstat(os.path.join(one.path, name)))]
    own = [one for one in there if entry == os.path.normpath(f"{one.path}/{name}")]
    return Location(
        path,
        str(own[0]) if own else "",
        entry or "",
        tuple(str(one) for one in there if one not in own and one not in deleted),
        tuple(map(str, deleted)),
        f"{generation.driver} ({generation.detail})",
        _difference(path, entry),
    )


def _difference(shown: str, entry: str | None) -> str:
    """Return how what a union shows differs from what its branch has: somebody changed the branch beneath it, and the
    kernel keeps what it looked up before."""
    try:
        seen = os.lstat(shown)
    except OSError:
        return "" if entry is None else "the branch has it, the union does not show it yet"
    if entry is None:
        return "no branch has it any more, the union still shows it"
    there = os.lstat(entry)
    same = (seen.st_mode, seen.st_uid, seen.st_mtime_ns) == (there.st_mode, there.st_uid, there.st_mtime_ns)
    return "" if same else "the branch has another state of it than the union shows"


@contextmanager
def _told(target: str) -> Iterator[None]:
    """Turn a refusal of the kernel into an error for a person."""
    try:
        yield
    except OSError as error:
        raise PrerequisiteError(
            f"union at {target}: {in_words(error)}", "run as root, on a local file system"
        ) from error


def _directory(path: str, purpose: str) -> str:
    real = os.path.realpath(path)
    check_readable(real)
    if not os.path.isdir(real):
        raise UsageError(f"{purpose}: {path} is no directory", "make it first")
    return real


def _is_in(record: Record, path: str) -> bool:
    """Return whether a path leads to one of a union's generations, and not to a mount over it."""
    with suppress(OSError):
        top = mount_api.mount_id(path)
        return any(one.id == top and generation_of(record, one) for one in mount_api.mounts())
    return False


def _check_uncovered(record: Record) -> None:
    if not _is_in(record, record.target):
        raise UsageError(f"{record.target}: another mount covers the union", "unmount that first")


def _checked_branches(union: Union, target: str) -> Union:
    """Return the union with real paths. Raises UsageError for a branch that the union would cover."""
    branches = tuple(replace(one, path=_directory(one.path, f"branch {one}")) for one in union.branches)
    for branch in branches:
        if f"{branch.path}/".startswith(f"{target}/"):
            raise UsageError(
                f"branch {branch}: the union at {target} would cover it, and no change of it could find it again",
                "mount the union at another directory",
            )
    return replace(union, branches=branches)


def _replace(records: Records, record: Record, union: Union, wanted: str) -> Result:
    """Make the next generation of a union and let it be seen."""
    union = _checked_branches(union, record.target)
    choice = drivers.choose(union, wanted, drivers.probe)
    number = max((one.number for one in record.generations), default=0) + 1
    work = _work_directory(record, union, choice, number)
    generation = Generation(number, union, choice.driver, choice.detail, work)
    following = replace(record, generations=(*record.generations, generation))
    records.write(following)
    try:
        with ExitStack() as undo:
            if work:
                _make_work(work, union)
            made = drivers.make(Order(union, following.source(number), work), choice)
            undo.callback(os.close, made)
            _check_writable(made, union)
            following = _with_device(following, made)
            records.write(following)
            attached = _attach(record, made, union)
    except BaseException:
        records.repair()  # what is mounted says whether this is to be finished or undone
        raise
    if record.current and (old := record.generation()).driver == "copy":
        remove(Path(old.work))
    records.write(replace(following, current=number))
    return Result(record.target, str(union), choice.driver, choice.detail, attached, choice.passed_over)


def _work_directory(record: Record, union: Union, choice: Choice, number: int) -> str:
    """Return the directory that a driver needs: of overlays beside the writable branch that takes their changes, for
    it must be in the same mount; of copy beside the target."""
    if choice.driver == "copy":
        beside = record.target
    elif union.writable and choice.driver != "aufs" and (union.readonly or choice.driver != "mergerfs"):
        beside = union.writable[-1].path
    else:
        return ""
    return os.path.join(os.path.dirname(beside), f".{record.source(number)}")


def _make_work(work: str, union: Union) -> None:
    upper = union.writable[-1].path if union.writable else ""
    if upper and mount_api.mount_id(os.path.dirname(work)) != mount_api.mount_id(upper):
        raise PrerequisiteError(
            f"branch {upper}=rw: it is a mount point, and the driver needs room beside it in the same mount",
            f"make a directory in {upper} the branch",
        )
    try:
        os.mkdir(work, 0o700)
    except OSError as error:
        raise PrerequisiteError(f"make {work}, which the driver needs: {error.strerror}") from error


def _with_device(record: Record, made: int) -> Record:
    """Return the record with the file system of its newest generation."""
    *before, newest = record.generations
    number = os.fstat(made).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    return replace(record, generations=(*before, replace(newest, device=device)))


def _check_writable(made: int, union: Union) -> None:
    """Raise PrerequisiteError when the file system of a writable branch takes no writes, which drivers pass over."""
    flags = os.fstatvfs(made).f_flag
    if union.writable and flags & os.ST_RDONLY:
        paths = ", ".join(branch.path for branch in union.writable)
        raise PrerequisiteError(f"union {union}: {paths} is on a read-only file system", "call the branch ro")


def _attach(record: Record, made: int, union: Union) -> str:
    """Let the next generation be seen in place of the current one. Raises UsageError when a branch is to become
    read-only while files are open for writing."""
    target = record.target
    if not record.current:
        mount_api.attach(made, target)
        return "first"
    _check_uncovered(record)
    withdrawn = set(record.generation().union.writable) - set(union.writable)
    with ExitStack() as undo:
        if withdrawn:
            _make_readonly(target, ", ".join(branch.path for branch in withdrawn))
            undo.callback(_set_readonly, target, False)
        try:
            mount_api.attach(made, target, beneath=True)
        except OSError:
            if drivers.can_mount_beneath():
                raise
            mount_api.attach(made, target)
            undo.pop_all()
            return "above"
        mount_api.unmount(target, lazy=True)
        undo.pop_all()
    return "beneath"


def _set_readonly(target: str, readonly: bool) -> None:
    with FileSystem.pick(target) as old:
        old.set_flag("ro" if readonly else "rw")
        old.reconfigure()


def _make_readonly(target: str, branches: str) -> None:
    """Have the union that is seen take no more writes, for files that are open in it would go on to reach the branches
    that are withdrawn from it."""
    try:
        _set_readonly(target, True)
    except OSError as error:
        if error.errno != EBUSY:
            raise PrerequisiteError(f"make the union {target} read-only: {in_words(error)}") from error
        what = f"{branches}: it cannot be taken from writing while files are open for that in {target}"
        raise _in_use(what, target, "") from error


def _in_use(what: str, target: str, instead: str) -> UsageError:
    users = list_users(target)
    named = ", ".join(map(str, users[:_NAMED_PROCESSES])) + (" and more" if len(users) > _NAMED_PROCESSES else "")
    hint = f"end or wait for process {named}" if users else "a process of another namespace uses it"
    return UsageError(what, f"{hint}; {instead}" if instead else hint)


def list_users(target: str) -> list[int]:
    """Return the processes that have a file or their working directory below a path."""
    users = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            links = [f"/proc/{pid}/cwd", *(f"/proc/{pid}/fd/{one}" for one in os.listdir(f"/proc/{pid}/fd"))]
            if any(f"{_read_link(link)}/".startswith(f"{target}/") for link in links):
                users.append(int(pid))
    return users


def _read_link(link: str) -> str:
    with suppress(OSError):
        return os.readlink(link)
    return ""
