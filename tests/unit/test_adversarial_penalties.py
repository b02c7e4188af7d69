"""Penalties and objectives against closed forms, loops and gradients worked out by hand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages.trainer.adversarial.adversaries import Adversaries
from stages.trainer.adversarial.inputs import draw_pictures, mixed_styles
from stages.trainer.adversarial.regularisers import (
    clip_weights,
    interpolated,
    lipschitz_penalty,
    orthogonality,
    path_lengths,
    zero_centred_penalty,
)
from stages.trainer.objectives import OBJECTIVES
from stages.trainer.order import derive_seed, random_source
from tests.unit.gans import assert_same, freeze_updates, game, gradients, pictures, shaken

Gradients = dict[str, list[Tensor | None]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_zero_centred_penalty_of_a_quadratic_and_its_own_gradient_are_known():
    """D(x) = x A x / 2 with A symmetric: the gradient is A x, the penalty E|A x|^2, whose derivative is 2 E[A x x]."""
    half = normal(12, 12)
    matrix = (half + half.t()).requires_grad_()
    real = normal(5, 3, 2, 2, seed=1).requires_grad_()
    flat = real.flatten(1)
    penalty = zero_centred_penalty(real, ((flat @ matrix) * flat).sum(1) / 2)
    moved = flat @ matrix
    assert torch.isclose(penalty, moved.square().sum(1).mean())
    (gradient,) = torch.autograd.grad(penalty, matrix)
    outer = torch.einsum("ni,nj->ij", moved, flat) / 5
    assert torch.allclose(gradient + gradient.t(), 2 * (outer + outer.t()))


def test_the_lipschitz_penalty_of_a_linear_critic_and_its_own_gradient_are_known():
    weight = normal(12).requires_grad_()
    real = normal(4, 3, 2, 2, seed=1).requires_grad_()
    penalty = lipschitz_penalty(real, real.flatten(1) @ weight)
    length = weight.norm()
    assert torch.isclose(penalty, (length - 1).square())
    (gradient,) = torch.autograd.grad(penalty, weight)
    assert torch.allclose(gradient, 2 * (length - 1) * weight / length)


def test_the_lipschitz_penalty_of_a_flat_critic_is_one_and_its_gradient_finite():
    weight = torch.zeros(12, requires_grad=True)
    real = pictures(4, 2).requires_grad_()
    penalty = lipschitz_penalty(real, real.flatten(1) @ weight)
    assert torch.isclose(penalty, torch.tensor(1.0))
    penalty.backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()


def linear_synthesis(matrices: Tensor, styles: Tensor) -> Tensor:
    """Pictures (N, 3, 4, 4) that are linear in styles (N, L, S), by matrices (L, S, 48)."""
    return torch.einsum("nls,lsp->np", styles, matrices).unflatten(1, (3, 4, 4))


def test_path_lengths_of_a_linear_generator_and_their_gradient_are_known():
    matrices = normal(4, 5, 48, seed=2).requires_grad_()
    styles = normal(6, 4, 5).requires_grad_()
    noise = normal(6, 3, 4, 4, seed=3)
    lengths = path_lengths(linear_synthesis(matrices, styles), styles, noise)
    by_hand = []
    for y in noise.flatten(1) / 4:  # the square root of 16 pixels
        squares = [(matrices[layer] @ y).square().sum() for layer in range(4)]
        by_hand.append((sum(squares) / 4) ** 0.5)
    expected = torch.stack(by_hand)
    assert torch.allclose(lengths, expected)
    penalties = [(found - 0.7).square().mean() for found in (lengths, expected)]
    mine, theirs = (torch.autograd.grad(penalty, matrices, retain_graph=True)[0] for penalty in penalties)
    assert torch.allclose(mine, theirs)


def test_the_mean_square_of_path_lengths_is_the_jacobians_norm():
    """E|J^T y|^2 = |J|^2 / pixels for y of variance 1 / pixels."""
    matrices = normal(2, 5, 48, seed=2)
    styles = normal(1, 2, 5).expand(4000, -1, -1).clone().requires_grad_()
    lengths = path_lengths(linear_synthesis(matrices, styles), styles, normal(4000, 3, 4, 4, seed=3))
    expected = matrices.square().sum() / 2 / 16
    assert float(lengths.square().mean()) == pytest.approx(float(expected), rel=0.05)


def test_pictures_between_lie_on_the_lines_and_lead_to_neither_end():
    real, fake = pictures(3), pictures(3, seed=2).requires_grad_()
    between = interpolated(real, fake, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.allclose(between[0], fake[0])
    assert torch.allclose(between[1], real[1])
    assert torch.allclose(between[2], 0.25 * real[2] + 0.75 * fake[2], atol=1e-6)
    assert between.requires_grad
    assert between.is_leaf


class Layers(nn.Module):
    """Weights of all kinds that generators have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(5, 3)
        self.embedding = nn.Embedding(7, 2)
        self.norm = nn.BatchNorm2d(4)


