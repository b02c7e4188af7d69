"""A denoiser's step: its loss, what is hidden, its averages, and that nothing but seed and pictures decides it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.errors import Interrupted
from stages.generators.diffusion.generator import DiffusionGenerator
from stages.generators.interface import Request
from stages.generators.noise import latents
from stages.networks.vae import build_autoencoder
from stages.ranks import free_port
from stages.storage import sha256_tree
from stages.trainer.denoising.learner import BUCKETS, DenoisingLearner
from stages.trainer.denoising.process import Noised
from stages.trainer.ema import ema_decay
from stages.trainer.learner import Learner
from stages.trainer.loop import TrainingLoop
from stages.trainer.state import StateFolder
from tests.conftest import ROOT
from tests.unit.denoising import (
    ANCESTRAL,
    MIRRORED,
    gradients_of,
    open_job,
    open_tiny,
    random_pictures,
    settings_of,
    write_images,
)
from tests.unit.shapes import NAMES
from tests.unit.test_latents import CONFIG as LATENT
from tests.unit.test_latents import write as write_latents

COUNT = 24
ALL = np.arange(8)
LABELS = [number % 3 for number in range(COUNT)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three classes, one of which has no label."""
    folder = tmp_path_factory.mktemp("images")
    return write_images(folder, random_pictures(COUNT), [-1, *LABELS[1:]], NAMES)


class Oracle(nn.Module):
    """A network that knows the answer, plus a planted error; it has one weight, so that there is a gradient."""

    def __init__(self, learner: DenoisingLearner, clean: Tensor, error: Tensor | float = 0.0) -> None:
        super().__init__()
        self.process, self.clean, self.error = learner.process, clean, error
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, noisy: Tensor, timesteps: Tensor, *_: Tensor) -> Tensor:
        signal, sigma = self.process.levels(timesteps)
        noise = (noisy - signal * self.clean) / sigma
        noised = Noised(self.clean, noise, noisy, signal, sigma, timesteps)
        return self.process.target(noised) + self.error + self.weight


