"""Latent diffusion as a process: it learns from the latents of the stage before, and carries their decoder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from stages.latents import LatentDataset
from stages.storage import sha256_file
from tests.conftest import copy_workspace, stage_or_fail
from tests.stages.test_autoencoder import LATENTS, encoded_once
from tests.stages.test_data import assert_refused

__all__ = ["encoded_once"]
WEIGHTS = Path("models/ldm/training/weights")


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
    config = json.loads((WEIGHTS / "vae/config.json").read_text())
    latents = LatentDataset(LATENTS)
    assert config["scaling_factor"] == pytest.approx(latents.scaling_factor)
    name = "diffusion_pytorch_model.safetensors"
    assert sha256_file(WEIGHTS / "vae" / name) == latents.description["autoencoder_sha256"]
    model = json.loads((WEIGHTS / "config.json").read_text())
    assert model["latent_shape"] == [4, 8, 8]
    assert model["identity"]["dataset"] == latents.content_hash
    record = json.loads(Path("models/ldm/training/record.json").read_text())
    assert record["autoencoder"]["psnr"] == pytest.approx(latents.description["autoencoder"]["psnr"])


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
