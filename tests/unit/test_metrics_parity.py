"""The same random weights and the same pictures through the field's own tools: the scores must be theirs.

torch-fidelity measures folders itself; pytorch-fid's network and clean-fid's reader stand in for the downloads that
they would start. One set has 64 pixels and the other 32, so that every resize has something to do, and the sets are far
apart: with fewer pictures than features the tools sum thousands of roots of eigenvalues that are rounding alone, which
takes some thousandths off their distance, whatever its size (ours does not do that; see test_metrics_frechet).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity import calculate_metrics

from stages.metrics.distances import Features, Options, compare, frechet_distance
from stages.metrics.feature_networks import open_inception, open_network
from stages.metrics.features import Extracted, FeatureCache, PictureSet, features_of
from stages.metrics.inception_weights import InceptionWeights
from tests.unit.random_inception import blobs, random_weights

CPU = torch.device("cpu")
COUNT = 16
OPTIONS = Options(kid_subset=12, kid_subsets=5, neighbours=3, seed=7, resamples=0)
FAMILIES = ("tf", "pytorch", "clean")


@pytest.fixture(scope="module")
def sets() -> list[np.ndarray]:
    return [blobs(0, COUNT, 64), blobs(1, COUNT, 32) // 3 * 2]


@pytest.fixture(scope="module")
def folders(sets: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = [tmp_path_factory.mktemp(name) for name in ("generated", "real")]
    for folder, pictures in zip(found, sets, strict=True):
        for number, picture in enumerate(pictures):
            Image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{number:03d}.png", compress_level=1)
    return found


@pytest.fixture(scope="module")
def weights() -> InceptionWeights:
    return random_weights()


@pytest.fixture(scope="module")
def ours(weights: InceptionWeights, sets: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory):
    """Return the exact engine's features of both sets by resize family, computed once."""
    cache = FeatureCache(tmp_path_factory.mktemp("cache"))

    def features(family: str) -> list[Extracted]:
        network = open_network("inception", weights=weights, resize=family, device=CPU)
        found = []
        for number, pictures in enumerate(sets):
            whole = PictureSet("test", COUNT, partial(iter, [pictures]), {"number": number})
            found.append(features_of(whole, [network], cache)[network.label])
        return found

    return {family: features(family) for family in FAMILIES}


def distance(pair: list[Extracted]) -> float:
    return frechet_distance(*(Features(extracted.features) for extracted in pair))


def test_all_scores_are_torch_fidelitys(ours: dict, folders: list[Path], weights: InceptionWeights):
    expected = calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        cuda=False,
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        cache=False,
        save_cpu_ram=True,  # also: no worker processes
        verbose=False,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights.path),
        kid_subset_size=OPTIONS.kid_subset,
        kid_subsets=OPTIONS.kid_subsets,
        isc_splits=OPTIONS.splits,
        prc_neighborhood=OPTIONS.neighbours,
        rng_seed=OPTIONS.seed,
    )
    generated, real = ours["tf"]
    found = compare(Features(generated.features), Features(real.features), OPTIONS, generated.logits)
    assert found["fd"] > 1 and found["kid"] > 0 and found["isc"] > 1.01
    names = {
        "fd": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "kid_std": "kernel_inception_distance_std",
        "isc": "inception_score_mean",
        "isc_std": "inception_score_std",
        "precision": "precision",
        "recall": "recall",
    }
    for kind, name in names.items():
        assert found[kind] == pytest.approx(expected[name], rel=1e-6), kind


@pytest.fixture(scope="module")
def reference_network(weights: InceptionWeights, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Return pytorch-fid's own network; its download is answered by a file that is already there."""
    module = pytest.importorskip("pytorch_fid.inception")
    hub = tmp_path_factory.mktemp("torch")
    target = hub / "hub" / "checkpoints" / Path(module.FID_WEIGHTS_URL).name
    target.parent.mkdir(parents=True)
    target.symlink_to(weights.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(hub))
        plain, bare = (module.InceptionV3([3], resize_input=own, normalize_input=own).eval() for own in (True, False))

    def features(pictures: torch.Tensor, own_resize: bool) -> np.ndarray:
        with torch.inference_mode():
            return (plain if own_resize else bare)(pictures)[0].flatten(1).numpy()

    return features


def theirs(first: np.ndarray, second: np.ndarray) -> float:
    """Return pytorch-fid's distance, whose square root is scipy's."""
    module = pytest.importorskip("pytorch_fid.fid_score")
    statistics = [(found.mean(axis=0), np.cov(found, rowvar=False)) for found in (first, second)]
    return float(module.calculate_frechet_distance(*statistics[0], *statistics[1]))


def test_the_pytorch_family_is_pytorch_fids(ours: dict, sets: list[np.ndarray], reference_network: Callable):
    features = [reference_network(torch.from_numpy(pictures).float() / 255, True) for pictures in sets]
    for found, wanted in zip(ours["pytorch"], features, strict=True):
        np.testing.assert_allclose(found.features, wanted, rtol=1e-5, atol=1e-5 * wanted.max())
    wide = [found.astype(np.float64) for found in features]  # as its get_activations keeps them
    assert distance(ours["pytorch"]) == pytest.approx(theirs(*wide), rel=2e-6)


def test_the_clean_family_is_clean_fids(ours: dict, folders: list[Path], reference_network: Callable):
    """clean-fid reads, resizes and measures; the network is handed to it, normalised as its own wrapper does."""
    fid = pytest.importorskip("cleanfid.fid")
    options = {"num_workers": 0, "device": CPU, "mode": "clean", "verbose": False}

    def model(pictures: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(reference_network((pictures - 128) / 128, False))

    features = [fid.get_folder_features(str(folder), model=model, **options) for folder in folders]
    for found, wanted in zip(ours["clean"], features, strict=True):
        np.testing.assert_allclose(found.features, wanted, rtol=1e-5, atol=1e-5 * wanted.max())
    assert distance(ours["clean"]) == pytest.approx(fid.fid_from_feats(*features), rel=2e-6)


def test_clean_fids_legacy_mode_is_the_pytorch_family(ours: dict, folders: list[Path], reference_network: Callable):
    fid = pytest.importorskip("cleanfid.fid")
    options = {"num_workers": 0, "device": CPU, "mode": "legacy_pytorch", "verbose": False}

    def model(pictures: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(reference_network(2 * (pictures / 255) - 1, False))

    features = [fid.get_folder_features(str(folder), model=model, **options) for folder in folders]
    expected = frechet_distance(*(Features(found) for found in features))
    assert distance(ours["pytorch"]) == pytest.approx(expected, rel=2e-6)


def test_the_families_are_unlike_each_other(ours: dict):
    found = [distance(ours[family]) for family in FAMILIES]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert abs(found[first] / found[second] - 1) > 1e-3


def test_the_tf_family_is_that_of_the_stage(ours: dict, sets: list[np.ndarray], weights: InceptionWeights):
    found = open_inception(weights, CPU).classify(sets[1][:2])[0]
    np.testing.assert_allclose(found, ours["tf"][1].features[:2], rtol=1e-5, atol=1e-5 * found.max())
