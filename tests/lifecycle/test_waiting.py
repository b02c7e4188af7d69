"""Two runs in one workspace: the second says for whom, and leaves or waits."""

import re
import subprocess
import sys

import pytest

from tests.lifecycle.conftest import Server, Start
from tests.lifecycle.project import (
    RUN_SECONDS,
    START_SECONDS,
    Started,
    assert_nothing_left,
    environment,
    finish_here,
    runner_in,
    wait_until,
)

pytestmark = pytest.mark.timeout(RUN_SECONDS * 2)
RUN = ("pipelines.run", "train", "--no-publish")
SINCE = r"since [-0-9]+ [:0-9]+"


def assert_leaves(started: Started, line: tuple[str, ...], told: str, **variables: str) -> None:
    """Assert that a command ends with 2 and one line beside the one at work."""
    done = runner_in(started.project)(*line, **variables)
    assert done.returncode == 2, done.stdout + done.stderr
    ours = [text for text in done.stderr.splitlines() if re.fullmatch(told, text)]
    assert len(ours) == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def assert_waits(started: Started, told: str) -> None:
    """Assert that a waiting run says for whom, and goes on from what the first has reached when that was stopped."""
    with (started.project.parent / "second").open("w+") as log:
        line = [sys.executable, "-m", *RUN, "--wait"]
        env = environment(started.project)
        second = subprocess.Popen(line, cwd=started.project, env=env, stdout=log, stderr=log)
        log_text = (started.project.parent / "second").read_text
        wait_until(lambda: re.search(told, log_text()) or second.poll() is not None, "the line", START_SECONDS)
        finish_here(started.project, ahead=10)  # a few seconds
        started.process.terminate()
        started.process.wait()  # dvc takes a dead process that nobody has waited for as one that lives
        assert second.wait(RUN_SECONDS) == 0, log_text()
        assert len(re.findall(told, log_text())) == 1
        assert "dcgan: going on from" in log_text()
    assert_nothing_left(started.project)


def test_beside_a_run_all_leave_and_one_waits(start: Start, server: Server) -> None:
    started = start(*RUN)
    started.wait_for_training()
    here = "is already running in this workspace"
    held = rf"pipeline {here} \(process {started.process.pid} {SINCE}: python\S* -m {' '.join(RUN)}\)"
    stage = rf"train@dcgan {here} \(process \d+ {SINCE}: python\S* -m stages.train dcgan\)"
    assert_leaves(started, ("stages.train", "dcgan"), rf"train@dcgan: {stage}; wait for it")
    assert_leaves(started, RUN, rf"run: {held}; wait for it")
    assert_leaves(started, ("pipelines.refresh",), rf"refresh: {held}; wait for it")
    flow = ("pipelines.flows", "lifecycle")
    assert_leaves(started, flow, rf"lifecycle: {held}; wait for it", PREFECT_API_URL=server.url)
    by_hand = runner_in(started.project)("dvc", "repro", "train@dcgan")
    assert by_hand.returncode == 255
    assert "is busy, it is being blocked by" in by_hand.stderr
    assert_waits(started, rf"{held}; waiting for it")


def test_beside_a_dvc_by_hand_a_run_leaves_or_waits(start: Start) -> None:
    started = start("dvc", "repro", "train@dcgan")
    started.wait_for_training()
    other = rf"another dvc works in this project \(process {started.process.pid}: dvc repro train@dcgan\)"
    assert_leaves(started, RUN, rf"run: {other}; wait for it")
    assert_waits(started, rf"{other}; waiting for it")
