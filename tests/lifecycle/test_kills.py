"""Whatever is killed while a training runs: no process is left, locks are free, and the same command goes on."""

import signal
import sys
from functools import partial

import pytest

from stages.storage import read_json
from tests.lifecycle.conftest import Server, Start
from tests.lifecycle.project import (
    RUN_SECONDS,
    START_SECONDS,
    Started,
    assert_nothing_left,
    finish_here,
    runner_in,
    wait_until,
)

pytestmark = [
    pytest.mark.timeout(RUN_SECONDS * 2),
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end"),
]

slow = partial(pytest.param, marks=pytest.mark.slow)
KILL, TERM, HANGUP = signal.SIGKILL, signal.SIGTERM, signal.SIGHUP
STAGE = ("stages.train", "dcgan")
REPRO = ("dvc", "repro", "train@dcgan")
RUN = ("pipelines.run", "train", "--no-publish")
FLOW = ("pipelines.flows", "lifecycle", "--no-publish")


def assert_goes_on(started: Started, *line: str, **variables: str) -> None:
    """Assert that the same command uses what was reached and ends well, and that no process is left."""
    kimg = finish_here(started.project)
    done = runner_in(started.project)(*line, **variables)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "dcgan: going on from" in told
    assert read_json(started.project / "models/dcgan/training/record.json")["kimg"] == pytest.approx(kimg, abs=0.016)
    assert_nothing_left(started.project)


@pytest.mark.parametrize(
    ("line", "role", "number"),
    [
        (REPRO, "dvc", KILL),
        (REPRO, "stage", KILL),
        (RUN, "runner", KILL),
        (RUN, "runner", TERM),
        slow(STAGE, "stage", KILL),
        slow(STAGE, "stage", TERM),
        slow(REPRO, "dvc", TERM),
        slow(RUN, "runner", HANGUP),
    ],
)
def test_stopped_training_goes_on(start: Start, line: tuple, role: str, number: signal.Signals) -> None:
    started = start(*line)
    started.wait_for_training()
    started.strike(role, number)
    assert_nothing_left(started.project)
    assert_goes_on(started, *line)


@pytest.mark.parametrize("number", [KILL, slow(TERM)])
@pytest.mark.parametrize("role", ["supervisor", "dvc", "stage"])
def test_runner_goes_on_by_itself_when_a_process_below_it_is_stopped(
    start: Start, role: str, number: signal.Signals
) -> None:
    started = start(*RUN)
    started.wait_for_training()
    started.strike(role, number)
    wait_until(lambda: "dcgan: going on from" in started.told(), "the second attempt", START_SECONDS)
    started.wait_for_training()
    reason = "was killed (SIGKILL); out of memory?" if (role, number) == ("stage", KILL) else "state saved; run again"
    (line,) = [line for line in started.told().splitlines() if line.endswith("attempt 2 in 5 s")]
    assert reason in line
    started.strike("runner", KILL)
    assert_nothing_left(started.project)


@pytest.mark.parametrize("role", ["launcher", "flow", slow("outer supervisor")])
def test_killed_flow_leaves_nothing_and_goes_on(start: Start, server: Server, role: str) -> None:
    started = start(*FLOW, PREFECT_API_URL=server.url)
    started.wait_for_training()
    started.strike(role, KILL)
    assert_nothing_left(started.project)
    if role == "flow":
        assert_goes_on(started, *FLOW, PREFECT_API_URL=server.url)


@pytest.mark.parametrize("role", [slow("launcher"), "served", slow("flow"), slow("outer supervisor")])
def test_killed_schedule_leaves_nothing(start: Start, server: Server, role: str) -> None:
    started = start("pipelines.serve", "--interval", "20", PREFECT_API_URL=server.url)
    started.wait_for_training()
    if role == "flow":  # a run that is due meanwhile is cancelled
        wait_until(lambda: "left out: pipeline is already running" in started.told(), "the next run", START_SECONDS)
    started.strike(role, KILL)
    if role == "flow":  # and the schedule goes on
        wait_until(lambda: "dcgan: going on from" in started.told(), "the next run", START_SECONDS)
        started.wait_for_training()
        started.strike("launcher", TERM)
        assert started.process.returncode == 143
    assert_nothing_left(started.project)
