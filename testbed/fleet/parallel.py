"""Calls a pure function on many arguments, on as many processes as are asked for."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from runtime.errors import UsageError

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")
MOST_WORKERS = 256


def spread(function: Callable[[_Argument], _Result], arguments: Sequence[_Argument], workers: int = 1) -> list[_Result]:
    """Return the results in the arguments' order; the same for any number of workers."""
    if not 1 <= workers <= MOST_WORKERS:
        raise UsageError(f"--workers {workers}", f"1 to {MOST_WORKERS}")
    if workers == 1 or len(arguments) < 2:
        return [function(one) for one in arguments]
    # What is forked has this process's threads half; what is spawned begins afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(arguments)), mp_context=context) as pool:
        return list(pool.map(function, arguments))
