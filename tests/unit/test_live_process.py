"""Following as a thread and as a command: damage, interruption, other processes, dead runs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import live, publish
from pipelines.live import Follower, followed
from pipelines.plan import Step
from pipelines.publish import publish_all, tracking_uri, writing
from pipelines.sessions import running_sessions
from stages.process import WORK, stage_lock
from stages.settings import load_settings
from tests.unit.live_training import (
    FINGERPRINT,
    MINUTE,
    NAME,
    TRAIN,
    FakeTraining,
    folder_of,
    tick_and_count,
    wait_for,
    write_parts,
    write_results,
    write_state,
)
from tests.unit.mlflow_database import points, rows


def test_damaged_file_is_one_line_and_no_trace(training: FakeTraining, follower: Follower, told: list[str]) -> None:
    training.start()
    (folder_of() / "fingerprint.json").write_text("{")
    follower.tick()
    follower.tick()
    assert [line.split(";")[1] for line in told] == [" the training goes on, and what is missing is filled in later"]
    write_parts()
    follower.tick()
    assert rows("SELECT status FROM runs") == [("RUNNING",)]


def test_states_that_are_deleted_while_followed_end_nothing(
    training: FakeTraining, follower: Follower, told: list[str]
) -> None:
    training.start()
    write_state(20)
    follower.tick()
    shutil.rmtree(WORK / "train")
    follower.tick()
    training.end()
    follower.tick(last=True)
    assert not follower.followed
    assert len(told) == 1


def test_publishing_elsewhere_is_waited_for_without_a_word(
    training: FakeTraining, follower: Follower, told: list[str]
) -> None:
    training.start()
    write_state(20)
    with writing(0):
        follower.tick()
    assert not Path("mlflow.db").exists() or rows("SELECT 1 FROM runs") == []
    assert told == []
    follower.tick()
    assert len(points("loss_generator")) == 2


def test_publishing_waits_for_the_follower_and_gives_up_with_a_warning(
    training: FakeTraining, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_results(20)
    monkeypatch.setattr(publish, "LIVE_PATIENCE_SECONDS", 0.1)
    with writing(0):
        assert publish_all(load_settings(), told.append) == []
    assert told[0].startswith(f"WARNING: {NAME} not published, MLflow at sqlite:")
    assert publish_all(load_settings(), told.append) == [NAME]


def test_nothing_is_started_where_nothing_trains(empty_workspace: Path, told: list[str]) -> None:
    steps = [Step(f"evaluate@{NAME}", ["its command has changed"], [], None)]
    with followed(steps, told.append):
        assert "live" not in [thread.name for thread in threading.enumerate()]


def test_thread_follows_while_the_block_runs_and_tells_the_end(
    training: FakeTraining, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    with followed([TRAIN], told.append):
        training.start()
        write_state(20)
        wait_for(lambda: bool(told))
        training.end(code=143, reason="stopped by SIGTERM")
    assert rows("SELECT status FROM runs") == [("KILLED",)]
    assert points("loss_generator") == [(10, 0.1), (20, 0.05)]


def test_thread_takes_over_when_the_other_follower_ends(
    training: FakeTraining, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    training.start()
    with stage_lock("live"), followed([TRAIN], told.append):
        time.sleep(0.5)
        assert told == []
    with followed([TRAIN], told.append):
        wait_for(lambda: bool(told))


def test_command_follows_once_and_a_second_one_leaves(training: FakeTraining) -> None:
    training.start()
    command = [sys.executable, "-m", "pipelines.live", "--once"]
    with stage_lock("live"):
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert refused.stderr.startswith("live: live is already running in this workspace")
    write_state(20)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(points("loss_generator")) == 2)
        training.end(code=0)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.communicate()
    assert rows("SELECT status FROM runs") == [("FINISHED",)]


def test_interruption_that_a_library_swallows_still_ends_the_command(
    empty_workspace: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.Follower, "tick", lambda self: monkeypatch.setattr(live.STOP, "requested", True))
    assert live.follow_here(False, told.append) == 0
    assert [line.partition(";")[0] for line in told] == ["no longer followed"]


def test_command_ends_with_one_line_when_interrupted(training: FakeTraining) -> None:
    training.start()
    write_state(20)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.live"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(points("loss_generator")) == 2)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1].startswith("no longer followed; trainings go on")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("heartbeat", "started", "alive", "expected"),
    [
        (1.0, 600.0, False, "RUNNING"),  # on another machine
        (4.9, 600.0, False, "RUNNING"),
        (5.2, 600.0, False, "KILLED"),
        (600.0, 600.0, True, "RUNNING"),  # here, and not followed until now
        (None, 4.0, False, "RUNNING"),
        (None, 6.0, False, "KILLED"),
    ],
)
def test_only_runs_without_a_sign_of_life_are_swept(
    training: FakeTraining, heartbeat: float | None, started: float, alive: bool, expected: str
) -> None:
    """Ages in minutes."""
    from pipelines.tracking import Tracker

    tracker = Tracker(tracking_uri())
    marks = {"training.model": NAME, "training.fingerprint": FINGERPRINT}
    start = int((time.time() - started * MINUTE) * 1000)
    if heartbeat is not None:
        moment = time.gmtime(time.time() - heartbeat * MINUTE)
        marks["heartbeat"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
    elsewhere = tracker.client.create_experiment("of-others")
    runs = [
        tracker.client.create_run(tracker.experiment, start_time=start, tags=marks),
        tracker.client.create_run(tracker.experiment, start_time=1000, tags={"made.by": "hand"}),
        tracker.client.create_run(elsewhere, start_time=1000, tags=marks),
    ]
    told = tracker.sweep({FINGERPRINT} if alive else set())
    found = [tracker.client.get_run(run.info.run_id) for run in runs]
    assert [run.info.status for run in found] == [expected, "RUNNING", "RUNNING"]
    assert len(told) == (expected == "KILLED")
    if told:
        assert found[0].data.tags["training.ended"].startswith("no heartbeat since 20")
        assert tracker.sweep(set()) == []


def test_follower_and_publish_sweep_when_they_begin(
    training: FakeTraining, follower: Follower, told: list[str]
) -> None:
    from pipelines.tracking import Tracker

    tracker = Tracker(tracking_uri())
    for number in range(2):
        marks = {"training.model": "other", "training.fingerprint": f"{number:016d}"}
        run = tracker.client.create_run(tracker.experiment, start_time=1000, tags=marks).info.run_id
        if number:
            training.start()
            follower.tick()
        else:
            write_results(20)
            publish_all(load_settings(), told.append)
        assert tracker.client.get_run(run).info.status == "KILLED"
        assert any("no heartbeat since 1970-01-01" in line and run in line for line in told)


def test_process_that_was_given_the_number_of_a_dead_one_is_no_training(training: FakeTraining) -> None:
    training.start()
    assert [session.name for session in running_sessions()] == [NAME]
    owner = WORK / "locks" / f"train@{NAME}.owner"
    os.utime(owner, (1_000_000_000, 1_000_000_000))
    assert running_sessions() == []


def test_looking_for_trainings_takes_no_lock(training: FakeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that starts at the moment of a probe would otherwise find its place taken."""
    import filelock

    training.start()
    monkeypatch.setattr(filelock.FileLock, "acquire", lambda *a, **k: pytest.fail("took a lock"))
    assert running_sessions()


