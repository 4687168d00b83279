"""What differs between what a run in the reference machine gave and what it gave when it was run again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest

import msgspec
from msgspec import Struct

from runtime.errors import UsageError
from testbed.ladder.model import FILE, Ladder
from testbed.ladder.store import decode_ladder
from testbed.results import TRIALS, Trial

_NOTHING = "nothing"


class Difference(Struct, frozen=True):
    """What differs between two runs: a ``metric`` (or another field), and the number of the first trial in which it
    does; 0 for what is not of a trial, as a probe's verdict."""

    metric: str
    trial: int
    expected: str
    found: str

    def __str__(self) -> str:
        since = f" from trial {self.trial} on" if self.trial else ""
        return f"{self.metric} differs{since}: {self.found} instead of {self.expected}"


def compare_trials(expected: bytes, found: bytes) -> tuple[Difference, ...]:
    """Return what differs between two trials.jsonl, each metric once, at its first difference; empty when nothing
    does. Raises UsageError for a line that is no trial."""
    if expected == found:
        return ()
    try:
        before, after = (
            [msgspec.json.decode(line, type=Trial) for line in text.splitlines()] for text in (expected, found)
        )
    except msgspec.MsgspecError as error:
        raise UsageError(f"the bundle's {TRIALS}: {error}", "fetch it again") from error
    first: dict[str, Difference] = {}
    for one, other in zip(before, after, strict=False):
        values = [{metric.metric: repr(metric.value) for metric in trial.metrics} for trial in (one, other)]
        for trial, fields in ((one, values[0]), (other, values[1])):
            fields["outcome"] = trial.outcome
            fields["platform and measure"] = f"{trial.platform} {trial.measure}"
        for name in sorted({*values[0], *values[1]}):
            pair = [fields.get(name, _NOTHING) for fields in values]
            if pair[0] != pair[1] and name not in first:
                first[name] = Difference(name, one.trial, *pair)
    if len(before) != len(after):
        first["trials"] = Difference("trials", min(len(before), len(after)), str(len(before)), str(len(after)))
    if not first:
        first["details"] = Difference("details", 0, "those of the bundle", "others")
    return tuple(first.values())


def compare_ladders(expected: bytes, found: bytes) -> tuple[Difference, ...]:
    """Return what differs between the results of two runs of the ladder (testbed.ladder.store.encode_results): each
    probe's verdict, and each figure at its first trial that does; empty when nothing does. Raises UsageError for what
    is no such record."""
    if expected == found:
        return ()
    before, after = (decode_ladder(one, f"the bundle's {FILE}") for one in (expected, found))
    differences = (*_compare_verdicts(before, after), *_compare_figures(before, after))
    return differences or (Difference("details", 0, "those of the bundle", "others"),)


def _compare_verdicts(before: Ladder, after: Ladder) -> Iterator[Difference]:
    was, became = ({(one.rung, one.probe): one.verdict for one in ladder.outcomes} for ladder in (before, after))
    for rung, probe in sorted({*was, *became}):
        pair = (str(verdicts.get((rung, probe), _NOTHING)) for verdicts in (was, became))
        yield from _tell(f"{rung}: {probe}", 0, *pair)


def _compare_figures(before: Ladder, after: Ladder) -> Iterator[Difference]:
    was, became = (
        {(one.rung, one.metric): one.values for one in ladder.costs}
        | {(one.rung, f"{one.attack} as pressure"): tuple(one.figures.values()) for one in ladder.pressures}
        for ladder in (before, after)
    )
    for rung, metric in sorted({*was, *became}):
        pairs = zip_longest(was.get((rung, metric), ()), became.get((rung, metric), ()))
        different = ((number, pair) for number, pair in enumerate(pairs, 1) if pair[0] != pair[1])
        for number, pair in list(different)[:1]:
            yield from _tell(f"{rung}: {metric}", number, *(_NOTHING if one is None else repr(one) for one in pair))


def _tell(metric: str, trial: int, expected: str, found: str) -> Iterator[Difference]:
    if expected != found:
        yield Difference(metric, trial, expected, found)
