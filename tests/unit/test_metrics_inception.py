"""Inception: which weights may be used and named, and that our numbers are torch-fidelity's.

The standard weights are in no package, so these tests use random ones (He initialisation, batch norm statistics of one
pass over synthetic pictures). They prove the plumbing: loading, naming, resize, features, distance. They do not prove
that a FID computed with the real weights equals a published one.
"""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from stages.errors import InputError
from stages.metrics import inception_weights
from stages.metrics.distances import Features, Options, compare
from stages.metrics.feature_networks import FeatureNetwork, open_inception
from stages.metrics.features import FeatureCache, PictureSet, features_of
from stages.metrics.inception_weights import (
    STANDARD_FILE,
    STANDARD_SHA256,
    InceptionWeights,
    find_inception,
    missing_reason,
)
from stages.storage import sha256_file

CPU = torch.device("cpu")
COUNT = 12


def blobs(seed: int, count: int = COUNT, size: int = 32) -> np.ndarray:
    """Return pictures with structure at several scales; white noise would excite few features."""
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.rand((count, 3, side, side), generator=generator) for side in (2, 4, 8, 16)]
    resized = [nn.functional.interpolate(layer, (size, size), mode="bilinear") for layer in layers]
    return (torch.stack(resized).mean(dim=0) * 255).byte().numpy()


def write_random_weights(path: Path) -> InceptionWeights:
    """Write a file of random weights that keep all features alive."""
    with mock.patch.object(nn.Module, "load_state_dict"), mock.patch("torch.load", return_value={}):
        network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], "none")
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.from_numpy(blobs(9, 8)))
    torch.save(network.state_dict(), path)
    return InceptionWeights(path, sha256_file(path))


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> InceptionWeights:
    return write_random_weights(tmp_path_factory.mktemp("weights") / "random.pth")


@pytest.fixture(scope="module")
def network(random_weights: InceptionWeights) -> FeatureNetwork:
    return open_inception(random_weights, CPU)


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
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    with pytest.raises(InputError, match=r"python -m pipelines\.refresh") as caught:
        find_inception(str(weights), lock(tmp_path, locked))
    assert sha256_file(weights) in str(caught.value)
    assert (locked or "none (null)") in str(caught.value)


def test_locked_weights_are_found_by_path_and_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inception_weights, "cache_folder", lambda: tmp_path)
    weights = tmp_path / STANDARD_FILE
    weights.write_bytes(b"weights")
    sha256 = sha256_file(weights)
    for setting in (str(weights), "download"):
        assert find_inception(setting, lock(tmp_path, sha256)) == InceptionWeights(weights, sha256)


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


def test_only_the_standard_weights_give_fid(network: FeatureNetwork, random_weights: InceptionWeights):
    """Stands in for the standard file by its sha256 alone, since the file itself cannot be had here."""
    short = random_weights.sha256[:8]
    assert network.names()["fd"] == f"fd_inception_{short}"
    assert network.names()["kid"] == f"kid_inception_{short}"
    with mock.patch("stages.metrics.feature_networks.create"):
        named = open_inception(InceptionWeights(random_weights.path, STANDARD_SHA256), CPU).names()
    assert named == {
        "fd": "fid",
        "kid": "kid_inception",
        "kid_std": "kid_std_inception",
        "precision": "precision_inception",
        "recall": "recall_inception",
    }


class Pictures(torch.utils.data.Dataset):
    """Pictures as torch-fidelity's own front door takes them."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.pictures = torch.from_numpy(pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, position: int) -> torch.Tensor:
        return self.pictures[position]


def test_scores_are_those_of_torch_fidelity(network: FeatureNetwork, random_weights: InceptionWeights, tmp_path: Path):
    """Random weights give the same scores here and through torch_fidelity.calculate_metrics."""
    from torch_fidelity import calculate_metrics

    sets = [blobs(0), blobs(1) // 2]
    cache = FeatureCache(tmp_path)
    features = [Features(features_of(whole_set(p), [network], cache)[network.label]) for p in sets]
    found = compare(features[0], features[1], Options(kid_subset=8, kid_subsets=5, neighbours=3, seed=7))
    expected = calculate_metrics(
        input1=Pictures(sets[0]),
        input2=Pictures(sets[1]),
        cuda=False,
        fid=True,
        kid=True,
        prc=True,
        cache=False,
        save_cpu_ram=True,  # also: no worker processes
        verbose=False,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(random_weights.path),
        kid_subset_size=8,
        kid_subsets=5,
        rng_seed=7,
        prc_neighborhood=3,
    )
    assert found["fd"] > 1
    assert found["fd"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    assert found["kid"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert found["kid_std"] == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)
    assert (found["precision"], found["recall"]) == pytest.approx((expected["precision"], expected["recall"]))


def whole_set(pictures: np.ndarray) -> PictureSet:
    return PictureSet("test", len(pictures), lambda: iter([pictures]))


class Malicious:
    """An object that would run a command where a file is unpickled without a whitelist."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("content", [{"weights": Malicious()}, {"other": torch.zeros(1)}, [1, 2], b"no file of torch"])
def test_a_file_that_is_not_these_tensors_is_refused(content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"weights\.pth") as caught:
        open_inception(InceptionWeights(path, sha256_file(path)), CPU)
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()
