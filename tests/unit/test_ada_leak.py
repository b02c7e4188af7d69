"""ADA does not leak: a GAN that only ever sees flipped and turned one-sided pictures still draws one-sided ones.

Karras 2020, section 2.2: a transform that acts with p < 1 can be undone in distribution, so the generator must match
the pictures before it; a flip that always may act (p = 1 flips half) cannot, and the sides are lost.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from stages.settings.augment import ADA_SETS
from stages.trainer.ada.pipe import augment

SIZE, BATCH, LATENT = 8, 64, 8


def one_sided(count: int, random: torch.Generator) -> Tensor:
    """Return pictures whose left half is bright and whose right half is dark."""
    picture = torch.full((count, 1, SIZE, SIZE), -0.7)
    picture[..., : SIZE // 2] = 0.7
    return picture + 0.2 * torch.randn(picture.shape, generator=random)


def left_share(transforms: tuple[str, ...], strength: Callable[[float], float], seed: int, steps: int = 200) -> float:
    """Train a small GAN, p a function of the share of steps done; return which share of its pictures is bright left."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(1)
    generator = nn.Sequential(nn.Linear(LATENT, 64), nn.ReLU(), nn.Linear(64, SIZE * SIZE), nn.Tanh())
    discriminator = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    adam_g, adam_d = (torch.optim.Adam(net.parameters(), 2e-3, betas=(0.0, 0.9)) for net in (generator, discriminator))

    def draw(count: int) -> Tensor:
        return generator(torch.randn(count, LATENT, generator=random)).view(count, 1, SIZE, SIZE)

    for step in range(steps):
        p = strength(step / steps)
        real, fake = one_sided(BATCH, random), draw(BATCH)
        judged = [discriminator(augment(each, transforms, p, random)) for each in (real, fake.detach())]
        adam_d.zero_grad()
        (softplus(-judged[0]).mean() + softplus(judged[1]).mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        softplus(-discriminator(augment(fake, transforms, p, random))).mean().backward()
        adam_g.step()
    with torch.no_grad():
        drawn = draw(512)
    sides = drawn[..., : SIZE // 2].mean((1, 2, 3)) - drawn[..., SIZE // 2 :].mean((1, 2, 3))
    assert float(sides.abs().mean()) > 1  # it has learned halves, whichever
    return float((sides > 0).float().mean())


@pytest.mark.parametrize("seed", range(3))
def test_flips_turns_and_shifts_at_p_one_half_keep_the_side(seed):
    assert left_share(ADA_SETS["blit"], lambda _: 0.5, seed) > 0.98


@pytest.mark.parametrize("seed", range(2))
def test_all_of_bgc_with_p_rising_to_one_half_keeps_the_side(seed):
    """As ADA does, p starts at 0: at 1/2 the four that turn or mirror leave 53 % of the pictures on their side."""
    assert left_share(ADA_SETS["bgc"], lambda done: min(0.5, done), seed, steps=300) > 0.98


def test_a_flip_that_may_always_act_loses_the_side():
    assert min(left_share(("xflip",), lambda _: 1.0, seed) for seed in range(3)) < 0.5
