"""Inception: which weights may be used and named, and that its features are torch-fidelity's.

Done with random weights; what they prove and do not prove stands in `random_inception`.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch_fidelity.utils import create_feature_extractor

from stages.errors import InputError
from stages.metrics import inception, inception_weights
from stages.metrics.backbone import read_weights
from stages.metrics.feature_networks import FeatureNetwork, open_inception, open_network
from stages.metrics.inception_weights import (
    STANDARD_FILE,
    STANDARD_SHA256,
    InceptionWeights,
    find_inception,
    missing_reason,
)
from stages.storage import sha256_file
from tests.unit.random_inception import blobs, random_weights, write_random_weights

__all__ = ["write_random_weights"]

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights() -> InceptionWeights:
    return random_weights()


@pytest.fixture(scope="module")
def network(weights: InceptionWeights) -> FeatureNetwork:
    return open_inception(weights, CPU)


def lock(folder: Path, sha256: str | None) -> Path:
    path = folder / "weights.lock.json"
    path.write_text(json.dumps({"inception": sha256 and {"sha256": sha256, "bytes": 1}}))
    return path


def test_null_and_no_lock_say_loudly_how_to_get_fid(tmp_path: Path):
    assert find_inception(None, lock(tmp_path, None)) is None
    reason = missing_reason(None, lock(tmp_path, None))
    assert reason is not None
    for word in ("FID was not computed", "evaluate.inception", STANDARD_FILE, "python -m pipelines.refresh"):
        assert word in reason
    assert "is null, though" in str(missing_reason(None, lock(tmp_path, STANDARD_SHA256)))
    assert missing_reason("download", lock(tmp_path, STANDARD_SHA256)) is None


@pytest.mark.parametrize("locked", [None, "0" * 64])
def test_weights_that_are_not_the_locked_ones_are_refused(locked: str | None, tmp_path: Path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    with pytest.raises(InputError, match=r"python -m pipelines\.refresh") as caught:
        find_inception(str(path), lock(tmp_path, locked))
    assert sha256_file(path) in str(caught.value)
    assert (locked or "none (null)") in str(caught.value)


def test_locked_weights_are_found_by_path_and_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inception_weights, "cache_folder", lambda: tmp_path)
    path = tmp_path / STANDARD_FILE
    path.write_bytes(b"weights")
    sha256 = sha256_file(path)
    for setting in (str(path), "download"):
        assert find_inception(setting, lock(tmp_path, sha256)) == InceptionWeights(path, sha256)


@pytest.mark.parametrize(("setting", "remedy"), [("download", "pipelines.refresh"), ("absent.pth", STANDARD_FILE)])
def test_absent_weights_are_named(setting: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inception_weights, "cache_folder", lambda: tmp_path)
    with pytest.raises(InputError, match=f"evaluate.inception is {setting}.*{remedy}"):
        find_inception(setting, lock(tmp_path, STANDARD_SHA256))


def test_a_lock_without_an_entry_is_refused(tmp_path: Path):
    path = tmp_path / "weights.lock.json"
    with pytest.raises(InputError, match="does not exist"):
        find_inception(None, path)
    path.write_text("{}")
    with pytest.raises(InputError, match="no `inception` entry"):
        find_inception(None, path)


def test_only_the_standard_weights_give_fid(
    network: FeatureNetwork, weights: InceptionWeights, monkeypatch: pytest.MonkeyPatch
):
    """Stands in for the standard file by its sha256 alone, since the file itself cannot be had here."""
    short = weights.sha256[:8]
    assert (network.names()["fd"], network.names()["kid"]) == (f"fd_inception_{short}", f"kid_inception_{short}")
    monkeypatch.setattr(inception, "build", lambda weights: None)
    standard = replace(read_weights(weights.path), sha256=STANDARD_SHA256)
    named = inception.load_inception(standard, "tf")
    assert (named.distance, named.label) == ("fid", "inception")
    names = replace(network, label=named.label, distance=named.distance).names()
    assert names == {
        "fd": "fid",
        "fd_inf": "fid_inf",
        **{kind: f"{kind}_inception" for kind in ("kid", "kid_std", "kid_se", "precision", "recall")},
        **{kind: f"{kind}_inception" for kind in ("density", "coverage", "isc", "isc_std")},
    }


def test_features_and_logits_are_those_of_torch_fidelity(network: FeatureNetwork, weights: InceptionWeights):
    options = {"cuda": False, "verbose": False, "feature_extractor_weights_path": str(weights.path)}
    reference = create_feature_extractor("inception-v3-compat", ["2048", "logits_unbiased"], **options)
    pictures = blobs(0, 8)
    with torch.inference_mode():
        expected = reference(torch.from_numpy(pictures))
    for found, wanted in zip(network.classify(pictures), expected, strict=True):
        assert found is not None
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6, atol=1e-6 * float(wanted.abs().max()))


def test_the_families_have_their_own_normalisation_and_recipe(weights: InceptionWeights):
    centres = {"tf": "(x - 128) / 128", "clean": "(x - 128) / 128", "pytorch": "(x - 127.5) / 127.5"}
    recipes = [open_network("inception", weights=weights, resize=family, device=CPU).recipe for family in centres]
    assert {recipe["resize"]: recipe["normalisation"] for recipe in recipes} == centres
    assert all(recipe["weights_sha256"] == weights.sha256 for recipe in recipes)


def test_double_precision_is_another_recipe_and_close_to_single(network: FeatureNetwork, weights: InceptionWeights):
    double = open_network("inception", weights=weights, device=CPU, precision="float64")
    pictures = blobs(0, 1)
    features = double.classify(pictures)[0]
    assert features.dtype == np.float32
    np.testing.assert_allclose(network.classify(pictures)[0], features, atol=1e-4 * features.max())
    assert double.recipe != network.recipe and double.recipe["dtype"] == "float64"


def test_folding_changes_nothing_but_rounding(weights: InceptionWeights, network: FeatureNetwork):
    folded = inception.build(read_weights(weights.path))
    inception.fold_batch_norms(folded)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    pictures = blobs(0, 2)
    expected = network.classify(pictures)[0]
    np.testing.assert_allclose(folded(network.preparation(pictures))[0].numpy(), expected, atol=1e-4 * expected.max())


def test_safetensors_are_taken_too(weights: InceptionWeights, network: FeatureNetwork, tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    save_file(torch.load(weights.path, weights_only=True), path)
    again = open_network("inception", weights=path, device=CPU)
    assert again.label != network.label  # a score names the bytes of its file
    pictures = blobs(0, 1)
    assert again.classify(pictures)[0].tobytes() == network.classify(pictures)[0].tobytes()


class Malicious:
    """An object that would run a command where a file is unpickled without a whitelist."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("content", [{"weights": Malicious()}, {"other": torch.zeros(1)}, [1, 2], b"no file of torch"])
