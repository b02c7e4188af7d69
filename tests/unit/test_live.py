"""A running training is seen in MLflow: each point once, whatever dies, and a server that is away disturbs nothing."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipelines import live, publish
from pipelines.live import Follower, followed
from pipelines.plan import Step
from pipelines.publish import publish_all, tracking_uri, writing
from pipelines.sessions import running_sessions
from stages.process import NOTES, WORK, stage_lock
from stages.settings import load_settings
from stages.storage import sha256_file, write_json
from stages.trainer.fingerprint import effective_settings
from tests.unit.mlflow_database import points, rows, tags

NAME = "dcgan"
FINGERPRINT = "a" * 16
TRAIN = Step(f"train@{NAME}", ["never ran here"], [], None)
MINUTE = 60.0


def row(kimg: float, factor: float = 1.0) -> dict[str, Any]:
    return {"kimg": kimg, "loss_generator": factor / kimg, "diversity": None}


def folder_of(fingerprint: str = FINGERPRINT) -> Path:
    return WORK / "train" / NAME / fingerprint


def settings_now() -> dict[str, Any]:
    return effective_settings(load_settings().model(NAME).model_dump())


def write_parts(fingerprint: str = FINGERPRINT) -> None:
    parts = {"settings": settings_now(), "dataset": "d" * 64, "policy": {"kind": "none"}, "code": {}}
    write_json(folder_of(fingerprint) / "fingerprint.json", parts)


def write_state(kimg: float, factor: float = 1.0, fingerprint: str = FINGERPRINT) -> Path:
    """Write a whole state as the trainer does, with a row and a grid for each tenth kimg."""
    curve = [row(float(k), factor) for k in range(10, int(kimg) + 1, 10)]
    state = folder_of(fingerprint) / f"state-{int(kimg * 1000):012d}"
    partial = state.with_name(f".{state.name}.partial")
    write_json(partial / "values.json", {"seen": int(kimg * 1000), "progress": {"curve": curve}})
    (partial / "tensors.safetensors").write_bytes(b"weights")
    manifest = {name: sha256_file(partial / name) for name in ("tensors.safetensors", "values.json")}
    write_json(partial / "manifest.json", manifest)
    samples = folder_of(fingerprint) / "samples"
    samples.mkdir(exist_ok=True)
    for made in curve:
        Image.new("RGB", (8, 8), (int(made["kimg"]), 0, 0)).save(samples / f"kimg-{int(made['kimg']):06d}.png")
    partial.replace(state)
    return state


def write_results(kimg: float, factor: float = 1.0) -> None:
    """Write what the stage leaves at its end."""
    training = Path("models") / NAME / "training"
    curve = [row(float(k), factor) for k in range(10, int(kimg) + 1, 10)]
    write_json(training / "weights" / "config.json", {"identity": {"weights": "w"}})
    write_json(training / "curve.json", curve)
    (training / "samples").mkdir(exist_ok=True)
    for made in curve:
        name = f"kimg-{int(made['kimg']):06d}.png"
        Image.new("RGB", (8, 8), (int(made["kimg"]), 0, 0)).save(training / "samples" / name)
    record = {"model": NAME, "fingerprint": FINGERPRINT, "kimg": kimg, "seconds": 60.0, "dataset": "d" * 64}
    record |= {"settings": load_settings().model(NAME).model_dump(), "policy": {"kind": "none"}}
    record |= {"started": "2026-11-22T01:00:00Z", "finished": "2026-11-22T01:10:00Z", "lineage": []}
    write_json(training / "record.json", record)


class FakeTraining:
    """A process that holds a training's place in the workspace, as the stage does."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def start(self, fingerprint: str = FINGERPRINT) -> None:
        self.process = subprocess.Popen(["sleep", "600"])
        owner = WORK / "locks" / f"train@{NAME}.owner"
        owner.parent.mkdir(parents=True, exist_ok=True)
        owner.write_text(str(self.process.pid))
        write_parts(fingerprint)

    def end(self, code: int | None = None, reason: str = "finished") -> None:
        """End the process; `code` None: killed, and no note is left."""
        if self.process:
            self.process.kill()
            self.process.wait()
        if code is not None:
            (WORK / "locks" / f"train@{NAME}.owner").unlink()
            write_json(NOTES / f"train@{NAME}.json", {"code": code, "reason": reason, "retryable": False})


