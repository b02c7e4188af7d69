"""The contract of data/latents/NAME: order, scaling, mirrored copies, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models import AutoencoderKL
from safetensors.torch import load_file, save_file

from stages.autoencoder.encode import BATCH, encode, write_latents
from stages.dataset import ImageDataset, to_float
from stages.errors import InputError
from stages.latents import WEIGHTS, LatentDataset
from stages.networks.vae import build_autoencoder
from stages.progress import progress_bar
from stages.storage import read_json, sha256_tree, write_json
from stages.trainer.augmentation import Policy
from stages.trainer.denoising.source import LatentSource, open_source
from stages.trainer.job import Job
from stages.trainer.world import World, open_accelerator
from tests.unit.autoencoders import write_images
from tests.unit.denoising import MIRRORED, PLAIN, random_pictures, settings_of

COUNT = 150  # more than a batch, so that batches meet inside a shard
CONFIG = {"channels": 3, "resolution": 8, "latent_channels": 4, "widths": [8, 8], "layers": 1}


@pytest.fixture(scope="module")
def autoencoder() -> AutoencoderKL:
    """An autoencoder with fresh weights: its posteriors are about as wide as N(0, 1)."""
    torch.manual_seed(0)
    return build_autoencoder(CONFIG).eval().requires_grad_(False)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    splits = ["holdout" if number % 5 == 0 else "train" for number in range(COUNT)]
    return write_images(tmp_path / "images", random_pictures(COUNT), splits)


def write(folder: Path, images: Path, autoencoder: AutoencoderKL, mirror: bool = True) -> LatentDataset:
    """Encode pictures as the stage does."""
    dataset = ImageDataset(images)
    kinds = ("posteriors", "mirrored") if mirror else ("posteriors",)
    with progress_bar("encoding", total=len(dataset) * len(kinds)) as bar:
        encoded = {kind: encode(autoencoder, dataset, kind == "mirrored", bar) for kind in kinds}
    write_latents(folder, autoencoder, dataset, encoded, {"psnr": 20.0})
    return LatentDataset(folder)


@pytest.fixture
def latents(tmp_path: Path, images: Path, autoencoder: AutoencoderKL) -> LatentDataset:
    return write(tmp_path / "latents" / "kl", images, autoencoder)


def posterior_of(autoencoder: AutoencoderKL, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Encode pictures, uint8 (N, S, S, C), one by one."""
    found = []
    for picture in torch.from_numpy(to_float(pixels)).permute(0, 3, 1, 2):
        posterior = autoencoder.encode(picture[None], return_dict=False)[0]
        found.append(torch.stack([posterior.mean[0], posterior.std[0]]))
    both = torch.stack(found).numpy()
    return both[:, 0], both[:, 1]


@pytest.mark.parametrize("split", [None, "train", "holdout"])
def test_rows_and_posteriors_are_in_the_order_of_the_pictures(latents, images, autoencoder, split):
    dataset, read = ImageDataset(images, split), LatentDataset(latents.folder, split)
    assert read.rows == dataset.rows
    means, stds = read.posteriors()
    expected = posterior_of(autoencoder, dataset.pixels)
    assert means.shape == stds.shape == (len(dataset), 4, 4, 4)
    assert np.allclose(means, expected[0], atol=1e-5)
    assert np.allclose(stds, expected[1], atol=1e-5)
    assert COUNT > BATCH


def test_mirrored_copies_are_those_of_the_mirrored_pictures(latents, images, autoencoder):
    means, stds = latents.posteriors("mirrored")
    expected = posterior_of(autoencoder, ImageDataset(images).pixels[:, :, ::-1].copy())
    assert np.allclose(means, expected[0], atol=1e-5)
    assert np.allclose(stds, expected[1], atol=1e-5)
    assert not np.allclose(means, latents.posteriors()[0], atol=1e-2)


def test_scaling_gives_the_drawn_train_latents_a_standard_deviation_of_1(latents):
    means, stds = LatentDataset(latents.folder, "train").posteriors()
    random = np.random.default_rng(0)
    drawn = np.concatenate([means + stds * random.standard_normal(means.shape, np.float32) for _ in range(40)])
    assert drawn.std() * latents.scaling_factor == pytest.approx(1, abs=3e-3)
    assert stds.mean() * latents.scaling_factor > 0.5
    config = read_json(latents.folder / "vae" / "config.json")
    assert config["scaling_factor"] == pytest.approx(latents.scaling_factor)


def test_the_hold_out_has_no_part_in_the_scaling(tmp_path, autoencoder):
    """The train pictures are flat grey, all others full of contrast: the scaling is that of grey alone."""
    pixels = random_pictures(40)
    pixels[20:] = 128
    mixed = write_images(tmp_path / "mixed", pixels, ["holdout"] * 20 + ["train"] * 20)
    alone = write_images(tmp_path / "alone", pixels[20:], ["train"] * 20)
    found = [write(tmp_path / f"latents-{n}", folder, autoencoder, False) for n, folder in enumerate((mixed, alone))]
    assert found[0].scaling_factor == pytest.approx(found[1].scaling_factor, rel=1e-5)


