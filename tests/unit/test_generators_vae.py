"""A variational autoencoder as a generator, in torch and in its ONNX file."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from stages.errors import InputError
from stages.export.run import run as export
from stages.generators.interface import Request
from stages.generators.loading import load_trained, load_untrained
from stages.generators.noise import latents
from stages.generators.onnx_file import OnnxGenerator
from stages.settings import ExportSettings
from stages.storage import write_json
from stages.trainer.reconstruction.learner import FILE, VaeLearner
from tests.unit.autoencoders import VAE, open_tiny, write_images
from tests.unit.denoising import random_pictures

SHAPE = (4, 4, 4)
SEEDS = range(5)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights folder of a tiny VAE after a few steps, as a training writes it."""
    folder = tmp_path_factory.mktemp("vae")
    images = write_images(folder / "images", random_pictures(16, 16), ["train"] * 16)
    learner = open_tiny(images, **VAE | {"factor": 4, "widths": [8, 8, 16], "lr": 0.01, "ema_half_life_kimg": 0.001})
    assert isinstance(learner, VaeLearner)
    for seen in range(0, 80, 8):
        learner.step((np.arange(8) + seen) % 16, seen)
    written = folder / "models" / "vae" / "training" / "weights"
    written.mkdir(parents=True)
    identity = {"weights": learner.write_weights(written, {})}
    write_json(written / "config.json", {**learner.config, "identity": identity})
    np.save(folder / "grid.npy", learner.draw_grid(len(SEEDS)).numpy())
    return written


def test_it_draws_what_the_training_drew_within_the_range_and_whatever_the_batch(weights):
    generator = load_trained(weights)
    assert generator.capabilities.latent_shape == SHAPE
    assert generator.capabilities.family == "vae"
    (drawn,) = generator.draw(SEEDS)
    assert drawn.shape == (5, 3, 16, 16)
    assert drawn.dtype == np.float32
    assert np.abs(drawn).max() <= 1
    assert np.allclose(drawn, np.load(weights.parents[3] / "grid.npy"), atol=1e-6)
    alone = generator.generate(Request(latents([3], SHAPE)))
    assert np.allclose(alone[0], drawn[3], atol=1e-5)
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3


def test_pictures_beyond_the_range_are_clipped(weights):
    far = load_trained(weights).generate(Request(50 * latents(SEEDS, SHAPE)))
    assert far.min() >= -1
    assert far.max() <= 1
    assert (np.abs(far) == 1).any()


def test_fresh_weights_are_the_same_for_a_seed_and_draw_otherwise_than_the_trained(weights):
    (trained,) = load_trained(weights).draw(SEEDS)
    first, again, other = (next(load_untrained(weights, seed).draw(SEEDS)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - trained).max() > 0.05


def test_the_file_draws_the_same_pictures(weights, tmp_path):
    report = export(ExportSettings(opset=20, tolerance=1e-4), weights, tmp_path / "onnx")
    assert max(report["max_abs_difference"].values()) < 1e-4
    (expected,) = load_trained(weights).draw(SEEDS)
    file = OnnxGenerator(tmp_path / "onnx" / "model.onnx")
    assert file.capabilities == load_trained(weights).capabilities
    (drawn,) = file.draw(SEEDS)
    assert np.allclose(drawn, expected, atol=1e-4)


def test_changed_weights_are_refused(weights):
    path = weights / FILE
    kept = path.read_bytes()
    save_file({name: tensor + 1e-3 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(InputError, match="sha256"):
        load_trained(weights)
    path.write_bytes(kept)
