"""The launcher's reader of plans under libFuzzer with the sanitizers, for a stated number of executions, from what it
once crashed on and with the numbers at which things wrap."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from runtime.launcher.build import INCLUDES, sources
from runtime.plan import steps as s
from runtime.plan.encode import encode, magic
from runtime.plan.steps.arguments import layout
from tests.fuzzing import compile_fuzzer
from tests.runtime.launcher.damaged_plans import DAMAGED
from tests.runtime.plan.any_step import step_of

EXECUTIONS = 400_000
EDGES = [edge + more for edge in (0, 1 << 12, 1 << 16, 1 << 31, 1 << 32, 1 << 63, 1 << 64) for more in (-1, 0, 1)]
SEEDS = (
    s.Plan((s.Exec(("/bin/true", "a"), ("A=b",), "/bin"),), (s.Write("/x", ("a", "b"), tolerate=(1, 2)),)),
    s.Plan((s.Mount("a", "b", "c", 1, "d"), s.SetUser(1, 2, (3, 4)), s.Chdir("/")), into_cgroup="/c"),
    s.Plan((*s.forked(s.Umask(0), s.Exec(("a",), append_arguments=True)), s.Exec(("b", "c"), ("D=e",)))),
)


def dictionary() -> str:
    """The operations' codes, and the edges of numbers in the widths that the formats have, as libFuzzer reads them."""
    limits = {number.largest for kind in s.OPERATIONS for _, number in layout(kind).numbers}
    edges = {*EDGES, *limits, *(limit + 1 for limit in limits)}
    words = {edge.to_bytes(size, "little") for size in (4, 8) for edge in edges if 0 <= edge < 1 << 8 * size}
    words |= {code.to_bytes(2, "little") for code in range(1, len(s.OPERATIONS) + 1)} | {magic()}
    escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in sorted(words))
    return "".join(f'"{word}"\n' for word in escaped)


def written(folder: Path, inputs: Mapping[str, bytes]) -> list[Path]:
    for name, data in inputs.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in inputs]


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    used = [str(Path(__file__).with_name("fuzz_plan.c")), *(path for path in sources() if path.endswith("/plan.c"))]
    return compile_fuzzer(tmp_path_factory.mktemp("fuzzer") / "fuzz", used, INCLUDES)


def test_what_the_reader_once_crashed_on_is_read(fuzzer: Path, tmp_path: Path) -> None:
    crashers = [str(path) for path in written(tmp_path, DAMAGED)]
    done = subprocess.run([fuzzer, *crashers], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("Executed ") == len(crashers)


def test_no_input_makes_the_reader_leave_its_bytes(fuzzer: Path, tmp_path: Path) -> None:
    corpus, words = tmp_path / "corpus", tmp_path / "words"
    corpus.mkdir()
    words.write_text(dictionary())
    written(corpus, DAMAGED)
    written(corpus, {kind.__name__: encode(s.Plan((step_of(kind),))) for kind in s.OPERATIONS if kind is not s.Fork})
    for number, plan in enumerate(SEEDS):
        (corpus / str(number)).write_bytes(encode(plan))
    command = [
        str(fuzzer),
        f"-dict={words}",
        f"-runs={EXECUTIONS}",
        "-seed=1",
        "-max_len=4096",
        "-print_final_stats=1",
        str(corpus),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"stat::number_of_executed_units: {EXECUTIONS}" in done.stderr
