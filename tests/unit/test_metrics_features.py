"""One pass per set of pictures, and a cache that is believed only where nothing has changed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from stages.metrics.feature_networks import FeatureNetwork
from stages.metrics.features import FeatureCache, PictureSet, features_of

PICTURES = np.random.default_rng(0).integers(0, 256, (21, 3, 8, 8), np.uint8)


class MeanColour(FeatureExtractorBase):
    """An extractor whose answers are known: the mean of each channel, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__("mean-colour", ["3"])
        self.factor = factor

    @staticmethod
    def get_provided_features_list() -> tuple[str]:
        return ("3",)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
        return (pictures.float().mean(dim=(2, 3)) * self.factor,)


def network(label: str, factor: float = 1) -> FeatureNetwork:
    recipe = {"features": label, "weights_sha256": str(factor)}
    return FeatureNetwork(label, f"fd_{label}", MeanColour(factor), 3, torch.device("cpu"), recipe)


class Source:
    """Counts how often its pictures were asked for."""

    def __init__(self) -> None:
        self.passes = 0

    def set(self, **identity: str) -> PictureSet:
        return PictureSet("pictures", len(PICTURES), self.batches, identity or None)

    def batches(self):
        self.passes += 1
        yield from (PICTURES[:16], PICTURES[16:])


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def test_one_pass_serves_all_networks(source: Source, cache: FeatureCache):
    found = features_of(source.set(), [network("a"), network("b", 2)], cache)
    np.testing.assert_allclose(found["a"], PICTURES.mean(axis=(2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found["b"], 2 * found["a"], rtol=1e-6)
    assert source.passes == 1
    assert not cache.folder.exists()  # a set without identity is not kept


def test_kept_features_are_the_same_bytes_without_a_pass(source: Source, cache: FeatureCache):
    first = features_of(source.set(dataset="x"), [network("a")], cache)
    again = features_of(source.set(dataset="x"), [network("a")], cache)
    assert source.passes == 1
    assert first["a"].tobytes() == again["a"].tobytes()


def test_a_second_network_needs_its_own_features_only(source: Source, cache: FeatureCache):
    features_of(source.set(dataset="x"), [network("a")], cache)
    found = features_of(source.set(dataset="x"), [network("a"), network("b", 2)], cache)
    assert source.passes == 2
    np.testing.assert_allclose(found["b"], 2 * found["a"], rtol=1e-6)


def test_other_pictures_other_weights_and_other_code_have_other_features(
    source: Source, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
):
    features_of(source.set(dataset="x"), [network("a")], cache)
    features_of(source.set(dataset="y"), [network("a")], cache)
    other = replace(network("a", 3), recipe={"features": "a", "weights_sha256": "3"})
    np.testing.assert_allclose(
        features_of(source.set(dataset="x"), [other], cache)["a"], 3 * PICTURES.mean(axis=(2, 3)), rtol=1e-5
    )
    monkeypatch.setattr("stages.metrics.features.code_hash", lambda: "changed")
    features_of(source.set(dataset="x"), [network("a")], cache)
    assert source.passes == 4


def alter_values(path: Path) -> None:
    np.save(path, np.load(path) + 1)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def drop_note(path: Path) -> None:
    path.with_suffix(".json").unlink()


def break_note(path: Path) -> None:
    path.with_suffix(".json").write_text("{")


@pytest.mark.parametrize("damage", [alter_values, truncate, drop_note, break_note])
def test_an_altered_file_is_not_believed(damage, source: Source, cache: FeatureCache, capsys: pytest.CaptureFixture):
    first = features_of(source.set(dataset="x"), [network("a")], cache)
    damage(next(cache.folder.glob("*.npy")))
    assert features_of(source.set(dataset="x"), [network("a")], cache)["a"].tobytes() == first["a"].tobytes()
    assert source.passes == 2
    assert "not as it was written" in capsys.readouterr().err
    features_of(source.set(dataset="x"), [network("a")], cache)
    assert source.passes == 2  # what was computed again is kept again