def test_orthogonality_equals_a_loop_over_pairs_of_rows_but_for_embeddings():
    network = Layers()
    expected = 0.0
    for weight in (network.conv.weight.flatten(1), network.linear.weight):
        for first, row in enumerate(weight):
            for second, other in enumerate(weight):
                expected += float((row @ other).detach()) ** 2 if first != second else 0.0
    assert orthogonality(network).item() == pytest.approx(expected, rel=1e-5)
    nn.init.orthogonal_(network.linear.weight)
    nn.init.zeros_(network.conv.weight)
    assert orthogonality(network).item() == pytest.approx(0, abs=1e-10)


def test_clipping_bounds_every_weight_and_leaves_the_others():
    network = Layers()
    before = [parameter.detach().clone() for parameter in network.parameters()]
    clip_weights(network, 0.1)
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(new, old.clamp(-0.1, 0.1))
    assert max(parameter.max().item() for parameter in network.parameters()) == pytest.approx(0.1)


REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])


def test_wasserstein_and_relativistic_objectives_equal_their_formulas():
    critic = OBJECTIVES["wasserstein"]
    assert critic.discriminator(REAL, FAKE, 0.0) == pytest.approx(-1.25 - 0.5)
    assert critic.generator(FAKE) == pytest.approx(1.25)
    paired = OBJECTIVES["relativistic"]
    ahead = REAL - FAKE  # 1.5 and 2: of pairs, not of means
    assert torch.isclose(paired.discriminator(REAL, FAKE, 0.0), -ahead.sigmoid().log().mean())
    assert torch.isclose(paired.generator(FAKE, REAL), -(-ahead).sigmoid().log().mean())
    assert {name for name, objective in OBJECTIVES.items() if objective.paired} == {"relativistic"}


def test_one_sided_smoothing_moves_the_target_of_real_pictures_alone():
    least, hinge = OBJECTIVES["least_squares"], OBJECTIVES["hinge"]
    assert least.discriminator(REAL, FAKE, 0.1) == pytest.approx((1.1**2 + 1.9**2) / 4 + (0.25 + 9) / 4)
    assert hinge.discriminator(REAL, FAKE, 0.1) == pytest.approx((0 + 1.9) / 2 + 1.5 / 2)


def fakes(players: Adversaries, seen: int = 0) -> Tensor:
    """The pictures that a step draws."""
    with torch.no_grad():
        return draw_pictures(players.generator, players.inputs.draw(8, seen))


def by_hand(players: Adversaries, real: Tensor, **weight: float) -> list[Tensor]:
    """The discriminator's gradient of loss and penalties, by autograd over a copy of it."""
    network = copy.deepcopy(players.discriminator)
    fake = fakes(players)
    logits, fake_logits = network(real), network(fake)
    total = players.objective.discriminator(logits, fake_logits, 0.0) * weight.get("loss", 1.0)
    total = total + weight.get("drift", 0.0) * logits.square().mean()
    shares = torch.rand(8, generator=random_source(0, "interpolation", 0))[:, None, None, None]
    for name, place in (("r1", real), ("r2", fake), ("gp", shares * real + (1 - shares) * fake)):
        place = place.detach().requires_grad_()
        (slope,) = torch.autograd.grad(network(place).sum(), place, create_graph=True)
        squares = slope.square().sum((1, 2, 3))
        penalty = (squares.sqrt() - 1).square().mean() if name == "gp" else squares.mean() / 2
        total = total + weight.get(name, 0.0) * penalty
    return gradients(network, total)


@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        ({"r1_gamma": 3.0, "r2_gamma": 0}, {"r1": 3.0}),
        ({"r1_gamma": 0, "r2_gamma": 2.0}, {"r2": 2.0}),
        ({"r1_gamma": 3.0, "r2_gamma": 2.0}, {"r1": 3.0, "r2": 2.0}),
        ({"r1_gamma": 0, "r2_gamma": 0, "gradient_penalty": 10}, {"gp": 10.0}),
        ({"r1_gamma": 0, "r2_gamma": 0, "drift": 0.5}, {"drift": 0.5}),
    ],
)
@pytest.mark.parametrize("objective", ["relativistic", "non_saturating"])
def test_a_steps_gradient_is_that_of_loss_and_penalties(
    changes: dict[str, Any], weight: dict[str, float], objective: str
):
    players, found = shaken(game("r3gan", objective=objective, **changes)), Gradients()
    freeze_updates(players, found)
    real = pictures()
    expected = by_hand(players, real, **weight)
    players.step(real, 0)
    assert_same(found["discriminator"], expected)