@pytest.mark.parametrize("name", ["inception", "dinov2", "clip"])
def test_a_file_that_is_not_these_tensors_is_refused(
    name: str, content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"weights\.pth") as caught:
        open_network(name, weights=path, device=CPU)
    assert sha256_file(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_weights_that_changed_after_they_were_locked_are_refused(tmp_path: Path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"other")
    with pytest.raises(InputError, match=f"{sha256_file(path)}, expected {'0' * 64}"):
        open_inception(InceptionWeights(path, "0" * 64), CPU)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "vgg16"}, "feature network is 'vgg16'; expected one of inception"),
        ({"name": "inception"}, f"inception has no weights; give the path of {STANDARD_FILE}"),
        ({"name": "dinov2"}, "dinov2 has no weights"),
        ({"name": "clip", "weights": Path("absent.pth")}, r"absent\.pth cannot be read"),
        ({"name": "efficientnet_lite0", "weights": Path("w.pth")}, r"comes with its own weights; leave out w\.pth"),
        ({"name": "efficientnet_lite0", "resize": "area"}, "resize is 'area'; expected one of tf, pytorch, clean"),
        ({"name": "efficientnet_lite0", "engine": "turbo"}, "engine is 'turbo'; expected one of exact, fast"),
        ({"name": "efficientnet_lite0", "precision": "bfloat16"}, "precision is 'bfloat16'; expected float32"),
        (
            {"name": "efficientnet_lite0", "precision": "float64", "engine": "fast"},
            "float64 with the engine exact",
        ),
    ],
)
def test_impossible_networks_are_named(arguments: dict, words: str):
    with pytest.raises(InputError, match=words):
        open_network(device=CPU, **arguments)