@pytest.fixture
def training(empty_workspace: Path, empty_database: None, edit_params: Callable) -> Iterator[FakeTraining]:
    """A workspace in which a training can be acted: 100 kimg, a tick each tenth, MLflow in a fresh sqlite file."""
    edit_params(**{f"models.{NAME}.budget_kimg": 100, f"models.{NAME}.tick_kimg": 10})
    fake = FakeTraining()
    yield fake
    fake.end()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def follower(told: list[str], monkeypatch: pytest.MonkeyPatch) -> Follower:
    """A follower that tries again at once and beats at each tick."""
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.0)
    return Follower(told.append)


def grids() -> list[int]:
    names = [path.name for path in Path("mlartifacts").rglob("images/samples*.png")]
    return sorted(int(name.split("+")[2]) for name in names)


def test_run_is_there_before_the_first_state_and_grows_with_each(training: FakeTraining, follower: Follower) -> None:
    training.start()
    follower.tick()
    assert rows("SELECT name, status FROM runs") == [(f"{NAME}-aaaaaaaa", "RUNNING")]
    params = dict(rows("SELECT key, value FROM params"))
    assert params["generator_lr"] == "0.0002"
    assert params["augment.kind"] == "none"
    assert "budget_kimg" not in params
    assert points("loss_generator") == []
    for kimg in (20, 50):
        write_state(kimg)
        follower.tick()
        assert points("loss_generator") == [(k, 1 / k) for k in range(10, kimg + 1, 10)]
        assert grids() == list(range(10, kimg + 1, 10))
    expected = {"training.fingerprint": FINGERPRINT, "training.kimg": "50.0", "budget_kimg": "100.0"}
    assert expected.items() <= tags().items()


def test_points_carry_the_time_at_which_their_row_was_made(training: FakeTraining, follower: Follower) -> None:
    training.start()
    write_state(20)
    os.utime(folder_of() / "samples/kimg-000010.png", (1_700_000_000, 1_700_000_000))
    follower.tick()
    assert rows("SELECT timestamp FROM metrics WHERE step = 10") == [(1_700_000_000_000,)]
    assert rows("SELECT start_time FROM runs") == [(1_700_000_000_000,)]


