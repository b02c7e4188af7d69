"""Ctrl-C in a terminal, and a terminal that is closed, while a training runs."""

import os
import pty
import re
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.storage import read_json
from tests.conftest import ROOT
from tests.lifecycle.conftest import Server
from tests.lifecycle.project import (
    END_SECONDS,
    ENDLESS_KIMG,
    RUN_SECONDS,
    START_SECONDS,
    assert_nothing_left,
    environment,
    finish_here,
    processes_of,
    runner_in,
    set_params,
    states_of,
)

pytestmark = [
    pytest.mark.timeout(RUN_SECONDS * 2),
    pytest.mark.skipif(sys.platform != "linux", reason="a controlling terminal is needed"),
]

CTRL_C = b"\x03"
STAGE = ("stages.train", "dcgan")
REPRO = ("dvc", "repro", "train@dcgan")
RUN = ("pipelines.run", "train", "--no-publish")
FLOW = ("pipelines.flows", "lifecycle", "--no-publish")


class Terminal:
    """A command with a terminal of its own, as a shell would start it."""

    def __init__(self, folder: Path, command: list[str], env: dict[str, str]) -> None:
        self.text = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(command[0], command, env)

    def read(self, seconds: float) -> bool:
        """Take what is printed within some seconds and return whether the terminal is still open."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            self.text += os.read(self.master, 1 << 16)
        except OSError:  # the last process that had it open has ended
            return False
        return True

    def read_until(self, fulfilled: Callable[[], object], seconds: float) -> None:
        """Take what is printed until a condition comes."""
        deadline = time.monotonic() + seconds
        while not fulfilled():
            assert time.monotonic() < deadline, self.told()
            assert self.read(0.1), self.told()

    def wait(self) -> int:
        """Take the rest of what is printed and return the exit code."""
        deadline = time.monotonic() + END_SECONDS
        while self.read(0.1):
            assert time.monotonic() < deadline, self.told()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self.master, key)

    def close(self) -> int:
        """Close the terminal's window and return the command's exit code."""
        os.close(self.master)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def told(self) -> str:
        """Return what was printed so far."""
        return self.text.decode(errors="replace")


@pytest.fixture
def in_terminal(data_project: Path) -> Iterator[Callable[..., Terminal]]:
    """Start a command in a terminal and wait until its training has saved a state."""

    def begin(*command: str, **variables: str) -> Terminal:
        set_params(data_project, **{"models.dcgan.budget_kimg": ENDLESS_KIMG})
        terminal = Terminal(data_project, list(command), environment(data_project, **variables))
        terminal.read_until(lambda: states_of(data_project), START_SECONDS)
        return terminal

    yield begin
    for process in processes_of(data_project):
        process.kill()


def lines_of(told: str) -> list[str]:
    """Return a terminal's lines without colours, the echo of keys and empty lines."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\^C", "", told).replace("\r", "\n")
    return [line.strip() for line in plain.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("line", "code", "last"),
    [
        (STAGE, 143, "train@dcgan: stopped at "),
        (REPRO, 255, "ERROR: failed to reproduce 'train@dcgan': failed to run: exec python -m stages.train dcgan"),
        (RUN, 143, "run: stopped by SIGINT"),
    ],
)
def test_ctrl_c_saves_and_the_same_command_goes_on(
    in_terminal, data_project: Path, line: tuple, code: int, last: str
) -> None:
    terminal = in_terminal(sys.executable, "-m", *line)
    terminal.press(CTRL_C)
    assert terminal.wait() == code
    assert_stopped_well(terminal, data_project, last)
    finish_here(data_project)
    again = runner_in(data_project)(*line)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "dcgan: going on from" in again.stdout + again.stderr


def assert_stopped_well(terminal: Terminal, project: Path, last: str) -> None:
    """Assert that the training saved, nothing is left, and the terminal shows no trace but one clear line."""
    assert_nothing_left(project)
    assert "Traceback" not in terminal.told()
    assert lines_of(terminal.told())[-1].startswith(last), terminal.told()
    note = read_json(project / ".work/last/train@dcgan.json")
    assert note["code"] == 143
    assert "state saved" in note["reason"]


def test_ctrl_c_stops_a_flow(in_terminal, data_project: Path, server: Server) -> None:
    terminal = in_terminal(sys.executable, "-m", *FLOW, PREFECT_API_URL=server.url)
    terminal.press(CTRL_C)
    assert terminal.wait() == 143
    assert_stopped_well(terminal, data_project, "flows: stopped by SIGINT")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_ctrl_c_stops_make(in_terminal, data_project: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, data_project)
    python = data_project / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (data_project / ".venv/.installed").touch()
    terminal = in_terminal(str(shutil.which("make")), "repro")
    terminal.press(CTRL_C)
    assert terminal.wait() != 0
    assert "run: stopped by SIGINT" in terminal.told()
    assert_nothing_left(data_project)
    assert "Traceback" not in terminal.told()
    assert read_json(data_project / ".work/last/train@dcgan.json")["code"] == 143


@pytest.mark.parametrize(
    "line", [pytest.param(STAGE, marks=pytest.mark.slow), pytest.param(REPRO, marks=pytest.mark.slow), RUN]
)
def test_closed_terminal_leaves_nothing(in_terminal, data_project: Path, line: tuple) -> None:
    terminal = in_terminal(sys.executable, "-m", *line)
    terminal.close()
    assert_nothing_left(data_project)
    finish_here(data_project)
    again = runner_in(data_project)(*line)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "dcgan: going on from" in again.stdout + again.stderr
