"""The `fast` engine against the `exact` one: the same scores to 1e-3, another recipe, and nothing of this machine."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from stages.errors import InputError
from stages.metrics import engines, fast_engine
from stages.metrics.distances import frechet_distance
from stages.metrics.feature_networks import FeatureNetwork, load_backbone, open_network
from stages.metrics.features import FeatureCache, PictureSet, features_of
from stages.metrics.gaussians import Features
from tests.unit.random_inception import blobs, random_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def graphs(user_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fast_engine, "cache_folder", lambda: user_cache)
    return user_cache / "networks"


def open_fast(name: str, **given) -> FeatureNetwork:
    return open_network(name, engine="fast", device=CPU, **given)


def features(pictures: np.ndarray, network: FeatureNetwork, folder: Path) -> np.ndarray:
    whole = PictureSet("test", len(pictures), lambda: iter([pictures]))
    return features_of(whole, [network], FeatureCache(folder))[network.label].features


def test_inception_is_within_a_thousandth_and_has_its_own_recipe(graphs: Path, tmp_path: Path):
    exact = open_network("inception", weights=random_weights(), device=CPU)
    fast = open_fast("inception", weights=random_weights())
    distances = []
    for network in (exact, fast):
        sets = [blobs(seed, 24, 64) for seed in (0, 1)]
        found = [Features(features(pictures, network, tmp_path)) for pictures in sets]
        distances.append(frechet_distance(*found))
    assert distances[0] > 1
    assert distances[1] == pytest.approx(distances[0], rel=2e-5)  # promised are 1e-3
    differing = {name for name in exact.recipe if exact.recipe[name] != fast.recipe[name]}
    assert differing == {"engine"}
    assert fast.label == exact.label


def test_efficientnet_lite0_is_the_same_to_rounding_in_features_and_logits(graphs: Path):
    pictures = blobs(3, 5)
    expected = open_network("efficientnet_lite0", device=CPU).classify(pictures)
    for found, wanted in zip(open_fast("efficientnet_lite0").classify(pictures), expected, strict=True):
        assert found is not None and wanted is not None
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_features_depend_neither_on_the_batch_nor_on_the_number_of_threads(graphs: Path):
    backbone = load_backbone("efficientnet_lite0", None, "tf")
    prepared = torch.from_numpy(np.random.default_rng(0).standard_normal((8, 3, 224, 224)).astype(np.float32))
    found = [fast_engine.OnnxEngine(backbone, workers).run(prepared)[0] for workers in (1, 2)]
    assert found[0].tobytes() == found[1].tobytes()
    alone = fast_engine.OnnxEngine(backbone, 1).run(prepared[:1])[0]
    np.testing.assert_allclose(alone, found[0][:1], atol=1e-4)


def test_the_graph_is_kept_once_and_names_nothing_of_this_machine(
    graphs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    open_fast("efficientnet_lite0")
    (path,) = graphs.glob("efficientnet_lite0-*.onnx")
    data = path.read_bytes()
    for word in (str(Path.cwd()), "site-packages", "File ", ".py", "torch.nn"):
        assert word.encode() not in data, word
    model = onnx.load_model_from_string(data)
    onnx.checker.check_model(model)
    assert [output.name for output in model.graph.output] == ["features", "logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    monkeypatch.setattr(fast_engine, "export", pytest.fail)
    capsys.readouterr()
    open_fast("efficientnet_lite0")
    assert "exporting" not in capsys.readouterr().err


def test_a_damaged_graph_is_exported_again(graphs: Path, capsys: pytest.CaptureFixture):
    open_fast("efficientnet_lite0")
    (path,) = graphs.glob("efficientnet_lite0-*.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    capsys.readouterr()
    open_fast("efficientnet_lite0")
    told = capsys.readouterr().err
    assert "not as it was written; the network is exported again" in told and "exporting efficientnet_lite0" in told
    assert json.loads(path.with_suffix(".json").read_text())["features"] == "efficientnet-lite0"
    assert len(path.read_bytes()) == len(whole)


def test_old_graphs_are_deleted_and_those_of_other_networks_stay(tmp_path: Path):
    for number in range(5):
        for name in (f"one-{number}.onnx", f"one-{number}.json", f"one_more-{number}.onnx"):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (number, number))
    fast_engine._drop_old(tmp_path, "one")
    assert sorted(path.name for path in tmp_path.glob("one-*.onnx")) == ["one-2.onnx", "one-3.onnx", "one-4.onnx"]
    assert len(list(tmp_path.iterdir())) == 2 * 3 + 5


def test_other_weights_other_code_and_other_libraries_have_their_own_graph(monkeypatch: pytest.MonkeyPatch):
    backbone = load_backbone("efficientnet_lite0", None, "tf")
    paths = {fast_engine.kept_path(backbone)}
    with monkeypatch.context() as patch:
        patch.setattr(fast_engine, "code_hash", lambda files: "changed")
        paths.add(fast_engine.kept_path(backbone))
    with monkeypatch.context() as patch:
        patch.setattr(fast_engine, "versions", lambda names: {"torch": "0"})
        paths.add(fast_engine.kept_path(backbone))
    paths.add(fast_engine.kept_path(replace(backbone, weights_sha256="0" * 64)))
    assert len(paths) == 4


def test_the_sources_of_a_graph_are_those_of_its_layers():
    names = {path.name for path in fast_engine._sources(load_backbone("efficientnet_lite0", None, "tf"))}
    assert names == {"efficientnet_lite0.py", "fast_engine.py"}


class Unexportable(torch.nn.Module):
    """Python decides on values, which no graph holds."""

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, None]:
        return pictures.mean(dim=(2, 3)) * (1 if float(pictures.sum()) > 0 else 2), None


def test_a_network_that_cannot_be_exported_is_named(graphs: Path, capfd: pytest.CaptureFixture):
    backbone = replace(load_backbone("efficientnet_lite0", None, "tf"), network=Unexportable(), size=8)
    with pytest.raises(
        InputError, match=r"efficientnet_lite0 cannot be exported for the fast engine.*use exact"
    ) as told:
        fast_engine.export(backbone)
    assert "\n" not in str(told.value)


def test_workers_follow_the_threads_that_torch_was_given(monkeypatch: pytest.MonkeyPatch):
    for threads, workers in ((1, 1), (2, 2), (64, engines.MOST_WORKERS)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert engines.most_workers() == workers
