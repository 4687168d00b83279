"""A line of trials.jsonl, made up for tests."""

from __future__ import annotations

import msgspec

from testbed.results import Metric, Trial


def make_trial(number: int, value: float, outcome: str = "ok") -> bytes:
    fields = {
        "trial": number,
        "block": 1,
        "platform": "vm",
        "measure": "start",
        "outcome": outcome,
        "metrics": [Metric("ready", value, "s")],
    }
    return msgspec.json.encode(msgspec.convert(msgspec.to_builtins(fields), Trial)) + b"\n"
