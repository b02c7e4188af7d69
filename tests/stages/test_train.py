"""Training as a process: whole results, resumption that changes nothing, and refusals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.storage import sha256_file, sha256_tree
from stages.trainer.state import StateFolder
from tests.stages.test_data import assert_refused

TRAINING = Path("models/dcgan/training")


def results() -> dict[str, str]:
    """The parts of a training that two equal trainings must share byte for byte."""
    return {
        "weights": sha256_tree(TRAINING / "weights"),
        "samples": sha256_tree(TRAINING / "samples"),
        "curve": sha256_file(TRAINING / "curve.json"),
    }


def states() -> StateFolder:
    (folder,) = [path for path in Path(".work/train/dcgan").iterdir() if StateFolder(path).seen_counts()]
    return StateFolder(folder)


def train(run_stage, *arguments: str) -> subprocess.CompletedProcess:
    done = run_stage("train", "dcgan", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_training_leaves_weights_samples_curve_and_record(trained_workspace):
    record = json.loads((TRAINING / "record.json").read_text())
    config = json.loads((TRAINING / "weights/config.json").read_text())
    curve = json.loads((TRAINING / "curve.json").read_text())
    assert record["kimg"] == 0.512
    assert record["cpu_seconds"] > 0
    assert config["identity"]["weights"] == sha256_file(TRAINING / "weights/generator.safetensors")
    assert config["identity"]["fingerprint"] == record["fingerprint"]
    assert [row["kimg"] for row in curve] == [0.128, 0.256, 0.384, 0.512]
    assert all(row["loss_discriminator"] > 0 for row in curve)
    assert curve[0]["diversity"] != curve[-1]["diversity"]
    assert states().seen_counts() == [384, 512]


def test_a_second_training_with_fresh_states_is_byte_identical(trained_workspace, run_stage):
    before = results()
    shutil.rmtree(".work")
    shutil.rmtree("models")
    train(run_stage)
    assert results() == before


def test_an_extended_training_equals_a_fresh_longer_one(trained_workspace, run_stage, edit_params):
    edit_params(**{"models.dcgan.budget_kimg": 0.768})
    assert "going on from 0.5 kimg" in train(run_stage).stdout
    extended = results()
    shutil.rmtree(".work")
    train(run_stage)
    assert results() == extended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_training_saves_and_ends_as_an_undisturbed_one(
    trained_workspace, run_stage, edit_params, number
):
    edit_params(**{"models.dcgan.budget_kimg": 4})
    shutil.rmtree(".work")
    command = [sys.executable, "-m", "stages.train", "dcgan"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(Path(".work").glob("train/dcgan/*/state-*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "state saved" in errors
    note = json.loads(Path(".work/last/train@dcgan.json").read_text())
    assert (note["code"], note["retryable"]) == (143, True)
    assert states().seen_counts()[-1] < 4000
    assert "going on from" in train(run_stage).stdout
    interrupted = results()
    shutil.rmtree(".work")
    train(run_stage)
    assert results() == interrupted


@pytest.fixture
def ada_workspace(workspace, run_stage, edit_params) -> Path:
    """A workspace whose pictures pass ADA, with p far enough from 0 to act and fast enough to move."""
    edit_params(**{"augment.kind": "ada", "augment.transforms": "bgc", "augment.p": 0.4, "augment.kimg": 0.5})
    edit_params(**{"models.dcgan.r1_gamma": 1.0, "models.dcgan.batch": 10, "models.dcgan.checkpoint_kimg": 0.13})
    done = run_stage("augment")
    assert done.returncode == 0, done.stderr
    return workspace


def test_a_training_with_ada_resumes_within_an_interval_to_the_same_bytes(ada_workspace, run_stage, edit_params):
    """A checkpoint after 13 steps of 10 pictures lies inside the fourth interval of 4 steps."""
    train(run_stage)
    undisturbed = results()
    curve = json.loads((TRAINING / "curve.json").read_text())
    assert all(0 <= row["p"] <= 1 for row in curve)
    assert len({row["p"] for row in curve}) > 1
    assert all(row["r_t"] == row["real_sign"] for row in curve)
    folder = states().folder
    shutil.rmtree(".work")
    edit_params(**{"models.dcgan.budget_kimg": 0.13})
    train(run_stage)
    kept = json.loads((states().path(130) / "values.json").read_text())["augmentation"]
    assert kept["steps"] == 1
    edit_params(**{"models.dcgan.budget_kimg": 0.512})
    assert "going on from 0.1 kimg" in train(run_stage).stdout
    assert states().folder == folder
    assert results() == undisturbed


def test_the_curve_shows_what_the_discriminator_says_of_both_splits(trained_workspace):
    curve = json.loads((TRAINING / "curve.json").read_text())
    for row in curve:
        assert len({row["train_logit"], row["holdout_logit"], row["generated_logit"]}) == 3
        assert "p" not in row  # it is ADA's


def test_another_pace_of_ada_is_another_training_and_an_idle_setting_is_not(ada_workspace, run_stage, edit_params):
    train(run_stage)
    before = states().folder
    edit_params(**{"augment.kimg": 5})
    assert run_stage("augment").returncode == 0
    done = train(run_stage)
    assert "data/augment/policy.json changed" in done.stdout
    assert len(list(before.parent.iterdir())) == 2
    for pace in (5, 7):
        edit_params(**{"augment.adaptive": False, "augment.kimg": pace})
        assert run_stage("augment").returncode == 0
        train(run_stage)
        assert {row["p"] for row in json.loads((TRAINING / "curve.json").read_text())} == {0.4}
    assert len(list(before.parent.iterdir())) == 3


def test_a_torn_state_is_noticed_and_the_one_before_it_used(trained_workspace, run_stage):
    before = results()
    newest = states().path(512) / "tensors.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(bytes(data))
    done = train(run_stage)
    assert "altered" in done.stdout
    assert "going on from 0.4 kimg" in done.stdout
    assert results() == before


def test_other_settings_start_anew_and_adopt_goes_on(trained_workspace, run_stage, edit_params):
    adopted = states().folder.name
    edit_params(**{"models.dcgan.generator_lr": 0.001, "models.dcgan.budget_kimg": 0.768})
    done = train(run_stage)
    assert "going on" not in done.stdout
    assert "generator_lr 0.0002 -> 0.001" in done.stdout
    assert f"--adopt {adopted}" in done.stdout
    fresh = results()
    record = json.loads((TRAINING / "record.json").read_text())
    assert record["lineage"] == []
    shutil.rmtree(Path(".work/train/dcgan") / record["fingerprint"])
    assert "going on from 0.5 kimg" in train(run_stage, "--adopt", adopted).stdout
    assert results() != fresh
    (step,) = json.loads((TRAINING / "record.json").read_text())["lineage"]
    assert step == {"adopted": adopted, "kimg": 0.512, "changed": ["generator_lr 0.0002 -> 0.001"]}
    assert_refused(run_stage("train", "dcgan", "--adopt", adopted), "has states of its own")
    assert_refused(run_stage("train", "dcgan", "--adopt", "0" * 16), "no usable state", adopted)


def test_a_diverged_training_stops_and_keeps_its_last_good_state(trained_workspace, run_stage, edit_params):
    edit_params(**{"models.dcgan.generator_lr": 1e30})
    done = run_stage("train", "dcgan")
    assert done.returncode == 3, done.stderr
    assert "diverged" in done.stderr
    (kept,) = [found for path in Path(".work/train/dcgan").iterdir() if (found := StateFolder(path).seen_counts())]
    assert f"the state at {kept[-1] / 1000:.1f} kimg is kept" in done.stderr or "no state was saved" in done.stderr


def test_impossible_trainings_are_refused_before_any_work(workspace, run_stage, edit_params):
    assert_refused(run_stage("train", "nobody"), "nobody is not selected", "dcgan")
    assert_refused(run_stage("train", "dcgan", WORLD_SIZE="3"), "batch is 16", "3 processes", "multiple of 3")
    edit_params(**{"models.dcgan.batch": 64})
    assert_refused(run_stage("train", "dcgan"), "models.dcgan.batch is 64", "only 41 training pictures")
    edit_params(**{"models.dcgan.batch": 16, "models.dcgan.lerning_rate": 1})
    assert_refused(run_stage("train", "dcgan"), "models.dcgan.lerning_rate: unknown setting", "generator_lr")
    assert not Path("models").exists()


def test_two_at_once_are_refused_by_name(workspace, run_stage):
    from filelock import FileLock

    path = Path(".work/locks/train@dcgan.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        path.with_suffix(".owner").write_text("4711")
        assert_refused(run_stage("train", "dcgan"), "already running", "4711")


def test_a_state_beyond_the_budget_cannot_be_adopted(trained_workspace, run_stage, edit_params):
    adopted = states().folder.name
    edit_params(**{"models.dcgan.generator_lr": 0.001, "models.dcgan.budget_kimg": 0.256})
    assert_refused(run_stage("train", "dcgan", "--adopt", adopted), "0.5 kimg", "beyond budget_kimg 0.256")


def test_adopting_a_state_from_before_the_first_tick_records_it(trained_workspace, run_stage, edit_params):
    source = states().folder
    shutil.rmtree(source / "samples")
    shutil.rmtree(source / "state-000000000512")
    values = source / "state-000000000384" / "values.json"
    content = json.loads(values.read_text())
    content["progress"]["curve"] = []
    values.write_text(json.dumps(content))
    manifest = source / "state-000000000384" / "manifest.json"
    hashes = json.loads(manifest.read_text()) | {"values.json": sha256_file(values)}
    manifest.write_text(json.dumps(hashes))
    edit_params(**{"models.dcgan.generator_lr": 0.001})
    assert "going on from 0.4 kimg" in train(run_stage, "--adopt", source.name).stdout
    (step,) = json.loads((TRAINING / "record.json").read_text())["lineage"]
    assert (step["adopted"], step["kimg"]) == (source.name, 0.384)


@pytest.mark.parametrize("name", ["../../../escaped", "-x y", "a/b"])
def test_a_name_that_would_leave_the_workspace_is_refused(workspace, run_stage, name):
    assert_refused(run_stage("train", "--", name), "is no model's name")
    assert not list(Path.cwd().parent.glob("escaped*"))


def test_half_precision_without_a_gpu_is_refused(workspace, run_stage, edit_params):
    edit_params(**{"models.dcgan.precision": "fp16"})
    assert_refused(run_stage("train", "dcgan"), "precision is fp16", "needs a GPU")


def test_damaged_weights_are_one_line(trained_workspace, run_stage):
    weights = TRAINING / "weights/generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    assert_refused(run_stage("export", "dcgan"), "generator.safetensors", "sha256")