def test_tick_without_news_asks_mlflow_nothing(
    training: FakeTraining, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.start()
    write_state(20)
    follower.tick()
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", MINUTE)
    monkeypatch.setattr(Follower, "_connect", lambda self: pytest.fail("asked"))
    follower.tick()
    assert follower.followed


def test_kill_and_resumption_give_the_same_points_as_publishing_alone(
    training: FakeTraining,
    follower: Follower,
    told: list[str],
    database_template: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training.start()
    write_state(50)
    follower.tick()
    training.end()
    follower.tick(last=True)
    assert rows("SELECT status FROM runs") == [("KILLED",)]
    assert tags()["training.ended"] == "killed: the process ended without a word"
    training.start()
    follower.tick()
    assert rows("SELECT status FROM runs") == [("RUNNING",)]
    assert "training.ended" not in tags()
    write_state(100)
    write_results(100)
    training.end(code=0)
    follower.tick()
    publish_all(load_settings(), told.append)
    seen = what_mlflow_shows()
    assert rows("SELECT status FROM runs") == [("FINISHED",)]
    assert points("loss_generator") == [(k, 1 / k) for k in range(10, 101, 10)]
    shutil.rmtree("mlartifacts")
    shutil.copy(database_template, "alone.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path('alone.db').resolve().as_posix()}")
    monkeypatch.setattr("tests.unit.mlflow_database.DATABASE", Path("alone.db"))
    publish_all(load_settings(), told.append)
    assert what_mlflow_shows() == seen


def what_mlflow_shows() -> list[Any]:
    """All of a run but times and ids."""
    shown = {key: value for key, value in tags().items() if key != "heartbeat" and not key.startswith("mlflow.log")}
    metrics = "SELECT key, step, value FROM metrics WHERE key != 'training_seconds' ORDER BY key, step, value"
    return [rows(metrics), rows("SELECT key, value FROM params ORDER BY key"), shown, grids()]


def test_rows_after_the_newest_whole_state_wait(training: FakeTraining, follower: Follower) -> None:
    training.start()
    write_state(20)
    (write_state(50) / "values.json").write_text('{"seen": 50')
    follower.tick()
    assert points("loss_generator") == [(10, 0.1), (20, 0.05)]
    assert tags()["training.kimg"] == "20.0"


def test_training_that_comes_out_otherwise_is_a_run_of_its_own(training: FakeTraining, follower: Follower) -> None:
    training.start()
    write_state(50)
    follower.tick()
    training.end(code=143, reason="stopped at 50.0 kimg")
    follower.tick()
    shutil.rmtree(folder_of())
    training.start()
    follower.tick()
    assert rows("SELECT status FROM runs") == [("KILLED",)]  # as long as it has no curve, it may become the same one
    write_state(20, factor=2.0)
    follower.tick()
    assert rows("SELECT status FROM runs ORDER BY rowid") == [("KILLED",), ("RUNNING",)]
    old, new = (run for (run,) in rows("SELECT run_uuid FROM runs ORDER BY rowid"))
    assert rows("SELECT run_uuid, value FROM tags WHERE key = 'superseded.by'") == [(old, new)]
    assert rows(f"SELECT step, value FROM metrics WHERE run_uuid = '{new}'") == [(10, 0.2), (20, 0.1)]


def test_larger_budget_goes_on_in_the_same_run(
    training: FakeTraining, follower: Follower, edit_params: Callable
) -> None:
    training.start()
    write_state(100)
    write_results(100)
    training.end(code=0)
    follower.tick()
    publish_all(load_settings(), print)
    edit_params(**{f"models.{NAME}.budget_kimg": 120})
    training.start()
    follower.tick()
    assert rows("SELECT status FROM runs") == [("RUNNING",)]
    write_state(120)
    follower.tick()
    assert points("loss_generator") == [(k, 1 / k) for k in range(10, 121, 10)]
    assert tags()["budget_kimg"] == "120.0"


def test_adopted_state_starts_a_run_that_says_so(training: FakeTraining, follower: Follower) -> None:
    training.start()
    write_state(20)
    follower.tick()
    training.end(code=143, reason="stopped")
    follower.tick()
    training.start("b" * 16)
    shutil.copytree(folder_of() / "state-000000020000", folder_of("b" * 16) / "state-000000020000")
    write_json(folder_of("b" * 16) / "lineage.json", [{"adopted": FINGERPRINT, "kimg": 20.0}])
    follower.tick()
    assert rows("SELECT name, status FROM runs ORDER BY rowid") == [
        (f"{NAME}-aaaaaaaa", "KILLED"),
        (f"{NAME}-bbbbbbbb", "RUNNING"),
    ]
    run = rows("SELECT run_uuid FROM tags WHERE value = ?", "b" * 16)[0][0]
    assert FINGERPRINT in rows("SELECT value FROM tags WHERE run_uuid = ? AND key = 'training.lineage'", run)[0][0]
    assert rows("SELECT step FROM metrics WHERE run_uuid = ? ORDER BY step", run) == [(10,), (20,)]


@pytest.mark.parametrize(
    ("code", "reason", "status", "ended"),
    [
        (0, "finished", "FINISHED", None),
        (143, "stopped at 20.0 kimg, state saved", "KILLED", "stopped at 20.0 kimg, state saved"),
        (3, "training diverged", "FAILED", "training diverged"),
        (4, "see https://me:secret@host/x?key=secret", "FAILED", "see https://host/x"),
    ],
)
def test_end_of_the_stage_is_the_end_of_the_run(
    training: FakeTraining, follower: Follower, code: int, reason: str, status: str, ended: str | None
) -> None:
    training.start()
    write_state(20)
    follower.tick()
    training.end(code, reason)
    follower.tick()
    assert rows("SELECT status FROM runs") == [(status,)]
    assert tags().get("training.ended") == ended
    assert rows("SELECT end_time > start_time FROM runs") == [(1,)]
    assert not follower.followed


def test_note_of_a_training_that_takes_its_time_is_waited_for(training: FakeTraining, follower: Follower) -> None:
    training.start()
    write_state(20)
    follower.tick()
    training.end()
    follower.tick()
    assert rows("SELECT status FROM runs") == [("RUNNING",)]
    training.end(code=4, reason="CUDA out of memory")
    follower.tick()
    assert rows("SELECT status FROM runs") == [("FAILED",)]


def test_run_that_was_taken_for_dead_is_running_again_with_the_next_heartbeat(
    training: FakeTraining, follower: Follower
) -> None:
    training.start()
    write_state(20)
    follower.tick()
    assert follower.tracker
    run = rows("SELECT run_uuid FROM runs")[0][0]
    follower.tracker.end(run, "KILLED", "no heartbeat since yesterday", None)
    follower.tick()
    assert rows("SELECT status FROM runs") == [("RUNNING",)]
    assert "training.ended" not in tags()


def test_dead_server_is_told_once_and_caught_up_with(
    training: FakeTraining, follower: Follower, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:1/?token=secret")
    training.start()
    for kimg in (20, 30, 40):
        write_state(kimg)
        follower.tick()
    (line,) = told
    assert line.startswith("WARNING: not seen live in MLflow at http://127.0.0.1:1/: ")
    assert "secret" not in line
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    follower.tick()
    follower.tick()
    assert points("loss_generator") == [(k, 1 / k) for k in (10, 20, 30, 40)]
    assert [line.split()[0] for line in told[1:]] == ["MLflow:", "MLflow"]
    assert "answers again" in told[2]


def test_answer_that_was_lost_brings_no_point_twice(
    training: FakeTraining, follower: Follower, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server took the points, and the connection broke before it could say so."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    log_batch = MlflowClient.log_batch

    def lose_answer(*arguments: Any, **parts: Any) -> None:
        log_batch(*arguments, **parts)
        if parts.get("metrics"):
            raise MlflowException("API request failed: connection reset")

    training.start()
    follower.tick()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", lose_answer)
        write_state(20)
        follower.tick()
    assert "connection reset" in told[-1]
    write_state(30)
    follower.tick()
    assert points("loss_generator") == [(k, 1 / k) for k in (10, 20, 30)]
    assert "answers again" in told[-1]


def test_server_that_never_answers_delays_the_end_by_seconds_only(
    training: FakeTraining, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(live, "LIVE_TIMEOUT", "1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
        training.start()
        write_state(20)
        with followed([TRAIN], told.append):
            wait_for(lambda: bool(told))
            started = time.monotonic()
        assert time.monotonic() - started < 3
    assert [line.split()[0] for line in told] == ["WARNING:"]
    assert "no answer (timed out)" in told[0]
    assert "live" not in [thread.name for thread in threading.enumerate()]


def wait_for(ready: Callable[[], bool], pause: float = 0.05) -> None:
    deadline = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(pause)


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


def tick_and_count(follower: Follower) -> int:
    follower.tick()
    return len(points("loss_generator"))
