"""The autoencoder's stage as a process, and latent diffusion that learns from what it leaves."""

import json
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

from stages.latents import LatentDataset
from stages.storage import sha256_file, sha256_tree
from stages.trainer.state import StateFolder
from tests.conftest import copy_workspace, stage_or_fail
from tests.stages.test_data import assert_refused

PLACE, LATENTS = Path("models/autoencoders/kl"), Path("data/latents/kl")
LDM_WEIGHTS = Path("models/ldm/training/weights")
WORK = Path(".work/train/autoencoder-kl")
KL: dict[str, Any] = {
    "factor": 2,
    "widths": [8, 16],
    "perceptual": 0,
    "lr": 0.005,
    "warmup_kimg": 0,
    "batch": 16,
    "threads": 1,
    "budget_kimg": 0.512,
    "tick_kimg": 0.128,
    "checkpoint_kimg": 0.128,
    "ema_half_life_kimg": 0.05,
    "adversarial": {"width": 8, "layers": 1, "start_kimg": 0.256},
}
LDM: dict[str, Any] = {
    "widths": [8, 16],
    "attention": [False, False],
    "layers": 1,
    "warmup_kimg": 0.1,
    "steps": 4,
    "threads": 1,
    "batch": 16,
    "budget_kimg": 0.256,
    "tick_kimg": 0.128,
    "checkpoint_kimg": 0.128,
    "ema_half_life_kimg": 0.05,
    "condition": "class",
}
FIGURES = ("psnr", "ssim", "reconstruction_fd_efficientnet_lite0")


def select_latents(folder: Path, **changes: Any) -> None:
    """Select a tiny latent-diffusion model and the autoencoder that it needs."""
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["select"]["ldm"] = {"preset": "ldm", "family": "diffusion", "data": "latents/kl"}
    params["models"]["ldm"] = LDM
    params["encode"], params["autoencoders"] = ["kl"], {"kl": KL | changes}
    path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="session")
