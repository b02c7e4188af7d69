"""One pass per set of pictures, and a cache that is believed only where nothing has changed."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.errors import InputError
from stages.metrics import extraction
from stages.metrics.feature_networks import FeatureNetwork
from stages.metrics.features import FeatureCache, PictureSet, features_of
from stages.metrics.resize import Preparation
from stages.ranks import free_port

CPU = torch.device("cpu")
PICTURES = np.random.default_rng(0).integers(0, 256, (21, 3, 8, 8), np.uint8)


@dataclass(frozen=True)
class MeanColour:
    """A network whose answers are known: the mean of each channel, times a factor, and the brightness as logits."""

    label: str
    factor: float = 1
    logits: bool = True
    dimension: int = 3
    device: torch.device = CPU
    recipe: dict[str, Any] = field(default_factory=dict)

    def classify(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        means = pictures.mean(axis=(2, 3), dtype=np.float32) * self.factor
        return means, np.stack([means.sum(axis=1), -means.sum(axis=1)], axis=1) if self.logits else None


def network(label: str, factor: float = 1, logits: bool = True) -> MeanColour:
    return MeanColour(label, factor, logits, recipe={"features": label, "weights_sha256": str(factor)})


class Source:
    """Counts how often its pictures were asked for."""

    def __init__(self, sizes: tuple[int, ...] = (16, 5)) -> None:
        self.passes = 0
        self.sizes = sizes

    def set(self, count: int = len(PICTURES), **identity: str) -> PictureSet:
        return PictureSet("pictures", count, self.batches, identity or None)

    def batches(self):
        self.passes += 1
        start = 0
        for size in self.sizes:
            yield PICTURES[start : start + size]
            start += size


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


def test_one_pass_serves_all_networks(source: Source, cache: FeatureCache):
    found = features_of(source.set(), [network("a"), network("b", 2, logits=False)], cache)
    np.testing.assert_allclose(found["a"].features, PICTURES.mean(axis=(2, 3)), rtol=1e-5)
    logits = found["a"].logits
    assert logits is not None
    np.testing.assert_allclose(logits, found["a"].features.sum(axis=1)[:, None] * [1, -1], rtol=1e-5)
    np.testing.assert_allclose(found["b"].features, 2 * found["a"].features, rtol=1e-6)
    assert found["b"].logits is None
    assert found["a"].features.dtype == logits.dtype == np.float32
    assert source.passes == 1
    assert not cache.folder.exists()  # a set without identity is not kept


@pytest.mark.parametrize("sizes", [(21,), (1,) * 21, (8, 8, 5), (0, 21), (9, 12)])
def test_rows_keep_the_order_whatever_the_batches(sizes: tuple[int, ...], cache: FeatureCache):
    found = features_of(Source(sizes).set(), [network("a")], cache)["a"]
    np.testing.assert_allclose(found.features, PICTURES.mean(axis=(2, 3)), rtol=1e-5)


def test_pictures_of_several_sizes_and_modes_are_one_set(cache: FeatureCache):
    batches = [np.full((3, 3, 8, 8), 7, np.uint8), np.full((2, 3, 5, 9), 9, np.uint8)]
    mixed = PictureSet("mixed", 5, lambda: iter(batches))
    assert features_of(mixed, [network("a")], cache)["a"].features[:, 0].tolist() == [7, 7, 7, 9, 9]


@pytest.mark.parametrize(
    ("sizes", "words"), [((16,), "gave 16 pictures, 21"), ((), "gave 0 pictures, 21"), ((16, 5), "more than the 20")]
)
def test_another_number_of_pictures_than_said_is_refused(sizes: tuple[int, ...], words: str, cache: FeatureCache):
    with pytest.raises(InputError, match=words):
        features_of(Source(sizes).set(20 if "20" in words else 21), [network("a")], cache)


def test_an_empty_set_is_refused(cache: FeatureCache):
    with pytest.raises(InputError, match="give at least one"):
        features_of(PictureSet("nothing", 0, lambda: iter([])), [network("a")], cache)


class Counting:
    """An engine that notes how many threads are in it; features are the sums of the prepared pictures."""

    about = "test"

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.seen: set[str] = set()
        self.fails = False

    def run(self, prepared: torch.Tensor) -> tuple[np.ndarray, None]:
        self.seen.add(threading.current_thread().name)
        if self.fails:
            raise InputError("broken picture")
        return prepared.sum(dim=(2, 3)).numpy(), None


def counting_network(engine: Counting) -> FeatureNetwork:
    preparation = Preparation("tf", 8, (0, 0, 0), (1, 1, 1))
    return FeatureNetwork("c", "fd_c", 3, CPU, {}, preparation, engine)


def test_threads_share_a_pass_and_never_hold_more_than_they_work_on(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(extraction, "CPU_CHUNK", 1)
    engine, given, done = Counting(3), [0], [0]
    held = []

    def batches():
        for picture in PICTURES:
            given[0] += 1
            held.append(given[0] - done[0])
            yield picture[None]

    put = extraction.Rows.put

    def counted(self: extraction.Rows, *arguments: Any) -> None:
        done[0] += 1
        put(self, *arguments)

    monkeypatch.setattr(extraction.Rows, "put", counted)
    found = features_of(PictureSet("p", 21, batches), [counting_network(engine)], cache)["c"]
    np.testing.assert_array_equal(found.features, PICTURES.sum(axis=(2, 3)))
    assert len(engine.seen) <= 3
    assert max(held) <= 5


def test_an_error_in_a_thread_is_the_errors_own(cache: FeatureCache, source: Source):
    engine = Counting(2)
    engine.fails = True
    with pytest.raises(InputError, match="broken picture"):
        features_of(source.set(), [counting_network(engine)], cache)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("features")]


def test_kept_features_are_the_same_bytes_without_a_pass(source: Source, cache: FeatureCache):
    first = features_of(source.set(dataset="x"), [network("a")], cache)["a"]
    again = features_of(source.set(dataset="x"), [network("a")], cache)["a"]
    assert source.passes == 1
    assert first.features.tobytes() == again.features.tobytes()
    assert first.logits is not None and again.logits is not None
    assert first.logits.tobytes() == again.logits.tobytes()


def test_a_second_network_needs_its_own_features_only(source: Source, cache: FeatureCache):
    features_of(source.set(dataset="x"), [network("a", logits=False)], cache)
    found = features_of(source.set(dataset="x"), [network("a", logits=False), network("b", 2)], cache)
    assert source.passes == 2
    assert found["a"].logits is None
    np.testing.assert_allclose(found["b"].features, 2 * found["a"].features, rtol=1e-6)


def test_other_pictures_other_weights_other_code_and_other_libraries_have_other_features(
    source: Source, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
):
    features_of(source.set(dataset="x"), [network("a")], cache)
    features_of(source.set(dataset="y"), [network("a")], cache)
    found = features_of(source.set(dataset="x"), [network("a", 3)], cache)["a"]
    np.testing.assert_allclose(found.features, 3 * PICTURES.mean(axis=(2, 3)), rtol=1e-5)
    for name in ("dtype", "resize", "engine"):
        other = replace(network("a"), recipe=network("a").recipe | {name: "other"})
        features_of(source.set(dataset="x"), [other], cache)
    assert source.passes == 6
    for name in ("code_hash", "versions"):
        with monkeypatch.context() as patch:
            patch.setattr(f"stages.metrics.cache.{name}", lambda: "changed")
            features_of(source.set(dataset="x"), [network("a")], cache)
    assert source.passes == 8


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
    first = features_of(source.set(dataset="x"), [network("a")], cache)["a"]
    damage(next(cache.folder.glob("*.npy")))
    again = features_of(source.set(dataset="x"), [network("a")], cache)["a"]
    assert again.features.tobytes() == first.features.tobytes()
    assert source.passes == 2
    assert "not as it was written" in capsys.readouterr().err
    features_of(source.set(dataset="x"), [network("a")], cache)
    assert source.passes == 2  # what was computed again is kept again


RANK = """
import sys
from pathlib import Path
import numpy as np
from tests.unit.test_metrics_features import Source, network, PICTURES
from stages.metrics import extraction, features, shares
extraction.CPU_CHUNK = int(sys.argv[2])
work = []
plain = extraction._classify
extraction._classify = lambda network, pictures: (work.append(len(pictures)), plain(network, pictures))[1]
cache = features.FeatureCache(Path(sys.argv[1]))
source = Source((21,))
for _ in range(2):
    found = features.features_of(source.set(dataset="x"), [network("a")], cache)["a"]
    np.testing.assert_allclose(found.features, PICTURES.mean(axis=(2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.logits[:, 0], found.features.sum(axis=1), rtol=1e-5)
    assert source.passes == 1, source.passes
print(shares.is_first(), sum(work))
"""


@pytest.mark.parametrize(("chunk", "work"), [(4, (12, 13)), pytest.param(32, (21, 21), marks=pytest.mark.slow)])
def test_two_processes_share_the_work_and_both_have_the_whole(chunk: int, work: tuple[int, int], tmp_path: Path):
    """The second process also looks at the first chunk, which tells it the widths."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    shared |= {"CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", RANK, str(tmp_path), str(chunk)]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert [out.split() for out, _ in told] == [["True", str(work[0])], ["False", str(work[1])]]
    assert len(list(tmp_path.glob("*.npy"))) == 1
