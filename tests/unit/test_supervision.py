"""No process outlives the one that asked for it, whichever of them is stopped or killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.execution import run_supervised

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups and signals are POSIX")

PATIENCE_SECONDS = 15.0
RUNNER = """
import sys
from pipelines.execution import run_supervised
from stages.errors import Interrupted
from stages.process import STOP
STOP.install(insistent=True)
try:
    sys.exit(run_supervised(sys.argv[1:]))
except Interrupted:
    sys.exit(143)
"""
# Like a training: asked to stop, it saves and exits 143. Like a careless library: it leaves a process in a session of
# its own behind.
SAVING = """
import pathlib, signal, subprocess, sys, time
def save(*_):
    time.sleep(0.3)
    pathlib.Path("saved").write_text("whole")
    sys.exit(143)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, save)
subprocess.Popen(["sleep", "300"], start_new_session=True)
pathlib.Path("started").touch()
while True:
    time.sleep(0.05)
"""
DEAF = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("started").touch()
time.sleep(300)
"""


def supervise(*command: str, grace: float = 60.0) -> subprocess.CompletedProcess:
    """Run a command under the supervisor and wait for both."""
    line = [sys.executable, "-m", "pipelines.supervise", "--grace", str(grace), "--", *command]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


def wait_until(fulfilled: Callable[[], bool], what: str) -> None:
    """Wait for a condition and fail if it does not come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not fulfilled():
        assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE_SECONDS} s"
        time.sleep(0.05)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[str], psutil.Process]]:
    """Start a runner of a script in its own folder and return it once the script says that it has started."""
    runners = []

    def start(script: str) -> psutil.Process:
        runner = subprocess.Popen([sys.executable, "-c", RUNNER, sys.executable, "-c", script], cwd=tmp_path)
        runners.append(runner)
        wait_until((tmp_path / "started").exists, "the command's start")
        return psutil.Process(runner.pid)

    yield start
    for runner in runners:
        runner.kill()
        runner.wait()


def tree_of(runner: psutil.Process) -> list[psutil.Process]:
    """Return supervisor, command and what the command left, in order of their start."""
    family = runner.children(recursive=True)
    assert len(family) >= 2, family
    return family


def assert_gone(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=PATIENCE_SECONDS)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_ended_runner_leaves_no_process_and_the_command_saves(running, tmp_path: Path, number: int) -> None:
    runner = running(SAVING)
    family = tree_of(runner)
    assert len(family) == 3  # supervisor, command, and the command's careless child
    runner.send_signal(number)
    assert_gone([*family, runner])
    assert (tmp_path / "saved").read_text() == "whole"


@pytest.mark.skipif(sys.platform != "linux", reason="a killed supervisor cannot act; only Linux tells its child")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_supervisor_ends_the_command(running, tmp_path: Path, number: int) -> None:
    runner = running(SAVING)
    supervisor, command = tree_of(runner)[:2]
    supervisor.send_signal(number)
    assert_gone([supervisor, command, runner])
    assert (tmp_path / "saved").read_text() == "whole"


def test_second_request_does_not_wait_for_a_deaf_command(running) -> None:
    runner = running(DEAF)
    family = tree_of(runner)
    runner.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    assert all(process.is_running() for process in family)
    runner.send_signal(signal.SIGTERM)
    assert_gone([*family, runner])


def test_deaf_command_is_killed_when_the_grace_is_over(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pipelines.supervise", "--grace", "1", "--", sys.executable, "-c", DEAF]
    supervisor = subprocess.Popen(line, cwd=tmp_path)
    wait_until((tmp_path / "started").exists, "the command's start")
    family = psutil.Process(supervisor.pid).children(recursive=True)
    asked = time.monotonic()
    supervisor.terminate()
    assert supervisor.wait(timeout=PATIENCE_SECONDS) == 128 + signal.SIGKILL
    assert 0.9 < time.monotonic() - asked < 5
    assert_gone(family)


@pytest.mark.parametrize("code", [0, 2, 3, 4, 143])
def test_exit_code_is_the_commands(code: int) -> None:
    assert supervise("sh", "-c", f"exit {code}").returncode == code


def test_killed_command_gives_128_plus_signal() -> None:
    assert supervise("sh", "-c", "kill -9 $$").returncode == 137


def test_absent_command_is_named() -> None:
    done = supervise("no-such-command")
    assert done.returncode == 127
    assert done.stderr == "no-such-command cannot be started: No such file or directory\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to the supervisor")
def test_what_a_finished_command_left_behind_is_ended(tmp_path: Path) -> None:
    left = tmp_path / "pid"
    leave = "p = subprocess.Popen(['sleep', '300'], start_new_session=True)"
    script = f"import subprocess; {leave}; open({str(left)!r}, 'w').write(str(p.pid))"
    assert supervise(sys.executable, "-c", script).returncode == 0
    assert not psutil.pid_exists(int(left.read_text()))


def test_starts_in_a_tenth_of_a_second() -> None:
    quickest = min(_seconds(lambda: supervise("true")) for _ in range(5))
    bare = min(_seconds(lambda: subprocess.run([sys.executable, "-c", ""], check=True)) for _ in range(5))
    assert quickest - bare < 0.1


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def test_output_arrives_line_by_line() -> None:
    lines: list[str] = []
    code = run_supervised(["sh", "-c", "echo one; printf '10%%\\r20%%\\r'; echo two >&2; exit 3"], lines.append)
    assert code == 3
    assert lines == ["one", "10%", "20%", "two"]


CLEANING = """
import pathlib, sys, time
from stages.process import run_stage
def work():
    try:
        pathlib.Path("started").touch()
        time.sleep(300)
    finally:
        time.sleep(0.5)
        pathlib.Path("cleaned").touch()
sys.exit(run_stage("demo", work))
"""


def test_stage_that_is_asked_twice_cleans_up_undisturbed(tmp_path: Path) -> None:
    stage = subprocess.Popen([sys.executable, "-c", CLEANING], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until((tmp_path / "started").exists, "the stage's start")
    stage.terminate()
    time.sleep(0.2)
    stage.terminate()
    _, errors = stage.communicate(timeout=PATIENCE_SECONDS)
    assert (stage.returncode, errors) == (143, "demo: stopped by SIGTERM\n")
    assert (tmp_path / "cleaned").exists()
    assert json.loads((tmp_path / ".work/last/demo.json").read_text())["code"] == 143
