"""The trainer's parts against closed forms and loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stages.trainer.adversarial.regularisers import zero_centred_penalty
from stages.trainer.diffaugment import TRANSFORMS, augment, cut_out, translate
from stages.trainer.ema import ema_decay, start_average, update_average
from stages.trainer.health import diversity, unhealthy_losses
from stages.trainer.loop import crossed
from stages.trainer.objectives import OBJECTIVES
from stages.trainer.order import PictureOrder, normal_noise

PICTURES = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_epoch_is_a_permutation_and_any_start_agrees():
    order = PictureOrder(10, seed=3)
    epochs = order.positions(0, 30).reshape(3, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()
    assert (PictureOrder(10, seed=3).positions(17, 8) == epochs.reshape(-1)[17:25]).all()
    assert (PictureOrder(10, seed=4).positions(0, 10) != epochs[0]).any()


def test_noise_depends_on_its_parts_alone():
    assert torch.equal(normal_noise((4, 8), 0, "noise", 64), normal_noise((4, 8), 0, "noise", 64))
    assert not torch.equal(normal_noise((4, 8), 0, "noise", 64), normal_noise((4, 8), 0, "noise", 128))


def test_ema_halves_in_its_half_life_and_ramps_up():
    decay = ema_decay(batch=50, seen=10**9, half_life=500, rampup=0.05)
    assert math.isclose(decay**10, 0.5)
    assert math.isclose(ema_decay(50, 1000, 500, 0.05), 0.5)  # 5 % of 1,000 pictures are 50
    assert ema_decay(50, 0, 500, 0.05) < 1e-12
    network = nn.BatchNorm1d(2)
    average = start_average(network)
    moments = network.state_dict()
    moments["running_mean"].fill_(1.0)
    moments["num_batches_tracked"].fill_(7)
    update_average(average, network, 0.75)
    averaged = average.state_dict()
    assert averaged["running_mean"].tolist() == [0.25, 0.25]
    assert averaged["num_batches_tracked"] == 7


def test_objectives_equal_their_formulas():
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
    p_real, p_fake = real.sigmoid(), fake.sigmoid()
    ce = -(0.9 * p_real.log() + 0.1 * (1 - p_real).log()).mean() - (1 - p_fake).log().mean()
    assert torch.isclose(OBJECTIVES["non_saturating"].discriminator(real, fake, 0.1), ce)
    assert torch.isclose(OBJECTIVES["non_saturating"].generator(fake), -p_fake.log().mean())
    assert torch.isclose(OBJECTIVES["saturating"].generator(fake), (1 - p_fake).log().mean())
    assert OBJECTIVES["least_squares"].discriminator(real, fake, 0.0) == pytest.approx((1 + 4) / 4 + (0.25 + 9) / 4)
    assert OBJECTIVES["least_squares"].generator(fake) == pytest.approx((0.25 + 16) / 4)
    assert OBJECTIVES["hinge"].discriminator(real, fake, 0.0) == pytest.approx((0 + 2) / 2 + (1.5 + 0) / 2)
    assert OBJECTIVES["hinge"].generator(fake) == pytest.approx(1.25)


def test_r1_of_a_quadratic_is_known():
    """For D(x) = |x|^2 / 2 the gradient is x, so the penalty is E|x|^2, and its own gradient is 2x / N."""
    real = torch.randn(5, 3, 2, 2, generator=random()).requires_grad_()
    penalty = zero_centred_penalty(real, real.square().flatten(1).sum(1) / 2)
    assert torch.isclose(penalty, real.square().sum() / 5)
    (gradient,) = torch.autograd.grad(penalty, real)
    assert torch.allclose(gradient, 2 * real / 5)


def test_p_zero_is_the_identity_and_p_a_half_leaves_about_half():
    assert augment(PICTURES, list(TRANSFORMS), 0.0, random()) is PICTURES
    changed = augment(PICTURES.repeat(16, 1, 1, 1), ["color"], 0.5, random())
    untouched = (changed == PICTURES.repeat(16, 1, 1, 1)).flatten(1).all(1).float().mean()
    assert 0.44 < untouched < 0.56


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_transforms_keep_shape_and_pass_gradients_twice(name):
    pictures = PICTURES[:2].double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: TRANSFORMS[name](x, random()).square(), pictures)
    assert TRANSFORMS[name](PICTURES, random()).shape == PICTURES.shape
    assert not torch.equal(TRANSFORMS[name](PICTURES, random(1)), TRANSFORMS[name](PICTURES, random(2)))


def test_translation_equals_a_loop():
    moved = translate(PICTURES, random(5))
    shifts = torch.randint(-2, 3, (64, 2), generator=random(5)).tolist()
    for before, after, (down, right) in zip(PICTURES, moved, shifts, strict=True):
        expected = torch.zeros_like(before)
        for y in range(16):
            for x in range(16):
                if 0 <= y - down < 16 and 0 <= x - right < 16:
                    expected[:, y, x] = before[:, y - down, x - right]
        assert torch.equal(after, expected)


def test_cutout_sets_one_box_to_grey():
    cut = cut_out(torch.ones(512, 1, 16, 16), random())
    sizes = (cut == 0).flatten(1).sum(1)
    assert sizes.max() == 64
    assert sizes.min() >= 16  # a corner's box lies a quarter inside
    assert set(cut.unique().tolist()) == {0.0, 1.0}


def test_ticks_are_crossed_once():
    crossings = [crossed(seen, 64, 1.0) for seen in range(64, 3201, 64)]
    assert [c for c in crossings if c] == [1, 2, 3]
    assert crossed(1000, 500, 1.0) == 1


def test_diversity_of_copies_is_zero_and_of_noise_is_known():
    assert diversity(torch.ones(8, 3, 4, 4)) == 0
    noise = torch.randn(64, 3, 16, 16, generator=random())
    assert diversity(noise) == pytest.approx(math.sqrt(2), abs=0.02)


def test_losses_that_are_not_finite_are_named():
    assert unhealthy_losses({"a": 1.0, "b": math.nan, "c": -math.inf}) == "b is nan, c is -inf"
    assert unhealthy_losses({"a": np.float64(3)}) == ""
