"""Work, done for real by a process in a cgroup that answers when it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.errors import UsageError
from runtime.images.model import ImageConfig
from testbed.measures.context import RunContext
from testbed.measures.schedule import PlannedTrial
from testbed.measures.trials import run_trials
from testbed.measures.work import parse_figures, require_work
from testbed.results import Metric
from testbed.scenario.work import Work

MakeContext = Callable[..., RunContext]
PORT = 18080
WORK = Work("web", PORT, "/run", 5.0, 50.0, (("speed", "MiB/s"), ("latency", "us")))
PLANNED = PlannedTrial(7, 3, "local", "work")

# Answers the ready check at once; what /run answers, and when, its environment says.
SERVER = """
import os, socket, time
address, port = os.environ["LISTEN"], int(os.environ["PORT"])
listener = socket.create_server((address, port))
while True:
    connection = listener.accept()[0]
    line = connection.recv(65536).split(b"\\r\\n")[0]
    body, status = b"ready", b"200 OK"
    if line.startswith(b"GET /run"):
        ends = time.thread_time() + float(os.environ.get("BURN_S", "0"))
        while time.thread_time() < ends:
            pass
        if os.environ.get("DIE"):
            print("no more", flush=True)
            os._exit(3)
        time.sleep(float(os.environ.get("SLEEP_S", "0")))
        body = os.environ.get("ANSWER", "").encode()
        status = os.environ.get("STATUS", "200 OK").encode()
    connection.sendall(b"HTTP/1.0 " + status + b"\\r\\nContent-Type: text/plain\\r\\n\\r\\n" + body)
    connection.close()
"""


@pytest.fixture
def measure(make_context: MakeContext) -> Callable[..., Any]:
    """Have the work done once, in an environment, and return the trial."""

    def run(work: Work = WORK, **environment: str) -> Any:
        context = make_context(web=environment, work=work)
        command = (*context.images["web"].config.cmd[:-1], SERVER)
        images = {**context.images, "web": replace(context.images["web"], config=ImageConfig(cmd=command))}
        context = replace(context, images=images)
        run_trials(context, PLANNED)
        (trial,) = context.folder.trials()
        return trial, context

    return run


@pytest.mark.root
def test_figures_are_recorded_in_base_units_beside_what_they_took(measure: Callable[..., Any]) -> None:
    trial, context = measure(BURN_S="0.2", ANSWER="a line of text\nspeed=2.5 latency=300\nother=1\n")
    assert (trial.trial, trial.block, trial.measure, trial.outcome) == (7, 3, "work", "ok")
    figures = {one.metric: one for one in trial.metrics}
    assert figures["speed"] == Metric("speed", 2.5 * 2**20, "bytes/s")
    assert figures["latency"].unit == "s" and figures["latency"].value == pytest.approx(0.0003)
    assert "other" not in figures
    assert 0.2 <= figures["work_duration"].value < 5
    assert 0.2 <= figures["work_cpu"].value < 2
    assert figures["work_memory"].value > 1 << 20
    assert figures["page_faults"].value >= 0
    assert b"a line of text" in context.folder.log_path("t007-work").read_bytes()


@pytest.mark.root
@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"ANSWER": "speed=1"}, "the answer has no latency="),
        ({"ANSWER": "speed=1 latency=1 speed=2"}, "the answer has 2 speed="),
        ({"ANSWER": "speed=fast latency=1"}, "speed='fast' is no number"),
        ({"ANSWER": "broken\x1b[31m", "STATUS": "500 Broken"}, "GET /run on web: status 500"),
        ({"SLEEP_S": "30"}, "GET /run on web: no answer within 1 s"),
        ({"DIE": "1"}, "the first process of web has ended"),
    ],
)
def test_work_that_fails_says_why(environment: dict[str, str], reason: str, measure: Callable[..., Any]) -> None:
    trial, _ = measure(replace(WORK, timeout_s=1.0), **environment)
    assert trial.outcome == "failed" and trial.metrics == ()
    assert reason in trial.reason
    assert "\x1b" not in trial.details


@pytest.mark.root
def test_a_long_answer_is_read_to_its_end(measure: Callable[..., Any]) -> None:
    trial, _ = measure(ANSWER=f"speed=1 {'latency ' * 10_000} latency=1")
    assert trial.outcome == "ok"


def test_figures_are_words_between_blanks() -> None:
    found = parse_figures(WORK, b"xspeed=9\tspeed=1\nlatency=2e3\r\nlatency_p99=7 \xff\xfe")
    assert found == (Metric("speed", 2.0**20, "bytes/s"), Metric("latency", 2e3 * 1e-6, "s"))


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e16", "1_0x", ""])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no number from 0"):
        parse_figures(WORK, f"speed={text} latency=1".encode())


def test_a_scenario_without_work_has_none_to_measure() -> None:
    with pytest.raises(UsageError, match="scenario small has no work"):
        require_work(None, "small")
    assert require_work(WORK, "small") is WORK