@pytest.mark.parametrize("changes", [{"r1_gamma": 3.0, "r2_gamma": 2.0}, {"r1_gamma": 0, "gradient_penalty": 10}])
def test_lazy_penalties_add_up_to_those_of_every_step(changes: dict[str, Any]):
    """Same pictures at each step: over one interval, gradients sum up to the same."""
    sums: list[list[Tensor | None]] = []
    for every in (1, 4):
        players = shaken(game("r3gan", regularise_every=every, **{"r2_gamma": 0, **changes}))
        found = Gradients()
        freeze_updates(players, found)
        for _ in range(4):
            statistics = players.step(pictures(), 0)
            assert ("r1" in statistics) == (changes["r1_gamma"] > 0 and (every == 1 or players.steps == 1))
        sums.append(found["discriminator"])
    unpenalised = [4 * gradient for gradient in by_hand(shaken(game("r3gan")), pictures())]
    with pytest.raises(AssertionError):
        assert_same(sums[1], unpenalised)
    assert_same(sums[1], [torch.zeros(1) if each is None else each for each in sums[0]])


def test_r1_of_real_pictures_is_not_that_of_generated_ones():
    statistics = shaken(game("r3gan", r1_gamma=1.0, r2_gamma=1.0)).step(pictures(), 0)
    assert float(statistics["r1"]) != pytest.approx(float(statistics["r2"]), rel=1e-3)


PATHS: dict[str, Any] = {"r1_gamma": 0, "regularise_every": 1, "style_mixing": 0.5, "path_length_decay": 0.25}


def path_gradient(players: Adversaries, parts: int) -> tuple[list[Tensor], float, float]:
    """The generator's gradient of 2 * E[(length - mean)^2] by hand, the mean length, and the mean that has followed.

    The running mean begins at 0 and follows after each part, by a quarter.
    """
    network, followed = copy.deepcopy(players.generator), 0.0
    total, found = torch.zeros(()), []
    for number, inputs in enumerate(players.inputs.draw(4, 0, "path length").parts(parts)):
        styles = mixed_styles(network, inputs)  # type: ignore[arg-type]
        drawn = network.synthesis(styles, list(inputs.noise))  # type: ignore[operator]
        random = torch.Generator().manual_seed(derive_seed(0, "path noise", 0, number))
        noise = torch.randn(drawn.shape, generator=random)
        (slope,) = torch.autograd.grad((drawn * noise).sum() / 8, styles, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        found.append(lengths.detach().mean().item())
        followed += 0.25 * (found[-1] - followed)
        total = total + 2 * (lengths - followed).square().mean() / parts
    return gradients(network, total), sum(found) / parts, followed


@pytest.mark.parametrize("parts", [1, 2])
def test_the_path_length_penalty_equals_autograd_by_hand_and_its_mean_follows(parts: int):
    players, found = game("stylegan2", path_length_every=1, accumulation=parts, **PATHS), Gradients()
    plain, without = game("stylegan2", accumulation=parts, **{**PATHS, "path_length": 0}), Gradients()
    for each, sums in ((players, found), (plain, without)):
        freeze_updates(each, sums)
    expected, mean, followed = path_gradient(players, parts)
    statistics = players.step(pictures(), 0)
    assert "path_length" not in plain.step(pictures(), 0)
    assert float(statistics["path_length"]) == pytest.approx(mean, rel=1e-5)
    assert float(players.path_length.mean) == pytest.approx(followed, rel=1e-5)
    pairs = zip(found["generator"], without["generator"], strict=True)
    penalty = [(0 if mine is None else mine) - (0 if base is None else base) for mine, base in pairs]
    assert_same(penalty, expected, 1e-4)  # type: ignore[arg-type]


def test_a_lazy_path_length_penalty_adds_up_to_that_of_every_step():
    sums: list[list[Tensor | None]] = []
    for every in (1, 4):
        still = {**PATHS, "path_length_decay": 1e-9}  # else the mean would follow four times, or once
        players, found = game("stylegan2", path_length_every=every, **still), Gradients()
        freeze_updates(players, found)
        for _ in range(4):
            statistics = players.step(pictures(), 0)
            assert ("path_length" in statistics) == (every == 1 or players.steps == 1)
        sums.append(found["generator"])
    assert_same(sums[1], [torch.zeros(1) if each is None else each for each in sums[0]], 1e-4)


@pytest.mark.parametrize("steps", [2, 3])
def test_path_lengths_are_counted_in_steps_of_the_generator(steps: int):
    """With more discriminator steps per step of the generator, each fourth of the latter still has the penalty."""
    players = game("stylegan2", **PATHS, discriminator_steps=steps)
    had = [number for number in range(8 * steps) if "path_length" in players.step(pictures(), number * 8)]
    assert [(number + 1) // steps for number in had] == [1, 5]


def test_orthogonality_is_a_part_of_the_generators_gradient():
    build: Callable[..., Adversaries] = lambda **changes: game("r3gan", r1_gamma=0, r2_gamma=0, **changes)  # noqa: E731
    sums = []
    for weight in (0.0, 0.5):
        players, found = build(orthogonal=weight), Gradients()
        freeze_updates(players, found)
        players.step(pictures(), 0)
        sums.append(found["generator"])
    plain = build()
    expected = gradients(plain.generator, 0.5 * orthogonality(plain.generator))
    difference = [b - a for a, b in zip(*sums, strict=True) if a is not None and b is not None]
    assert_same(difference, expected)
