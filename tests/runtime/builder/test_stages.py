"""Which stages of a Dockerfile are needed, and what their names mean: decided without executing anything."""

from __future__ import annotations

import time

import pytest

from runtime.builder.dockerfile import Dockerfile, parse
from runtime.builder.stages import MOST_STAGES, Planned, before_line, plan_stages
from runtime.errors import UsageError
from runtime.images.model import Image, ImageConfig

BASES = {
    "base": ImageConfig(),
    "triggering": ImageConfig(on_build=("COPY . /src", "RUN make <<EOF\n1\nEOF")),
    "broken": ImageConfig(on_build=("FROM x",)),
}


def plan(text: str, target: str = "", **variables: str) -> tuple[Planned, ...]:
    def resolve(reference: str, platform: str) -> Image | None:
        if reference not in BASES:
            return None
        return Image(f"{reference}@{platform}" if platform else reference, reference, BASES[reference], ())

    return plan_stages(parse(text), target, variables, resolve)


def names(planned: tuple[Planned, ...]) -> list[str]:
    return [one.stage.name or str(one.stage.number) for one in planned]


THREE = "FROM base AS one\nFROM base AS two\nFROM one AS three\nCOPY --from=two /a /b\nFROM base AS four\nFROM base\n"


@pytest.mark.parametrize(
    ("target", "needed"),
    [("", ["4"]), ("three", ["one", "two", "three"]), ("Three", ["one", "two", "three"]), ("0", ["one"]), ("4", ["4"])],
)
def test_only_what_the_target_needs_is_executed_after_what_it_needs(target: str, needed: list[str]) -> None:
    assert names(plan(THREE, target)) == needed


def test_what_from_means_in_each_instruction() -> None:
    text = (
        "FROM base AS build\nFROM base\nCOPY --from=build /a /\nCOPY --from=0 /a /\nCOPY --from=triggering /x /\n"
        "RUN --mount=type=bind,from=BUILD,target=/m true\nRUN --mount=target=/c true\n"
    )
    *_, last = plan(text)
    assert {name: one.reference if isinstance(one, Image) else one for name, one in last.sources.items()} == {
        "build": 0, "0": 0, "triggering": "triggering", "BUILD": 0,
    }  # fmt: skip
    assert last.needs == {0}


def test_a_stage_may_be_called_as_the_image_that_it_is_from() -> None:
    [one] = plan("FROM base AS base\n")
    assert isinstance(one.parent, Image)
    first, second = plan("FROM base AS base\nFROM base AS base\n")
    assert (first.stage.number, second.parent) == (0, 0)


def test_from_takes_variables_and_a_platform() -> None:
    [one] = plan("FROM --platform=$BUILDPLATFORM ${A:-base}\n", BUILDPLATFORM="linux/amd64")
    assert isinstance(one.parent, Image) and one.parent.reference == "base@linux/amd64"


def test_triggers_come_first_from_an_image_and_from_a_stage() -> None:
    [one] = plan("\nFROM triggering\nUSER x\n")
    assert [(entry.name, entry.line, entry.trigger) for entry in one.instructions] == [
        ("COPY", 2, True), ("RUN", 2, True), ("USER", 3, False),
    ]  # fmt: skip
    assert one.instructions[1].heredocs[0].content == "1\n"
    *_, last = plan("FROM base AS p\nONBUILD COPY --from=q /a /\nFROM base AS q\nFROM p\n")
    assert [str(entry) for entry in last.instructions] == ["COPY --from=q /a /"]
    assert last.needs == {0, 1}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("FROM nothing\n", 1, "FROM nothing: no such image"),
        ("FROM base\nCOPY --from=nothing /a /\n", 2, "COPY from nothing: no such image"),
        ("FROM base\nCOPY --from=0 /a /\n", 2, "no stage before this one has the number 0"),
        ("FROM base\nCOPY --from=99999999999999999999 /a /\n", 2, "has the number 9999"),
        ("FROM base AS a\nCOPY --from=a /a /\n", 1, "a circle"),
        ("FROM base AS a\nCOPY --from=b /a /\nFROM a AS b\n", 1, "a circle"),
        ("FROM $NOTHING\n", 1, "'$NOTHING' is empty here"),
        ("FROM ${A:?missing}\n", 1, "FROM: A: missing"),
        ("FROM broken\n", 1, "ONBUILD of broken"),
    ],
)
def test_errors_name_their_line(text: str, line: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(text, "0" if "circle" in message else "")
    assert caught.value.message.startswith(f"Dockerfile:{line}: ") and message in caught.value.message


def test_an_unknown_target_is_told_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="no stage 'five'") as caught:
        plan(THREE, "five")
    assert caught.value.hint == "stages: one, two, three, four"


def test_an_image_that_no_needed_stage_is_from_is_not_looked_for() -> None:
    assert names(plan("FROM nothing AS a\nFROM base\n")) == ["1"]


def test_there_may_be_many_stages_but_not_any_number() -> None:
    began = time.monotonic()
    chain = "FROM base AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(MOST_STAGES - 1))
    assert len(plan(chain)) == MOST_STAGES
    with pytest.raises(UsageError, match=f"Dockerfile:{MOST_STAGES + 1}: more than {MOST_STAGES} stages"):
        plan(chain + "FROM base\n" * 50_000)
    assert time.monotonic() - began < 10


def test_what_comes_before_a_line() -> None:
    file = parse("FROM base AS a\nRUN one\nRUN two\nFROM base\nRUN three\n")

    def before(line: int) -> tuple[list[str], str]:
        cut: Dockerfile
        cut, target = before_line(file, line)
        return [str(entry) for entry in cut.instructions], target

    assert before(3) == (["FROM base AS a", "RUN one"], "0")
    assert before(5) == (["FROM base AS a", "RUN one", "RUN two", "FROM base"], "1")
    with pytest.raises(UsageError, match=r"Dockerfile:4: no instruction begins there") as caught:
        before(4)
    assert caught.value.hint == "they begin in the lines 2, 3, 5"