def encoded_once(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared folder with an autoencoder and its latents, made by the real stage."""
    folder = tmp_path_factory.mktemp("encoded") / "workspace"
    shutil.copytree(prepared, folder)
    select_latents(folder)
    stage_or_fail(folder, "autoencoder", "kl")
    return folder


@pytest.fixture
def encoded(encoded_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the encoded folder; it is the current one."""
    return copy_workspace(encoded_once, tmp_path, monkeypatch)


def results() -> dict[str, str]:
    """All that two equal runs must share byte for byte: the record alone has times."""
    training = PLACE / "training"
    return {
        "weights": sha256_tree(training / "weights"),
        "samples": sha256_tree(training / "samples"),
        "curve": sha256_file(training / "curve.json"),
        "metrics": sha256_file(PLACE / "metrics.json"),
        "sheet": sha256_file(PLACE / "sheet.png"),
        "posteriors": "".join(sha256_file(path) for path in sorted(LATENTS.glob("*.npy"))),
        "autoencoder": sha256_tree(LATENTS / "vae"),
    }


def run_autoencoder(run_stage) -> subprocess.CompletedProcess:
    done = run_stage("autoencoder", "kl")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_it_leaves_weights_figures_beside_bicubic_a_sheet_and_latents(encoded):
    metrics = json.loads((PLACE / "metrics.json").read_text())
    assert all(metrics[name] != metrics[f"bicubic_{name}"] for name in FIGURES)
    assert 10 < metrics["psnr"] < 40
    assert 0 < metrics["ssim"] < 1
    assert metrics["kl_nats"] > 0
    config = json.loads((PLACE / "training/weights/config.json").read_text())
    (name,) = config["files"]
    assert config["identity"]["weights"] == sha256_file(PLACE / "training/weights" / name)
    curve = json.loads((PLACE / "training/curve.json").read_text())
    assert [row["kimg"] for row in curve] == [0.128, 0.256, 0.384, 0.512]
    assert curve[-1]["psnr"] > curve[0]["psnr"] + 1
    assert [row["adaptive_weight"] > 0 for row in curve] == [False, False, True, True]
    assert len(list((PLACE / "training/samples").iterdir())) == 4
    sheet = Image.open(PLACE / "sheet.png")
    assert sheet.width > 3 * sheet.height
    images = json.loads(Path("data/images/dataset.json").read_text())
    train = LatentDataset(LATENTS, "train")
    means, stds = train.posteriors()
    assert means.shape == (41, 4, 8, 8)
    drawn = means + stds * np.random.default_rng(0).standard_normal(means.shape)
    assert drawn.std() * train.scaling_factor == pytest.approx(1, abs=0.02)
    assert train.description["class_names"] == images["class_names"]
    assert train.description["mirrored"] is False
    train.check_same_pictures(Path("data/images"))


def test_asked_to_stop_it_saves_and_ends_as_an_undisturbed_one(encoded, run_stage):
    before = results()
    for folder in (".work", "models", LATENTS):
        shutil.rmtree(folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.autoencoder", "kl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not list(WORK.glob("*/state-*/manifest.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert not LATENTS.exists()
    (folder,) = WORK.iterdir()
    assert StateFolder(folder).seen_counts()
    assert "going on from" in run_autoencoder(run_stage).stdout
    assert results() == before


def test_weights_of_others_give_the_same_latents_without_a_training(encoded, run_stage):
    before = results()
    shutil.copytree(PLACE / "training/weights/vae", "given")
    shutil.rmtree(".work")
    select_latents(Path.cwd(), pretrained="given")
    done = run_autoencoder(run_stage)
    assert "kimg" not in done.stdout
    assert not WORK.exists()
    after = results()
    same = {"metrics", "sheet", "posteriors", "autoencoder"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert json.loads((PLACE / "training/record.json").read_text())["pretrained"] == "given"


@pytest.mark.slow
def test_weights_that_are_not_there_or_do_not_fit_are_refused(encoded, run_stage):
    before = results()
    select_latents(Path.cwd(), pretrained="somebody/nothing-of-this-name")
    done = run_stage("autoencoder", "kl", HF_HUB_OFFLINE="1")
    assert_refused(
        done, "autoencoders.kl.pretrained is somebody/nothing-of-this-name", "no such folder", "not be fetched"
    )
    select_latents(Path.cwd(), pretrained=(PLACE / "training/weights/vae").as_posix(), factor=4, widths=[8, 8, 16])
    assert_refused(run_stage("autoencoder", "kl"), "autoencoders.kl.pretrained has factor 2, expected 4")
    assert results() == before


def test_what_cannot_be_encoded_is_refused_before_any_work(workspace, run_stage):
    for changes, name, words in (
        ({}, "nobody", ("nobody is not encoded", "kl")),
        ({"factor": 4}, "kl", ("autoencoders.kl", "factor 4 needs 3 widths, widths has 2")),
        ({"batch": 64}, "kl", ("autoencoders.kl.batch is 64", "only 41 training pictures")),
    ):
        select_latents(Path.cwd(), **changes)
        assert_refused(run_stage("autoencoder", name), *words)
    select_latents(Path.cwd())
    shutil.rmtree("data/images")
    assert_refused(run_stage("autoencoder", "kl"), "data/images does not exist", "python -m stages.normalize")
    assert not Path("models").exists()


@pytest.fixture(scope="session")
def latent_model_once(encoded_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoded folder with a trained latent-diffusion model beside it."""
    folder = tmp_path_factory.mktemp("ldm") / "workspace"
    shutil.copytree(encoded_once, folder)
    stage_or_fail(folder, "train", "ldm")
    return folder


@pytest.fixture
def latent_model(latent_model_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder with the trained model; it is the current one."""
    return copy_workspace(latent_model_once, tmp_path, monkeypatch)


def test_the_weights_carry_the_decoder_of_the_latents_with_its_scaling(latent_model):
    config = json.loads((LDM_WEIGHTS / "vae/config.json").read_text())
    latents = LatentDataset(LATENTS)
    assert config["scaling_factor"] == pytest.approx(latents.scaling_factor)
    name = "diffusion_pytorch_model.safetensors"
    assert sha256_file(LDM_WEIGHTS / "vae" / name) == latents.description["autoencoder_sha256"]
    model = json.loads((LDM_WEIGHTS / "config.json").read_text())
    assert model["latent_shape"] == [4, 8, 8]
    assert model["identity"]["dataset"] == latents.content_hash
    record = json.loads(Path("models/ldm/training/record.json").read_text())
    assert record["autoencoder"]["psnr"] == pytest.approx(latents.description["autoencoder"]["psnr"])


@pytest.mark.slow
def test_a_class_by_name_is_the_class_by_number(latent_model, run_stage):
    names = json.loads(Path("data/images/dataset.json").read_text())["class_names"]
    for label, folder in ((names[1], "by_name"), ("1", "by_number")):
        asked = ("--label", label, "--count", "2", "--out", folder)
        done = run_stage("generators", "--model", "ldm", *asked)
        assert done.returncode == 0, done.stderr
    first, second = (
        np.stack([np.asarray(Image.open(path)) for path in sorted(Path(folder).iterdir())])
        for folder in ("by_name", "by_number")
    )
    assert first.shape == (2, 16, 16, 3)
    assert np.array_equal(first, second)


def test_latents_that_are_gone_stale_or_not_selected_are_refused(latent_model, run_stage):
    weights = LATENTS / "vae/diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-4] + bytes(4))
    assert_refused(run_stage("train", "ldm"), "latents of autoencoder", "python -m stages.autoencoder kl")
    weights.write_bytes(data)
    shutil.rmtree(LATENTS)
    assert_refused(run_stage("train", "ldm"), "data/latents/kl does not exist", "python -m stages.autoencoder kl")
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(params | {"encode": []}, sort_keys=False))
    assert_refused(run_stage("train", "ldm"), "encode is []", "latents of ['kl']")
