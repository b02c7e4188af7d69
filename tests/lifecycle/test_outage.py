"""A Prefect server that goes away in the middle of a flow costs its own pages, never a result."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from stages.storage import read_json
from tests.lifecycle.conftest import Server
from tests.lifecycle.project import (
    RUN_SECONDS,
    START_SECONDS,
    assert_current,
    assert_nothing_left,
    environment,
    processes_of,
    role_of,
    runner_in,
    set_params,
    states_of,
    wait_until,
)

pytestmark = [
    pytest.mark.timeout(RUN_SECONDS * 2),
    pytest.mark.skipif(os.name != "posix", reason="signals are POSIX"),
]
FLOW = [sys.executable, "-m", "pipelines.flows", "lifecycle"]
KIMG = 4.0
AWAY = "warning: Prefect's server does not answer; going on without it"
UNTOLD = "lifecycle: Prefect's server does not answer"


def begin(project: Path, **variables: str) -> subprocess.Popen:
    """Start the flow and wait until its training has saved a state."""
    set_params(project, **{"models.dcgan.budget_kimg": KIMG})
    with (project.parent / "log").open("w") as log:
        flow = subprocess.Popen(
            FLOW, cwd=project, env=environment(project, **variables), stdout=log, stderr=log, start_new_session=True
        )
    wait_until(lambda: states_of(project) or flow.poll() is not None, "a state", START_SECONDS)
    assert flow.poll() is None, told(project)
    return flow


def told(project: Path) -> str:
    return (project.parent / "log").read_text()


def trained(project: Path) -> bool:
    return (project / "models/dcgan/training/record.json").exists()


def assert_whole(project: Path, flow: subprocess.Popen) -> None:
    """Assert that the flow ended well: all stages, published, nothing stale, no trace, no process."""
    assert flow.wait(RUN_SECONDS) == 0, told(project)
    assert read_json(project / "models/dcgan/training/record.json")["kimg"] == KIMG
    assert "MLflow: dcgan is run" in told(project)
    assert "Traceback" not in told(project)
    assert_current(runner_in(project))
    assert_nothing_left(project)


@pytest.mark.slow
def test_server_killed_for_good(data_project: Path, server: Server) -> None:
    flow = begin(data_project, PREFECT_API_URL=server.url)
    server.kill()
    try:
        assert_whole(data_project, flow)
    finally:
        server.start()
    lines = told(data_project).splitlines()
    assert lines.count(AWAY) == 1
    assert [line.startswith(UNTOLD) for line in lines[-1:]] == [True]


def test_server_that_comes_back_is_told_the_end(data_project: Path, server: Server) -> None:
    flow = begin(data_project, PREFECT_API_URL=server.url)
    server.kill()
    wait_until(lambda: trained(data_project), "the training's end", RUN_SECONDS)
    server.start()
    assert_whole(data_project, flow)
    assert UNTOLD not in told(data_project)
    assert server.last_flow_state() == "COMPLETED"


@pytest.mark.slow
def test_server_that_hangs(data_project: Path, server: Server) -> None:
    flow = begin(data_project, PREFECT_API_URL=server.url, PREFECT_API_REQUEST_TIMEOUT="5")
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        assert_whole(data_project, flow)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert told(data_project).splitlines()[-1].startswith(UNTOLD)


@pytest.mark.slow
def test_prefects_own_server_killed(data_project: Path) -> None:
    flow = begin(data_project)
    (own,) = [process for process in processes_of(data_project) if role_of(process) == "server"]
    own.kill()
    psutil.wait_procs([own], timeout=10)
    assert_whole(data_project, flow)
    assert told(data_project).splitlines()[-1].startswith(UNTOLD)