def test_equal_pictures_and_weights_give_equal_bytes(tmp_path, latents, images, autoencoder):
    again = write(tmp_path / "again" / "kl", images, autoencoder)
    assert sha256_tree(again.folder) == sha256_tree(latents.folder)
    assert again.content_hash == latents.content_hash


def test_the_content_hash_follows_latents_and_autoencoder(latents):
    before = latents.content_hash
    shard = latents.folder / "posteriors-0001.npy"
    values = np.load(shard)
    np.save(shard, values + 1)
    assert latents.content_hash != before
    np.save(shard, values)
    assert latents.content_hash == before
    description = read_json(latents.folder / "latents.json")
    write_json(latents.folder / "latents.json", description | {"scaling_factor": 2.0})
    assert latents.content_hash != before


def test_the_autoencoder_beside_the_latents_decodes_them(latents, autoencoder):
    opened = latents.open_autoencoder()
    latent = torch.from_numpy(latents.posteriors()[0][:2])
    expected = autoencoder.decode(latent, return_dict=False)[0]
    assert torch.allclose(opened.decode(latent, return_dict=False)[0], expected, atol=1e-6)
    assert opened.config["scaling_factor"] == pytest.approx(latents.scaling_factor)
    assert not any(parameter.requires_grad for parameter in opened.parameters())


def refusal(latents: LatentDataset, reads: str) -> str:
    """Return the line with which a fresh reader refuses."""
    fresh = LatentDataset(latents.folder, "train")
    ways: dict[str, Callable[[], object]] = {"posteriors": fresh.posteriors, "network": fresh.open_autoencoder}
    with pytest.raises(InputError) as caught:
        (ways | {"rows": lambda: fresh.rows})[reads]()
    line = str(caught.value)
    assert "\n" not in line
    assert "python -m stages.autoencoder kl" in line
    return line


@pytest.mark.parametrize("reads", ["posteriors", "network"])
def test_latents_of_another_autoencoder_are_refused(latents, reads):
    weights = latents.folder / WEIGHTS
    recorded = latents.description["autoencoder_sha256"]
    save_file({name: tensor + 1e-3 for name, tensor in load_file(weights).items()}, weights)
    assert f"latents of autoencoder {recorded[:12]}" in refusal(latents, reads)


def test_latents_of_other_pictures_are_refused(tmp_path, latents, images):
    latents.check_same_pictures(images)
    other = write_images(tmp_path / "other", random_pictures(COUNT, seed=1), ["train"] * COUNT)
    with pytest.raises(InputError, match=r"latents of pictures .*run `python -m stages.autoencoder kl`"):
        latents.check_same_pictures(other)


def test_torn_and_absent_files_are_refused_with_the_stage_to_run(latents):
    shard = latents.folder / "posteriors-0000.npy"
    data = shard.read_bytes()
    shard.write_bytes(data[:200])
    assert "posteriors-0000.npy is damaged" in refusal(latents, "posteriors")
    shard.unlink()
    assert "posteriors-0000.npy does not exist" in refusal(latents, "posteriors")
    shard.write_bytes(data)
    np.save(shard, np.load(shard)[:, :, :, :2])
    assert "posteriors-0000.npy holds rows of shape (2, 4, 2, 4), expected (2, 4, 4, 4)" in refusal(
        latents, "posteriors"
    )
    (latents.folder / "index.parquet").unlink()
    assert "index.parquet" in refusal(latents, "rows")
    (latents.folder / "latents.json").write_text("{")
    assert "latents.json is not valid JSON" in refusal(latents, "posteriors")


def job_of(images: Path, data: Path, policy: Policy) -> Job:
    settings = settings_of()
    return Job("tiny", "models.tiny", settings, images, data, policy, World(open_accelerator("fp32")))


def test_a_denoiser_learns_from_posteriors_drawn_anew_half_of_them_mirrored(latents, images):
    plain, mirrored = (open_source(job_of(images, latents.folder, policy)) for policy in (PLAIN, MIRRORED))
    assert isinstance(plain, LatentSource)
    positions = np.arange(64)
    first, second = plain.samples(positions, 0), plain.samples(positions, 64)
    assert first.shape == (64, 4, 4, 4)
    assert torch.equal(plain.samples(positions, 0), first)
    assert not torch.allclose(first, second, atol=0.1)
    means, stds = (torch.from_numpy(values[positions]) for values in (plain.means, plain.stds))
    noise = (first / plain.scale - means) / stds
    assert float(noise.std()) == pytest.approx(1, abs=0.05)

    same = (mirrored.samples(positions, 0) == first).flatten(1).all(1)
    assert 0.3 < float(same.float().mean()) < 0.7


def test_a_policy_that_mirrors_refuses_latents_without_mirrored_copies(tmp_path, images, autoencoder):
    latents = write(tmp_path / "latents" / "kl", images, autoencoder, mirror=False)
    assert not latents.is_mirrored
    assert isinstance(open_source(job_of(images, latents.folder, PLAIN)), LatentSource)
    with pytest.raises(InputError, match=r"mirrored-0000.npy does not exist; run `python -m stages.autoencoder kl`"):
        open_source(job_of(images, latents.folder, MIRRORED))
