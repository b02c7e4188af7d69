"""Two processes that train one model: equal results, one end, one reason."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from stages.storage import sha256_file, sha256_tree
from stages.trainer.state import StateFolder
from tests.stages.test_data import assert_refused
from tests.stages.test_train import results, states, train

TWO = {"WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
START_SECONDS = 120
Start = Callable[[], subprocess.Popen]


@pytest.fixture
def long_training(workspace, edit_params) -> Iterator[Start]:
    """Start a training of two processes that does not end by itself, and return it after its first state."""
    edit_params(**{"models.dcgan.budget_kimg": 1000})
    started = []

    def start() -> subprocess.Popen:
        command = [sys.executable, "-m", "stages.train", "dcgan"]
        leader = subprocess.Popen(command, env=os.environ | TWO, stderr=subprocess.PIPE, text=True)
        started.append(leader)
        deadline = time.monotonic() + START_SECONDS
        while not list(Path(".work").glob("train/dcgan/*/state-*/manifest.json")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return leader

    yield start
    for leader in started:
        leader.kill()
        leader.communicate()


def end_at(newest: int, run_stage, edit_params) -> dict[str, str]:
    """Finish an interrupted training two checkpoints after a state and return its results."""
    edit_params(**{"models.dcgan.budget_kimg": (newest + 256) / 1000})
    train(run_stage)
    return results()


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("victim", [pytest.param("rank 1", marks=pytest.mark.slow), "leader"])
def test_one_killed_ends_all_and_a_restart_equals_an_undisturbed_training(
    long_training: Start, run_stage, edit_params, victim: str
):
    leader = long_training()
    family = psutil.Process(leader.pid).children()
    assert len(family) == 2
    by_rank = {process.environ()["RANK"]: process for process in family}
    (psutil.Process(leader.pid) if victim == "leader" else by_rank[victim[-1]]).kill()
    _, errors = leader.communicate(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert "Traceback" not in errors
    if victim != "leader":
        assert leader.returncode == 4
        assert errors.endswith(f"train@dcgan: process {victim[-1]} of 2 ended by SIGKILL; out of memory?\n")
        note = json.loads(Path(".work/last/train@dcgan.json").read_text())
        assert (note["code"], note["retryable"]) == (4, True)
    newest = states().seen_counts()[-1]
    resumed = end_at(newest, run_stage, edit_params)
    shutil.rmtree(".work/train")
    assert end_at(newest, run_stage, edit_params) == resumed


def test_asked_to_stop_all_save_one_state(long_training: Start, run_stage, edit_params):
    leader = long_training()
    leader.send_signal(signal.SIGTERM)
    _, errors = leader.communicate(timeout=60)
    assert leader.returncode == 143, errors
    assert errors.count("state saved") == 1
    newest = states().seen_counts()[-1]
    assert states().problem(newest) == ""
    resumed = end_at(newest, run_stage, edit_params)
    shutil.rmtree(".work/train")
    assert end_at(newest, run_stage, edit_params) == resumed


def test_two_processes_go_on_where_one_began_and_say_so(trained_workspace, run_stage, edit_params):
    folder = states().folder
    edit_params(**{"models.dcgan.budget_kimg": 0.768})
    done = run_stage("train", "dcgan")
    assert done.returncode == 0, done.stderr
    assert "'processes': 2} after {'device': 'cpu', 'processes': 1}" in done.stdout
    assert StateFolder(folder).seen_counts()[-1] == 768
    record = json.loads(Path("models/dcgan/training/record.json").read_text())
    assert [(row["kimg"], row["processes"]) for row in record["machines"]] == [(0.0, 1), (0.512, 2)]


def test_what_cannot_be_shared_or_started_is_refused_in_one_line(workspace, run_stage, edit_params):
    assert_refused(run_stage("train", "dcgan", WORLD_SIZE="3"), "batch is 16", "3 processes", "multiple of 3")
    assert_refused(run_stage("train", "dcgan", WORLD_SIZE="two"), "WORLD_SIZE is two")
    edit_params(**{"models.dcgan.accumulation": 16})
    assert_refused(run_stage("train", "dcgan"), "accumulation 16", "multiple of 32")
    assert not Path("models").exists()


def test_stages_that_are_one_process_ignore_the_others(workspace, run_stage):
    before = sha256_tree(Path("data/augment"))
    done = run_stage("augment")
    assert done.returncode == 0, done.stderr
    assert sha256_tree(Path("data/augment")) == before


def test_a_training_never_falls_from_a_gpu_to_the_cpu_by_itself(trained_workspace, run_stage, edit_params):
    newest = states().path(512)
    values = json.loads((newest / "values.json").read_text())
    values["progress"]["machines"][-1]["device"] = "cuda"
    (newest / "values.json").write_text(json.dumps(values))
    hashes = json.loads((newest / "manifest.json").read_text()) | {"values.json": sha256_file(newest / "values.json")}
    (newest / "manifest.json").write_text(json.dumps(hashes))
    edit_params(**{"models.dcgan.budget_kimg": 0.64})
    done = run_stage("train", "dcgan", WORLD_SIZE="1", CUDA_VISIBLE_DEVICES="0")
    assert done.returncode == 4
    assert "the state at 0.5 kimg was trained on cuda, and none is visible now" in done.stderr
    done = run_stage("train", "dcgan", WORLD_SIZE="1", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
