"""What autoencoders' settings refuse, and the line that says so."""

from typing import Any

import pytest

from stages.errors import InputError
from stages.settings.autoencoders import AutoencoderSettings, ReconstructionSettings, VaeSettings
from stages.settings.base import validated
from tests.unit.autoencoders import ADVERSARY, TINY, VAE

KL: dict[str, Any] = TINY | {"factor": 4, "widths": [8, 8, 16]}


def settings_of(kind: type[ReconstructionSettings] = AutoencoderSettings, **changes: Any) -> ReconstructionSettings:
    return validated(kind, KL | changes, "autoencoders.kl")


def refused(resolution: int = 32, kind: type[ReconstructionSettings] = AutoencoderSettings, **changes: Any) -> str:
    """Return the line with which settings are refused."""
    with pytest.raises(InputError) as caught:
        settings_of(kind, **changes).check("autoencoders.kl", resolution)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"widths": [8, 8]}, "factor 4 needs 3 widths, widths has 2"),
        ({"factor": 2}, "factor 2 needs 2 widths, widths has 3"),
        ({"factor": 3}, "autoencoders.kl.factor is 3"),
        ({"factor": 16, "widths": [8] * 5}, "autoencoders.kl.factor is 16"),
        ({"latent_channels": 5}, "autoencoders.kl.latent_channels is 5"),
        ({"widths": [8, 8, 18]}, "autoencoders.kl.widths.2 is 18"),
        ({"perceptual": 1, "perceptual_network": None}, "perceptual needs a perceptual_network: efficientnet_lite0"),
        ({"perceptual_network": "vgg"}, "autoencoders.kl.perceptual_network is 'vgg'"),
        ({"precision": "fp16"}, "autoencoders.kl.precision is 'fp16'"),
        ({"adversarial": {"weigth": 1}}, "autoencoders.kl.adversarial.weigth: unknown setting"),
        ({"ema_half_life_kimg": 1}, "ema_half_life_kimg is 1.0, longer than the whole training"),
    ],
)
def test_impossible_values_are_refused_by_name(changes, expected):
    assert expected in refused(**changes)


@pytest.mark.parametrize(
    ("resolution", "changes", "expected"),
    [
        (34, {}, "autoencoders.kl.factor is 4, but pictures have 34 pixels, which is no multiple of it"),
        (8, {"factor": 8, "widths": [8] * 4}, "leaves latents of 1 x 1 of pictures of 8 pixels; at least 2 x 2"),
        (4, {}, "normalize.resolution is 4"),
        (8, {"adversarial": ADVERSARY | {"layers": 2}}, "adversarial.layers is 2, too many for pictures of 8 pixels"),
    ],
)
def test_pictures_that_do_not_suit_are_refused(resolution, changes, expected):
    assert expected in refused(resolution, **changes)


def test_a_vae_may_keep_a_single_position_and_no_less():
    single = VAE | {"factor": 32, "widths": [8] * 6, "latent_channels": 100}
    settings_of(VaeSettings, **single).check("models.vae", 32)
    assert "pictures have 16 pixels" in refused(16, VaeSettings, **single)


def test_pretrained_weights_need_no_widths():
    pretrained = settings_of(pretrained="somewhere", widths=[8, 8, 8])
    assert pretrained.widths == [8, 8, 8]
    raw = {name: value for name, value in KL.items() if name != "widths"}
    assert validated(AutoencoderSettings, raw | {"pretrained": "somewhere"}, "autoencoders.kl").factor == 4
    with pytest.raises(InputError, match="factor 4 needs 3 widths"):
        validated(AutoencoderSettings, raw, "autoencoders.kl")


def test_the_weight_of_the_divergence_is_the_noise_scale_times_kl_for_a_vae():
    assert settings_of(kl=1e-5).kl_weight == 1e-5
    assert settings_of(VaeSettings, **VAE | {"kl": 2.0, "noise": 0.25}).kl_weight == 0.5
