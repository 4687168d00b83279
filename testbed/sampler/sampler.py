"""Runs the program that samples beside a trial, and tells what it saw and what it took."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from runtime.cgroups.hierarchy import hierarchies
from runtime.errors import TestbedError
from runtime.speed import scale
from testbed.sampler.build import SAMPLER
from testbed.sampler.plan import INTERVAL_S, PROC, Group, Source, Target, describe_groups, plan_sampling
from testbed.sampler.records import Row, read_records

# Errors by which the kernel says that a cgroup has gone, or was never there.
_GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH)
_TIMEOUT_S = 60.0
_QUOTED_FILES = 3


class Account(Struct, frozen=True):
    """What sampling took: CPU seconds (``cpu_s``) in a window of ``elapsed_s``, by the program's own clock.

    ``opening_s`` of these are the first reading of all files, and ``closing_s`` the last, which comes after the window.
    ``readings`` and ``group_cpu_s`` are by kind of file (testbed.sampler.plan), the first and the last included;
    ``rates_per_s`` is how often each file of a kind was read in between.
    ``late_p99_s`` is how late the ticks came, ``ticks`` how many did, of ``due`` ones.
    """

    elapsed_s: float
    cpu_s: float
    opening_s: float
    closing_s: float
    ticks: int
    due: int
    late_p99_s: float
    readings: Mapping[str, int]
    group_cpu_s: Mapping[str, float]
    rates_per_s: Mapping[str, float]

    @property
    def core(self) -> float:
        """The fraction of a processor that it took in the window."""
        return self.cpu_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


class Sampling(Struct, frozen=True):
    """What a window's samples say: ``lost`` are the names whose cgroup has gone, ``unread`` what could not be read
    otherwise, in words."""

    rows: tuple[Row, ...]
    account: Account
    lost: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()


class Sampler:
    """Samples cgroups and the host ten times a second, from entering to leaving the context.

    Made beforehand, so that on entering it only has to begin. The first sample is taken on entering and the last on
    leaving, so CPU times are complete. ``sampling`` is there after leaving without an error; ``close`` ends one that
    was never entered.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        interval_s: float = INTERVAL_S,
        *,
        limited: bool = True,
    ) -> None:
        netdev = (PROC / "thread-self/net/dev").read_text() if any(one.interfaces for one in targets.values()) else ""
        self._groups = plan_sampling(targets, hierarchies(), netdev)
        self._interval_s = interval_s
        self._records = os.fdopen(os.memfd_create("samples"), "rb")
        self._sampling: Sampling | None = None
        descriptor = self._records.fileno()
        try:
            self._process = subprocess.Popen(
                [SAMPLER.build(), str(descriptor)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(descriptor,),
            )
        except BaseException:
            self._records.close()
            raise
        self._tell(describe_groups(self._groups, interval_s, limited))

    @property
    def sampling(self) -> Sampling:
        """What was sampled; only after the context."""
        assert self._sampling is not None
        return self._sampling

    def __enter__(self) -> Sampler:
        self._tell("go\n")
        assert self._process.stdout
        if self._process.stdout.readline() != b"begun\n":
            raise self._failure()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._sampling = self._finish()
        finally:
            self.close()

    def close(self) -> None:
        """End the program, wherever it is."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr, self._records):
            if stream is not None:
                stream.close()

    def _tell(self, lines: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(lines.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def _finish(self) -> Sampling:
        try:
            said, complaint = self._process.communicate(timeout=scale(_TIMEOUT_S))
        except subprocess.TimeoutExpired as error:
            raise TestbedError(f"sampler: it did not end within {scale(_TIMEOUT_S):g} s") from error
        report = [line.split() for line in said.decode().splitlines()]
        if self._process.returncode or not report or report[-1] != ["end"]:
            raise self._failure(complaint)
        self._records.seek(0)
        return make_sampling(self._records.read(), report, self._groups, self._interval_s)

    def _failure(self, complaint: bytes | None = None) -> TestbedError:
        """Return the error that says how the program ended."""
        if complaint is None:
            self._process.kill()
            complaint = self._process.communicate()[1]
        self.close()
        status = self._process.returncode
        return TestbedError(f"sampler: exit status {status}", complaint.decode(errors="replace").strip()[-2000:])


def make_sampling(data: bytes, report: Sequence[Sequence[str]], groups: Sequence[Group], interval_s: float) -> Sampling:
    """Return what the program's records and the words of its report say."""
    records = read_records(data, groups)
    sources = [source for group in groups for source in group.sources]
    numbers = {line[0]: [int(word) / 1e9 for word in line[1:]] for line in report if line[0] == "took"}
    elapsed_s, cpu_s, opening_s, closing_s = numbers["took"]
    of_groups = [(groups[int(line[1])].name, int(line[2]), int(line[3]) / 1e9) for line in report if line[0] == "group"]
    late = sorted(records.late_ns[1:-1])
    account = Account(
        elapsed_s,
        cpu_s,
        opening_s,
        closing_s,
        len(late),
        int(elapsed_s / interval_s),
        late[len(late) * 99 // 100] / 1e9 if late else 0.0,
        {name: readings for name, readings, _ in of_groups},
        {name: taken_s for name, _, taken_s in of_groups},
        {
            group.name: compute_rate(group, readings, elapsed_s)
            for group, (_, readings, _) in zip(groups, of_groups, strict=True)
        },
    )
    failed = [(sources[int(line[1])], int(line[2])) for line in report if line[0] == "unread"]
    lost = find_lost(failed)
    return Sampling(records.rows, account, lost, tuple(describe_unread(failed, lost)))


def compute_rate(group: Group, readings: int, elapsed_s: float) -> float:
    """Return how often each file of a group was read in a second, without the readings at either end of the window."""
    at_the_ends = 1 if group.is_slow else 2
    return max(readings / len(group.sources) - at_the_ends, 0.0) / elapsed_s if elapsed_s > 0 else 0.0


def find_lost(failed: Sequence[tuple[Source, int]]) -> frozenset[str]:
    """Return the names whose CPU time could not be read any more, because their cgroup had gone."""
    return frozenset(
        column.owner
        for source, code in failed
        for column in source.columns
        if column.name == "cpu_ns" and code in _GONE
    )


def describe_unread(failed: Sequence[tuple[Source, int]], lost: frozenset[str]) -> list[str]:
    """Return what could not be read of those that are not lost, a line for each kind of file and error."""
    kinds: dict[tuple[str, int], list[Path]] = {}
    for source, code in failed:
        if not lost.issuperset(column.owner for column in source.columns):
            kinds.setdefault((source.path.name, code), []).append(source.path)
    lines = []
    for (name, code), paths in kinds.items():
        many = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        lines.append(f"{name}: {os.strerror(code)} ({paths[0]}{many})")
    return lines
