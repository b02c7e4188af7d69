"""A running training is seen in MLflow: each point once, whatever dies, and a server that is away disturbs nothing."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import live
from pipelines.live import Follower, followed
from pipelines.publish import publish_all
from stages.settings import load_settings
from stages.storage import write_json
from tests.unit.live_training import (
    FINGERPRINT,
    MINUTE,
    NAME,
    TRAIN,
    FakeTraining,
    folder_of,
    grids,
    wait_for,
    what_mlflow_shows,
    write_results,
    write_state,
)
from tests.unit.mlflow_database import points, rows, tags


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