def test_user_decides_how_long_mlflow_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.tracking import PATIENCE, RETRIES, TIMEOUT, be_patient

    monkeypatch.delenv(RETRIES, raising=False)
    monkeypatch.setattr("pipelines.tracking._patience_set", {})
    monkeypatch.setenv(TIMEOUT, "77")
    be_patient({RETRIES: "0", TIMEOUT: "5"})
    assert (os.environ[RETRIES], os.environ[TIMEOUT]) == ("0", "77")
    be_patient(PATIENCE)
    assert (os.environ[RETRIES], os.environ[TIMEOUT]) == (PATIENCE[RETRIES], "77")


def test_real_training_killed_and_resumed_shows_each_point_once(
    workspace: Path, empty_database: None, follower: Follower, edit_params: Callable
) -> None:
    edit_params(**{f"models.{NAME}.budget_kimg": 1000})
    command = [sys.executable, "-m", "stages.train", NAME]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: tick_and_count(follower) > 0)
    first.kill()
    first.wait()
    follower.tick(last=True)
    assert rows("SELECT status FROM runs") == [("KILLED",)]
    newest = max(int(path.name[6:]) for path in Path(".work/train").glob("*/*/state-*"))
    edit_params(**{f"models.{NAME}.budget_kimg": newest / 1000 + 0.256})
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for(lambda: tick_and_count(follower) >= 0 and second.poll() is not None, pause=1.0)
    follower.tick(last=True)
    assert second.returncode == 0
    publish_all(load_settings(), print)
    curve = json.loads(Path(f"models/{NAME}/training/curve.json").read_text())
    assert points("loss_generator") == [(round(made["kimg"] * 1000), made["loss_generator"]) for made in curve]
    assert rows("SELECT status FROM runs") == [("FINISHED",)]
    doubles = "SELECT key, step FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1"
    assert rows(doubles) == []
