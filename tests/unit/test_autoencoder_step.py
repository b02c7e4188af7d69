"""A step of autoencoder and discriminator: one batch, gradients that stay apart, and nothing that chance decides."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor

from stages.errors import Interrupted
from stages.networks.vae import PatchDiscriminator, build_autoencoder, group_count
from stages.ranks import free_port
from stages.storage import sha256_tree
from stages.trainer.loop import TrainingLoop
from stages.trainer.objectives import hinge_discriminator, hinge_generator
from stages.trainer.order import normal_noise
from stages.trainer.reconstruction.learner import AutoencoderLearner, VaeLearner
from stages.trainer.reconstruction.objective import divergence, psnr
from stages.trainer.state import StateFolder
from tests.conftest import ROOT
from tests.unit.autoencoders import ADVERSARY, VAE, gradients_of, open_tiny, write_images
from tests.unit.denoising import MIRRORED, random_pictures

COUNT = 24
ALL = np.arange(8)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 16 px, a quarter of them held out."""
    splits = ["holdout" if number % 4 == 3 else "train" for number in range(COUNT)]
    return write_images(tmp_path_factory.mktemp("images"), random_pictures(COUNT, 16), splits)


def whole_loss(learner: AutoencoderLearner, seen: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return the autoencoder's loss by hand, in one graph, its adaptive weight, and the reconstructions."""
    autoencoding, settings = learner.autoencoding, learner.settings
    real = learner.source.pictures(ALL, seen)
    noise = normal_noise((len(real), *autoencoding.latent_shape), settings.seed, "posterior", seen)
    posterior, drawn = autoencoding.reconstruct(real, noise)
    loss = (drawn - real).abs().mean()
    if not settings.adversarial:
        return loss + settings.kl_weight * divergence(posterior) / real[0].numel(), torch.zeros(()), drawn
    adversarial = hinge_generator(autoencoding.networks["discriminator"](drawn))
    last = autoencoding.autoencoder.decoder.conv_out.weight
    norms = [torch.autograd.grad(part, last, retain_graph=True)[0].norm() for part in (loss, adversarial)]
    adaptive = norms[0] / (norms[1] + 1e-6)
    loss = loss + settings.adversarial.weight * adaptive * adversarial
    return loss + settings.kl_weight * divergence(posterior) / real[0].numel(), adaptive, drawn


@pytest.mark.parametrize("changes", [{"kl": 0.1}, {"kl": 0.1, "adversarial": ADVERSARY}, VAE | {"kl": 2.0}])
def test_the_gradient_is_that_of_the_whole_loss(images, changes):
    learner = open_tiny(images, **changes)
    loss, adaptive, _ = whole_loss(learner)
    parameters = dict(learner.autoencoding.autoencoder.named_parameters())
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    statistics = open_tiny(images, **changes).step(ALL, 0)
    found = gradients_of(learner, ALL)["autoencoder"]
    assert found.keys() == {f"autoencoder.{name}" for name in expected}
    for name, gradient in expected.items():
        assert torch.allclose(found[f"autoencoder.{name}"], gradient, atol=1e-6, rtol=1e-4), name
    if learner.settings.adversarial:
        assert float(statistics["adaptive_weight"]) == pytest.approx(float(adaptive), rel=1e-4)


def test_the_discriminator_learns_from_the_batch_that_the_autoencoder_has_learnt_from(images):
    """By hand: real pictures, and the reconstructions that the autoencoder drew before its own step."""
    learner = open_tiny(images, adversarial=ADVERSARY)
    discriminator = learner.autoencoding.networks["discriminator"]
    with torch.no_grad():
        drawn = whole_loss_pictures(learner)
    loss = hinge_discriminator(discriminator(learner.source.pictures(ALL, 0)), discriminator(drawn), 0.0)
    parameters = dict(discriminator.named_parameters())
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    found = gradients_of(learner, ALL)["discriminator"]
    for name, gradient in expected.items():
        assert torch.allclose(found[f"discriminator.{name}"], gradient, atol=1e-6), name


def whole_loss_pictures(learner: AutoencoderLearner) -> Tensor:
    """Return the reconstructions of the first batch, detached."""
    with torch.enable_grad():
        return whole_loss(learner)[2].detach()


def test_no_gradient_of_one_network_is_left_in_the_other(images):
    learner = open_tiny(images, adversarial=ADVERSARY)
    found = gradients_of(learner, ALL)
    assert {name.split(".")[0] for name in found["autoencoder"]} == {"autoencoder"}
    assert {name.split(".")[0] for name in found["discriminator"]} == {"discriminator"}
    assert all(parameter.requires_grad for parameter in learner.autoencoding.networks["discriminator"].parameters())


def test_the_discriminator_has_no_say_and_learns_nothing_before_its_start(images):
    late = open_tiny(images, adversarial=ADVERSARY | {"start_kimg": 0.016})
    without = open_tiny(images)
    before = {name: tensor.clone() for name, tensor in discriminator_of(late).items()}
    for seen in (0, 8):
        statistics = late.step(ALL, seen)
        assert float(statistics["adaptive_weight"]) == float(statistics["loss_discriminator"]) == 0
        without.step(ALL, seen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in discriminator_of(late).items())
    assert same_tensors(late.average_tensors(""), without.average_tensors(""))
    assert float(late.step(ALL, 16)["adaptive_weight"]) > 0
    assert not all(torch.equal(tensor, before[name]) for name, tensor in discriminator_of(late).items())


def discriminator_of(learner: AutoencoderLearner) -> dict[str, Tensor]:
    return learner.autoencoding.networks["discriminator"].state_dict()


def same_tensors(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_in_parts_has_the_gradient_of_the_whole_one(images):
    whole = gradients_of(open_tiny(images), ALL)["autoencoder"]
    parts = gradients_of(open_tiny(images, accumulation=4), ALL)["autoencoder"]
    worst = max(float((parts[name] - whole[name]).abs().max()) for name in whole)
    assert worst < 1e-6 < max(float(gradient.abs().max()) for gradient in whole.values())


@pytest.mark.parametrize("changes", [{}, {"adversarial": ADVERSARY}])
def test_checkpointing_takes_the_same_step(images, changes):
    plain, sparing = open_tiny(images, **changes), open_tiny(images, checkpointing=True, **changes)
    for learner in (plain, sparing):
        learner.step(ALL, 0)
    assert sparing.autoencoding.autoencoder.is_gradient_checkpointing
    assert not plain.autoencoding.autoencoder.is_gradient_checkpointing
    assert same_tensors(plain.export_state(8, {}).tensors, sparing.export_state(8, {}).tensors)


@pytest.fixture
def any_precision() -> Iterator[None]:
    """Let a second precision be asked for in this process, which Accelerate refuses otherwise."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


def test_half_precision_runs_and_comes_near(images, any_precision):
    found = open_tiny(images, precision="bf16", adversarial=ADVERSARY).step(ALL, 0)
    AcceleratorState._reset_state()
    expected = open_tiny(images, adversarial=ADVERSARY).step(ALL, 0)
    assert found["l1"].dtype == torch.float32
    assert float(found["l1"]) != float(expected["l1"])
    assert float(found["l1"]) == pytest.approx(float(expected["l1"]), rel=0.05)


def test_the_statistics_are_told_of_what_was_drawn(images):
    learner = open_tiny(images)
    _, _, drawn = whole_loss(learner)
    real = learner.source.pictures(ALL, 0)
    statistics = learner.step(ALL, 0)
    assert set(statistics) == set(learner.statistics)
    assert float(statistics["l1"]) == pytest.approx(float((drawn.detach() - real).abs().mean()), rel=1e-5)
    assert float(statistics["psnr"]) == pytest.approx(float(psnr(drawn.detach(), real).mean()), rel=1e-5)
    nats = float(statistics["kl"]) * learner.settings.kl_weight / (16 * 16 * 3)
    assert float(statistics["loss"]) == pytest.approx(float(statistics["l1"]) + nats, rel=1e-5)


def test_the_rate_rises_over_the_warm_up_and_stays(images):
    learner, rates = open_tiny(images, warmup_kimg=0.016, lr=0.01), []
    for seen in range(0, 32, 8):
        learner.step(ALL, seen)
        rates.append(learner.autoencoding.optimizers["autoencoder"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.01])


def test_a_tiny_autoencoder_overfits_four_pictures(tmp_path):
    """Measured: 33 dB after 200 steps, 2 seconds; untrained 11 dB."""
    images = write_images(tmp_path / "images", random_pictures(4, 8), ["train"] * 4)
    learner = open_tiny(images, widths=[16, 32], lr=0.01, batch=4, ema_half_life_kimg=0.02)
    positions, wanted = np.arange(4), learner.real_pictures(4)
    untrained = float(psnr(learner.reconstruct(wanted), wanted).mean())
    for seen in range(0, 800, 4):
        learner.step(positions, seen)
    assert untrained < 15
    assert float(psnr(learner.reconstruct(wanted), wanted).mean()) > 25


def finished(images: Path, folder: Path, stop_at: int = 0, **changes: Any) -> TrainingLoop:
    """Train up to the budget, or up to a stop as by a signal, from the newest state in a folder."""
    loop = TrainingLoop(open_tiny(images, policy=MIRRORED, **changes), folder)
    loop.resume()
    if stop_at:
        loop._should_stop = lambda: loop.progress.seen >= stop_at  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            loop.run("tiny")
    else:
        loop.run("tiny")
    return loop


def written(loop: TrainingLoop, folder: Path) -> dict[str, Any]:
    """Return all that a training leaves."""
    folder.mkdir()
    loop.learner.write_weights(folder, loop.best)
    state = StateFolder(loop.folder).path(loop.progress.seen)
    return {
        "weights": sha256_tree(folder),
        "grids": sha256_tree(loop.folder / "samples"),
        "state": (state / "tensors.safetensors").read_bytes(),
        "curve": loop.progress.curve,
    }


@pytest.mark.parametrize(
    "changes", [pytest.param({}, marks=pytest.mark.slow), {"adversarial": ADVERSARY | {"start_kimg": 0.03}}, VAE]
)
def test_an_interrupted_and_an_extended_training_equal_an_undisturbed_one_to_the_byte(images, tmp_path, changes):
    undisturbed = written(finished(images, tmp_path / "whole", **changes), tmp_path / "undisturbed")
    finished(images, tmp_path / "stopped", stop_at=56, **changes)
    assert written(finished(images, tmp_path / "stopped", **changes), tmp_path / "resumed") == undisturbed
    finished(images, tmp_path / "short", **changes | {"budget_kimg": 0.104})
    assert written(finished(images, tmp_path / "short", **changes), tmp_path / "extended") == undisturbed


def test_the_grid_has_hold_out_pictures_each_before_its_reconstruction(images):
    learner = open_tiny(images)
    grid = learner.draw_grid(12)
    assert torch.equal(grid[::2], torch.from_numpy(np.ascontiguousarray(learner.holdout.pictures(slice(None)))))
    assert torch.equal(grid[1::2], learner.reconstruct(grid[::2]))
    assert not torch.equal(grid[1::2], grid[::2])


def test_a_vae_draws_the_pictures_of_seeds_whatever_the_batch(images):
    learner = open_tiny(images, **VAE)
    assert isinstance(learner, VaeLearner)
    grid = learner.draw_grid(6)
    assert grid.shape == (6, 3, 16, 16)
    assert bool((grid.abs() <= 1).all())
    assert np.allclose(learner.draw_sample(range(4, 5), ""), grid[4:5].numpy(), atol=1e-6)
    assert not torch.equal(grid[0], grid[1])


def test_the_learning_weights_of_a_vae_are_those_of_the_evidence_lower_bound(images):
    """With Laplace noise of scale b: -log p(x|z) = sum |x - x'| / b + constant; times b / (C H W) it is the loss."""
    learner = open_tiny(images, **VAE | {"noise": 0.25})
    statistics, values = learner.step(ALL, 0), 16 * 16 * 3
    bound = float(statistics["l1"]) * values / 0.25 + float(statistics["kl"])
    assert float(statistics["loss"]) == pytest.approx(bound * 0.25 / values, rel=1e-5)


TWO = """
import sys
from pathlib import Path
import numpy as np
from safetensors.torch import save_file
from stages.trainer.world import World, open_accelerator
from tests.unit.autoencoders import ADVERSARY, gradients_of, open_tiny
from tests.unit.denoising import MIRRORED
world = World(open_accelerator("fp32"))
learner = open_tiny(Path(sys.argv[1]), world, MIRRORED, adversarial=ADVERSARY)
for name, gradients in gradients_of(learner, np.arange(8)).items():
    if world.leads:
        save_file(gradients, Path(sys.argv[2]) / f"{name}.safetensors")
world.close()
"""


def test_two_processes_take_the_gradients_of_one_with_the_whole_batch(images, tmp_path):
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TWO, str(images), str(tmp_path)]
    processes = []
    for number in ("0", "1"):
        environment = shared | {"RANK": number, "LOCAL_RANK": number, "GLOO_SOCKET_IFNAME": "lo"}
        processes.append(subprocess.Popen(command, env=environment, cwd=ROOT))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    alone = gradients_of(open_tiny(images, policy=MIRRORED, adversarial=ADVERSARY), ALL)
    for network, expected in alone.items():
        found = load_file(tmp_path / f"{network}.safetensors")
        assert found.keys() == expected.keys()
        assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 1e-5
        assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-2


@pytest.mark.parametrize(("layers", "logits", "sees"), [(1, 14, 16), (2, 6, 34), (3, 2, 70)])
def test_a_logit_sees_the_pixels_that_the_discriminator_says(layers, logits, sees):
    network = PatchDiscriminator(3, 8, layers)
    picture = torch.zeros((1, 3, 32, 32))
    assert network(picture).shape == (1, 1, logits, logits)
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    reach = 1
    for layer in reversed(convolutions):
        reach = (reach - 1) * layer.stride[0] + layer.kernel_size[0]
    assert reach == sees


def test_the_discriminator_judges_a_picture_whatever_it_stands_beside():
    network, random = PatchDiscriminator(3, 8, 2), torch.Generator().manual_seed(0)
    batch = torch.rand((4, 3, 16, 16), generator=random)
    assert torch.allclose(network(batch)[:1], network(batch[:1]), atol=1e-6)


@pytest.mark.parametrize(("widths", "groups"), [([32, 64, 64], 8), ([16, 32, 64], 4), ([8, 16], 2), ([12, 20], 1)])
def test_groups_divide_every_width(widths, groups):
    assert group_count(widths) == groups
    config = {"channels": 1, "resolution": 16, "latent_channels": 4, "widths": widths, "layers": 1}
    assert build_autoencoder(config).config["norm_num_groups"] == groups
