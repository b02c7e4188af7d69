"""Projects whose data is made once and copied for each test, and a Prefect server for all."""

import json
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import tiny_params
from tests.lifecycle.project import START_SECONDS, Started, environment, make_project, runner_in, wait_until

Start = Callable[..., Started]


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data stages have run."""
    project = make_project(tmp_path_factory.mktemp("made") / "project", tiny_params())
    done = runner_in(project)("pipelines.run", "augment", "--no-publish")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def data_project(made_data: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made_data, tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def start(data_project: Path) -> Iterator[Start]:
    """Start a front door in the project, training without an end; what is left after the test is killed."""
    started: list[Started] = []

    def begin(*line: str, **variables: str) -> Started:
        started.append(Started(data_project, *line, **variables))
        return started[-1]

    yield begin
    for one in started:
        one.end()


class Server:
    """A Prefect server that can be killed and started again under the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        line = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(self.port)]
        with (self.folder / "server.log").open("a") as log:
            env = environment(self.folder)
            self.process = subprocess.Popen(line, cwd=self.folder, env=env, stdout=log, stderr=log)
        wait_until(self.answers, "the answer of a Prefect server", START_SECONDS)

    def answers(self) -> bool:
        """Return whether it says that it is well."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def last_flow_state(self) -> str:
        """Return the type of the state in which the newest flow run is."""
        query = json.dumps({"sort": "START_TIME_DESC", "limit": 1}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/flow_runs/filter", query, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(json.load(answer)[0]["state_type"])

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Prefect server of the test module's own."""
    server = Server(tmp_path_factory.mktemp("server") / "home")
    yield server
    server.kill()
