"""A diffusion model as processes: training, interruption, export, and the same pictures from weights and file."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.storage import sha256_file, sha256_tree
from stages.trainer.state import StateFolder
from tests.conftest import copy_workspace, stage_or_fail
from tests.stages.test_data import assert_refused

TRAINING = Path("models/ddpm/training")
TINY: dict[str, Any] = {
    "widths": [8, 16],
    "attention": [False, True],
    "head_width": 8,
    "layers": 1,
    "warmup_kimg": 0.1,
    "steps": 10,
    "batch": 16,
    "budget_kimg": 0.512,
    "tick_kimg": 0.128,
    "checkpoint_kimg": 0.128,
    "ema_half_life_kimg": 0.1,
    "threads": 1,
    "lr": 0.002,
}


def select_ddpm(folder: Path, **changes: Any) -> None:
    """Select a tiny model of the preset ddpm beside the one that is there."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["select"]["ddpm"] = {"preset": "ddpm", "family": "diffusion", "data": "images"}
    params["models"]["ddpm"] = TINY | changes
    path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="session")
def trained_once(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared folder with a trained ddpm beside it."""
    folder = tmp_path_factory.mktemp("ddpm") / "workspace"
    shutil.copytree(prepared, folder)
    select_ddpm(folder)
    stage_or_fail(folder, "train", "ddpm")
    return folder


@pytest.fixture
def trained_ddpm(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder with the trained ddpm; it is the current one."""
    return copy_workspace(trained_once, tmp_path, monkeypatch)


def results() -> dict[str, str]:
    """The parts of a training that two equal trainings must share byte for byte."""
    return {
        "weights": sha256_tree(TRAINING / "weights"),
        "samples": sha256_tree(TRAINING / "samples"),
        "curve": sha256_file(TRAINING / "curve.json"),
    }


def states() -> StateFolder:
    (folder,) = [path for path in Path(".work/train/ddpm").iterdir() if StateFolder(path).seen_counts()]
    return StateFolder(folder)


def train(run_stage) -> subprocess.CompletedProcess:
    done = run_stage("train", "ddpm")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_training_leaves_diffusers_folders_a_curve_by_timesteps_and_a_record(trained_ddpm):
    weights = TRAINING / "weights"
    config = json.loads((weights / "config.json").read_text())
    assert config["files"] == ["unet/diffusion_pytorch_model.safetensors"]
    assert config["identity"]["weights"] == sha256_file(weights / config["files"][0])
    assert json.loads((weights / "unet/config.json").read_text())["_class_name"] == "UNet2DModel"
    scheduler = json.loads((weights / "scheduler/scheduler_config.json").read_text())
    assert (scheduler["_class_name"], scheduler["prediction_type"]) == ("DDIMScheduler", "epsilon")
    curve = json.loads((TRAINING / "curve.json").read_text())
    assert [row["kimg"] for row in curve] == [0.128, 0.256, 0.384, 0.512]
    assert all(row[f"loss_t{quarter}"] > 0 for row in curve for quarter in range(4))
    assert curve[-1]["loss_t0"] > curve[-1]["loss_t3"]  # where little noise is, it is harder to tell
    assert curve[-1]["loss"] < 0.9 * curve[0]["loss"]
    assert json.loads((TRAINING / "record.json").read_text())["kimg"] == 0.512
    assert states().seen_counts() == [384, 512]


def test_diffusers_opens_network_and_scheduler_without_this_project(trained_ddpm):
    code = f"""
from diffusers import DDIMScheduler, UNet2DModel
network = UNet2DModel.from_pretrained("{TRAINING.as_posix()}/weights/unet")
scheduler = DDIMScheduler.from_pretrained("{TRAINING.as_posix()}/weights/scheduler")
print(network.config.sample_size, scheduler.config.num_train_timesteps)
"""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["16", "1000"], done.stderr


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_ends_as_an_undisturbed_one(trained_ddpm, run_stage):
    select_ddpm(Path.cwd(), budget_kimg=2)
    shutil.rmtree(".work")
    command = [sys.executable, "-m", "stages.train", "ddpm"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(Path(".work").glob("train/ddpm/*/state-*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "state saved" in errors
    assert states().seen_counts()[-1] < 2000
    assert "going on from" in train(run_stage).stdout
    interrupted = results()
    shutil.rmtree(".work")
    train(run_stage)
    assert results() == interrupted


@pytest.mark.slow
def test_an_extended_training_equals_a_fresh_longer_one(trained_ddpm, run_stage):
    select_ddpm(Path.cwd(), budget_kimg=0.768)
    assert "going on from 0.5 kimg" in train(run_stage).stdout
    extended = results()
    shutil.rmtree(".work")
    train(run_stage)
    assert results() == extended


def drawn_by(model: str, run_stage, folder: str) -> np.ndarray:
    done = run_stage("generators", "--model", model, "--seed", "3", "--count", "2", "--out", folder)
    assert done.returncode == 0, done.stderr
    return np.stack([np.asarray(Image.open(path), np.int16) for path in sorted(Path(folder).iterdir())])


def test_weights_and_exported_file_draw_the_same_pictures_for_a_seed(trained_ddpm, run_stage):
    done = run_stage("export", "ddpm")
    assert done.returncode == 0, done.stdout + done.stderr
    by_torch = drawn_by("ddpm", run_stage, "torch")
    by_file = drawn_by("models/ddpm/onnx/model.onnx", run_stage, "onnx")
    assert by_torch.shape == (2, 16, 16, 3)
    assert np.abs(by_torch - by_file).max() <= 1
    assert np.abs(by_torch[0] - by_torch[1]).max() > 10


def test_damaged_weights_are_one_line(trained_ddpm, run_stage):
    weights = TRAINING / "weights/unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    done = run_stage("generators", "--model", "ddpm", "--out", "picture.png")
    assert_refused(done, "unet/diffusion_pytorch_model.safetensors", "sha256")


def test_what_cannot_be_trained_or_drawn_is_refused_before_any_work(workspace, run_stage):
    for changes, words in (
        ({"steps": 30}, ("models.ddpm", "steps is 30", "25 or 40")),
        ({"sampler": "euler", "steps": 61}, ("steps", "61", "another number of steps")),
        ({"widths": [8] * 6, "attention": [False] * 6}, ("models.ddpm has 6 widths", "no multiple of 32")),
        ({"batch": 64}, ("models.ddpm.batch is 64", "only 41 training pictures")),
        ({"ema_half_life_kimg": 500}, ("models.ddpm.ema_half_life_kimg is 500",)),
    ):
        select_ddpm(Path.cwd(), **changes)
        assert_refused(run_stage("train", "ddpm"), *words)
    assert not Path("models").exists()
