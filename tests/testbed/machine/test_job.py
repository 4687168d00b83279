"""An error in the reference machine is the same error outside."""

from __future__ import annotations

import pytest

from runtime.errors import PrerequisiteError, TestbedError, UsageError, WorkloadError
from testbed.machine.job import Outcome, describe_error


@pytest.mark.parametrize("kind", [UsageError, PrerequisiteError, WorkloadError, TestbedError])
def test_an_error_is_the_same_outside(kind: type[TestbedError]) -> None:
    error = describe_error(kind("what", "do")).error()
    assert type(error) is kind and (error.message, error.hint) == ("what", "do")


def test_an_internal_error_names_itself() -> None:
    error = describe_error(KeyError("x")).error()
    assert type(error) is TestbedError and error.message == "KeyError: 'x'"
    assert Outcome("run").error() is None