def share_of(timesteps: Tensor) -> Tensor:
    """Return which quarter of the timesteps each is in."""
    return (timesteps // 250).long()


@pytest.mark.parametrize("changes", [{}, ANCESTRAL, ANCESTRAL | {"prediction": "v", "zero_terminal_snr": True}])
@pytest.mark.parametrize("weighting", ["uniform", "min_snr_5"])
def test_a_perfect_prediction_has_no_loss_and_a_wrong_one_its_square(images, changes, weighting):
    learner = open_tiny(images, **changes, weighting=weighting)
    clean = learner.source.samples(ALL, 0)
    learner.running = Oracle(learner, clean)
    assert learner.step(ALL, 0)["loss"].item() < 1e-9
    learner.running = Oracle(learner, clean, 0.5)
    assert learner.step(ALL, 0)["loss"].item() == pytest.approx(0.25, rel=1e-4)


def test_losses_are_told_apart_by_quarters_of_the_timesteps(images):
    """Each picture's error is planted by its quarter: 1, 2, 3 or 4, so the quarter's loss is its square."""
    learner = open_tiny(images)
    sums: dict[str, float] = {}
    for seen in range(0, 96, 8):
        _, timesteps, _ = learner._draw(8, seen)
        planted = (share_of(timesteps) + 1.0)[:, None, None, None]
        learner.running = Oracle(learner, learner.source.samples(ALL, seen), planted)
        for name, value in learner.step(ALL, seen).items():
            sums[name] = sums.get(name, 0.0) + float(value) / 12
    row = learner.finish_row(sums, 96)
    assert [row[f"loss_t{n}"] for n in range(BUCKETS)] == pytest.approx([1, 4, 9, 16], rel=1e-4)
    shares = torch.bincount(share_of(torch.cat([learner._draw(8, seen)[1] for seen in range(0, 96, 8)])), minlength=4)
    assert row["loss"] == pytest.approx(float((shares * torch.tensor([1, 4, 9, 16])).sum()) / 96, rel=1e-4)


def test_a_quarter_without_pictures_has_no_loss(images, monkeypatch):
    learner = open_tiny(images)
    learner.running = Oracle(learner, learner.source.samples(ALL, 0), 1.0)
    monkeypatch.setattr(learner.process, "draw_timesteps", lambda count, random: torch.full((count,), 600.0))
    row = learner.finish_row({name: float(value) for name, value in learner.step(ALL, 0).items()}, 8)
    assert {name for name in row if name.startswith("loss_t")} == {"loss_t2"}
    assert row["loss_t2"] == pytest.approx(1, rel=1e-4)


def test_the_gradient_is_that_of_the_weighted_error(images):
    """The oracle's weight w adds to each prediction: d loss / d w = 2 mean(weight * error)."""
    learner = open_tiny(images, **ANCESTRAL, weighting="min_snr_5")
    oracle = Oracle(learner, learner.source.samples(ALL, 0), 0.3)
    learner.running = oracle
    _, timesteps, _ = learner._draw(8, 0)
    weights = learner.process.weights(*learner.process.levels(timesteps))
    learner.step(ALL, 0)
    assert oracle.weight.grad is not None
    assert oracle.weight.grad.item() == pytest.approx(2 * 0.3 * weights.mean().item(), rel=1e-3)
    assert weights.max() > weights.min()


def guided_parts(images: Path) -> tuple[DiffusionGenerator, dict[str, np.ndarray]]:
    """Return a generator with fresh weights that depends on the class, and a request's parts."""
    learner = open_tiny(images, condition="class", guidance=3.0, lr=1e-2)
    for seen in range(0, 80, 8):
        learner.step((ALL + seen) % COUNT, seen)
    return learner.generator(), {"label": np.array([0, 1, 2, 1])}


def test_guidance_1_is_the_conditional_network_alone_and_0_the_unconditional_one(images):
    generator, asked = guided_parts(images)
    noise = latents(range(4), generator.capabilities.latent_shape)
    calls: list[int] = []
    hook = generator.denoiser.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    alone = generator.generate(Request(noise, asked, guidance=1.0))
    assert calls == [4] * 4  # the network alone: no second half of the batch
    hook.remove()
    guided = generator._sampler(guided=True)
    inputs = [torch.from_numpy(noise), torch.from_numpy(asked["label"])]
    with torch.inference_mode():
        by_formula = {g: guided(*inputs, torch.full((4,), g)).numpy() for g in (0.0, 1.0, 3.0)}
    assert np.allclose(by_formula[1.0], alone, atol=1e-5)
    unconditional = generator.generate(Request(noise, {"label": np.full(4, -1)}, guidance=1.0))
    assert np.allclose(by_formula[0.0], unconditional, atol=1e-5)
    assert np.allclose(by_formula[3.0], generator.generate(Request(noise, asked)), atol=1e-6)  # 3 is its default
    for one, other in ((alone, unconditional), (alone, by_formula[3.0])):
        assert np.abs(one - other).max() > 1e-3


def nearest_rmse(drawn: np.ndarray, real: np.ndarray) -> float:
    """Return the mean over drawn pictures of the RMSE to the nearest real one."""
    apart = drawn.reshape(len(drawn), 1, -1) - real.reshape(1, len(real), -1)
    return float(np.sqrt(np.square(apart).mean(2)).min(1).mean())


@pytest.mark.slow
def test_a_tiny_network_learns_four_pictures_by_heart(tmp_path):
    folder = write_images(tmp_path, random_pictures(4).repeat(4, axis=0))
    learner = open_tiny(folder, widths=[16, 32], lr=4e-3, batch=16, ema_half_life_kimg=0.3, steps=16)
    real = learner.real_pictures(16).numpy()
    untrained = nearest_rmse(learner.draw_grid(16).numpy(), real)
    for step in range(350):
        learner.step(np.arange(16), step * 16)
    drawn = learner.draw_grid(16).numpy()
    nearest = {int(np.square(picture - real).reshape(16, -1).mean(1).argmin()) // 4 for picture in drawn}
    assert untrained > 0.6  # 0.87 when measured
    assert nearest_rmse(drawn, real) < 0.2  # 0.10
    assert nearest == {0, 1, 2, 3}


TOUCHY: dict[str, Any] = {  # all that a step draws, and all that a state must hold
    "condition": "class",
    "dropout": 0.2,
    "warmup_kimg": 0.1,
    "weight_decay": 0.01,
    "timesteps": "logit_normal",
    "ema_also_kimg": [0.02, 0.05],
    "score_kimg": 0.04,
    "ema_rampup": 0,
}


def steps(learner: DenoisingLearner, first: int, last: int) -> None:
    for seen in range(first * 8, last * 8, 8):
        learner.step((ALL + seen) % COUNT, seen)


def test_steps_after_a_state_on_disk_equal_steps_without_it(images, tmp_path):
    whole, before, after = (open_tiny(images, policy=MIRRORED, **TOUCHY) for _ in range(3))
    steps(whole, 0, 7)
    steps(before, 0, 3)
    folder = StateFolder(tmp_path)
    folder.save(before.export_state(24, {}))
    torch.rand(5)  # another process has drawn other numbers before
    state = folder.load_newest(24)
    assert state is not None
    after.restore(state)
    steps(after, 3, 7)
    expected, found = whole.export_state(56, {}).tensors, after.export_state(56, {}).tensors
    assert expected.keys() == found.keys()
    assert {name.split("/")[0] for name in found} == {
        "denoiser",
        "average",
        "average_ema0.02",
        "average_ema0.05",
        "adam",
    }
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert not torch.equal(expected["average/network.conv_in.weight"], expected["denoiser/network.conv_in.weight"])


class NearestToGrey:
    """A score that any drawn picture changes."""

    name = "distance"

    def score(self, learner: Learner, average: str) -> float:
        return float(np.square(learner.draw_sample(range(4), average)).mean())


def finished(images: Path, folder: Path, stop_at: int = 0, **changes: Any) -> TrainingLoop:
    """Train in a folder up to the budget, or up to a stop, from the state that is there."""
    learner = open_tiny(images, policy=MIRRORED, **TOUCHY | changes)
    loop = TrainingLoop(learner, folder, NearestToGrey())
    loop.resume()
    if stop_at:
        loop._should_stop = lambda: loop.progress.seen >= stop_at  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            loop.run("tiny")
    else:
        loop.run("tiny")
    return loop


def written(loop: TrainingLoop, folder: Path) -> dict[str, Any]:
    """Return all that a training leaves: weights of the best snapshot, grids, curve, tensors of the last state."""
    folder.mkdir()
    loop.learner.write_weights(folder, loop.best)
    state = StateFolder(loop.folder).path(loop.progress.seen)
    return {
        "weights": sha256_tree(folder),
        "grids": sha256_tree(loop.folder / "samples"),
        "state": (state / "tensors.safetensors").read_bytes(),
        "curve": loop.progress.curve,
        "best": loop.progress.best,
    }


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an undisturbed training of 0.2 kimg leaves."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return written(finished(images, folder / "work", budget_kimg=0.2), folder / "written")


def test_an_interrupted_training_equals_an_undisturbed_one_to_the_byte(images, tmp_path, undisturbed):
    finished(images, tmp_path / "work", stop_at=56, budget_kimg=0.2)
    assert StateFolder(tmp_path / "work").seen_counts()[-1] == 56
    assert written(finished(images, tmp_path / "work", budget_kimg=0.2), tmp_path / "written") == undisturbed


def test_a_training_that_is_extended_equals_a_fresh_longer_one(images, tmp_path, undisturbed):
    first = finished(images, tmp_path / "work", budget_kimg=0.104)
    assert first.progress.seen == 104
    assert written(first, tmp_path / "first")["weights"] != undisturbed["weights"]
    assert written(finished(images, tmp_path / "work", budget_kimg=0.2), tmp_path / "written") == undisturbed


def test_every_average_is_scored_and_the_best_is_what_is_written(images, tmp_path, undisturbed):
    scores = {
        (row["kimg"], average): row[f"distance{average}"]
        for row in undisturbed["curve"]
        for average in ("", "_ema0.02", "_ema0.05")
    }
    assert len(set(scores.values())) == len(scores) == 15
    best = undisturbed["best"]
    assert best["score"] == pytest.approx(min(scores.values()), abs=1e-6)
    assert scores[best["kimg"], best["average"]] == pytest.approx(best["score"], abs=1e-6)
    loop = finished(images, tmp_path / "work", budget_kimg=0.2)
    loop.learner.write_weights(tmp_path, loop.best)
    on_disk = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    kept = {name.removeprefix("network."): tensor for name, tensor in loop.best.items()}
    assert on_disk.keys() == kept.keys()
    assert all(torch.equal(on_disk[name], kept[name]) for name in kept)


def test_averages_follow_their_half_lives(images):
    """The first weight by hand: each step moves the average by 1 - decay towards the network."""
    learner = open_tiny(images, ema_also_kimg=[0.1], ema_half_life_kimg=0.02, ema_rampup=0, score_kimg=0.04)
    name = "network.conv_in.weight"
    expected = {half: learner.denoiser.state_dict()[name].clone() for half in (0.02, 0.1)}
    for seen in range(0, 40, 8):
        learner.step(ALL, seen)
        for half, average in expected.items():
            decay = ema_decay(8, seen, half * 1000, 0)
            assert decay == pytest.approx(0.5 ** (8 / (half * 1000)))
            average.mul_(decay).add_(learner.denoiser.state_dict()[name], alpha=1 - decay)
    for average, half in zip(("", "_ema0.1"), (0.02, 0.1), strict=True):
        assert torch.allclose(learner.average_tensors(average)[name], expected[half], atol=1e-6)


def test_the_learning_rate_rises_over_the_warm_up(images):
    learner = open_tiny(images, warmup_kimg=0.032, lr=0.01)
    rates = []
    for seen in range(0, 48, 8):
        learner.step(ALL, seen)
        rates.append(learner.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


@pytest.mark.parametrize(("clip", "largest"), [(0.1, 0.1), (0, 1e9)])
def test_gradients_are_clipped_to_their_norm_which_is_told_unclipped(images, clip, largest):
    learner = open_tiny(images, clip=clip)
    gradients = gradients_of(learner, ALL)
    norm = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum().sqrt().item()
    told = open_tiny(images, clip=clip).step(ALL, 0)["gradient_norm"].item()
    assert norm == pytest.approx(min(told, largest), rel=1e-4)
    assert told > 0.1


TWO = """
import sys
from pathlib import Path
import numpy as np
from safetensors.torch import save_file
from stages.trainer.world import World, open_accelerator
from tests.unit.denoising import MIRRORED, gradients_of, open_tiny
world = World(open_accelerator("fp32"))
for condition in ("none", "class"):
    learner = open_tiny(Path(sys.argv[1]), world, MIRRORED, condition=condition, clip=0)
    gradients = gradients_of(learner, np.arange(8))
    if world.leads:
        save_file(gradients, Path(sys.argv[2]) / f"{condition}.safetensors")
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
    for condition in ("none", "class"):
        found = load_file(tmp_path / f"{condition}.safetensors")
        expected = gradients_of(open_tiny(images, policy=MIRRORED, condition=condition, clip=0), ALL)
        assert found.keys() == expected.keys()
        worst = max((found[name] - expected[name]).abs().max().item() for name in expected)
        assert worst < 1e-5
        assert max(gradient.abs().max().item() for gradient in expected.values()) > 0.1


def open_latent(images: Path, data: Path) -> DenoisingLearner:
    settings = settings_of(condition="class", dropout=0.1)
    return DenoisingLearner(replace(open_job(images, settings, MIRRORED), data=data), settings)


def test_a_training_in_latents_goes_on_from_a_state_as_if_undisturbed_and_draws_pictures(images, tmp_path):
    torch.manual_seed(0)
    autoencoder = build_autoencoder(LATENT).eval().requires_grad_(False)
    data = write_latents(tmp_path / "latents" / "kl", images, autoencoder).folder
    whole, before, after = (open_latent(images, data) for _ in range(3))
    assert whole.config["latent_shape"] == [4, 4, 4]
    steps(whole, 0, 5)
    steps(before, 0, 2)
    after.restore(before.export_state(16, {}))
    steps(after, 2, 5)
    expected, found = whole.export_state(40, {}).tensors, after.export_state(40, {}).tensors
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    drawn = whole.draw_grid(3)
    assert drawn.shape == (3, 3, 8, 8)
    (tmp_path / "weights").mkdir()
    whole.write_weights(tmp_path / "weights", {})
    assert whole.config["files"] == [f"{folder}/diffusion_pytorch_model.safetensors" for folder in ("unet", "vae")]
