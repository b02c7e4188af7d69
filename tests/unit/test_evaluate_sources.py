"""Sources of pictures: what a text names, counts, classes in the reference's proportions, and one line where not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.catalogue import Picture
from stages.errors import GateError, InputError
from stages.evaluate.conditioning import NO_CAPTIONS, Conditioned, apportion, wanted_labels
from stages.evaluate.plain import sources
from stages.evaluate.plain.sources import (
    Draw,
    Place,
    Source,
    find_source,
    look,
    open_source,
)
from stages.generators.interface import Capabilities, Generator, Request
from stages.metrics.features import PictureSet
from tests.conftest import PICTURES
from tests.stages import datasets


class Labelled(Generator):
    """A conditional generator whose pictures tell their class (red) and their latent (green); notes its requests."""

    identity = {"weights": "w" * 64}

    def __init__(self, names: tuple[str, ...] = ("cat", "dog", "owl"), value: float = 0.0) -> None:
        self.capabilities = Capabilities("labelled", (2,), 8, 3, names)
        self.value = value
        self.seen: list[np.ndarray] = []

    def generate(self, request: Request) -> np.ndarray:
        drawn = np.full((len(request.latent), 3, 8, 8), self.value, np.float32)
        if self.capabilities.class_names:
            labels = request.extra["label"]
            assert labels.dtype == np.int64 and labels.shape == (len(request.latent),)
            drawn[:, 0] = labels[:, None, None] / 127.5 - 1
        drawn[:, 1] = np.clip(request.latent[:, 0], -1, 1)[:, None, None]
        return drawn


def reference(labels: list[int] | None, names: tuple[str, ...]) -> PictureSet:
    found = None if labels is None else np.array(labels, np.int64)
    return PictureSet("the reference", len(labels or []), lambda: iter(()), None, found, names)


def write_pictures(folder: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name / f"{number}.png")
    return folder


def refused(text: str, draw: Draw | None = None) -> str:
    with pytest.raises(InputError) as caught:
        place = find_source(text)
        open_source(place, draw or Draw(), look(place, draw or Draw()))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with one source of each kind, and a folder that is called as a model is."""
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "models" / "gan" / "training" / "weights"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text('{"family": "gan"}')
    (tmp_path / "data").mkdir()
    for name in ("dataset.json", "index.parquet"):
        (tmp_path / "data" / name).write_text("{}")
    write_pictures(tmp_path / "pictures", {".": 3})
    write_pictures(tmp_path / "odd:train", {".": 3})
    (tmp_path / "a.txt").write_text("")
    return tmp_path


def test_a_source_is_known_by_what_is_there(workspace: Path):
    found = {
        text: (place.kind, place.path.as_posix(), place.split)
        for text in ("pictures", "odd:train", "data:holdout", "data:all", "gan", "models/gan", "x.onnx")
        for place in [find_source(text)]
    }
    weights = "models/gan/training/weights"
    assert found == {
        "pictures": ("folder", "pictures", None),
        "odd:train": ("folder", "odd:train", None),  # an existing path goes before a split
        "data:holdout": ("split", "data", "holdout"),
        "data:all": ("split", "data", None),
        "gan": ("model", weights, None),
        "models/gan": ("model", weights, None),
        "x.onnx": ("onnx", "x.onnx", None),
    }
    assert find_source(weights).kind == "model"
    write_pictures(workspace / "gan", {".": 1})
    assert find_source("gan").kind == "folder"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("absent", ["absent does not exist", "expected a folder of pictures", ".onnx"]),
        ("a.txt", ["a.txt is a file", "expected a folder"]),
        ("data", ["data is a data set of several splits", "data:train"]),
        ("data:test", ["there is no split test", "train, holdout"]),
        ("pictures:train", ["pictures holds no data set", "stages.normalize"]),
        ("absent.onnx", ["absent.onnx is no file", "stages.export"]),
        ("line\nbreak", ["line\\nbreak does not exist"]),
        ("", [" is a data set"]),
    ],
)
def test_what_is_no_source_is_told_in_one_line(text: str, words: list[str], workspace: Path):
    if not text:
        for name in ("dataset.json", "index.parquet"):
            (workspace / name).write_text("{}")
    message = refused(text)
    assert all(word in message for word in words), message


def test_a_folder_is_a_set_with_labels_and_a_content(tmp_path: Path):
    folder = write_pictures(tmp_path / "set", {"dog": 2, "cat": 3})
    source = open_source(find_source(str(folder)), Draw(batch=2))
    found = source.pictures
    assert (found.count, found.class_names, source.sizes) == (5, ("cat", "dog"), [(8, 8)])
    assert found.labels is not None and found.labels.tolist() == [0, 0, 0, 1, 1]
    assert [len(part) for part in found.batches()] == [2, 2, 1]
    assert [len(part) for part in found.batches()] == [2, 2, 1]  # each call is a pass of its own
    assert found.identity is not None and source.origin["sha256"] in found.identity.values()
    part = open_source(find_source(str(folder)), Draw(count=2))
    assert part.pictures.count == 2 and part.pictures.identity != found.identity


def test_a_folder_of_real_pictures(tmp_path: Path):
    source = open_source(find_source(str(PICTURES)), Draw())
    assert (source.pictures.count, source.sizes, source.formats) == (68, [(72, 72)], ["WEBP"])
    assert source.pictures.class_names == ("animal", "happy", "sad")
    assert len(source.notes) == 1 and "alpha channel" in source.notes[0]


def use(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(sources, "open_generator", lambda place, provider: generator)
    return Place("gan", "model", Path("gan"))


def draw_all(source: Source) -> np.ndarray:
    return np.concatenate(list(source.pictures.batches()))


def test_a_generator_draws_as_many_as_the_reference_has(monkeypatch: pytest.MonkeyPatch):
    place = use(Labelled(()), monkeypatch)
    real = Source(reference([0] * 7, ("a",)), [(8, 8)], [], {})
    source = open_source(place, Draw(batch=3), None, real)
    assert draw_all(source).shape == (7, 3, 8, 8) and source.sizes == [(8, 8)]
    assert source.pictures.identity is None and source.pictures.labels is None
    assert open_source(place, Draw(count=4), None, real).pictures.count == 4
    with pytest.raises(InputError, match="gan is a generator, which has no number of pictures; give one by --count"):
        open_source(place, Draw())
    with pytest.raises(InputError, match="expected 1 to 1000000"):
        look(place, Draw(count=10**6 + 1))


def test_seeds_draw_the_same_pictures_in_any_batch_and_differ_by_seed(monkeypatch: pytest.MonkeyPatch):
    place = use(Labelled(), monkeypatch)
    real = Source(reference([0, 0, 1, 2], ("cat", "dog", "owl")), [(8, 8)], [], {})
    first, again, other = (
        draw_all(open_source(place, Draw(count=20, seed=seed, batch=batch), None, real))
        for seed, batch in ((0, 64), (0, 3), (1, 64))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_conditional_generator_draws_the_references_proportions(monkeypatch: pytest.MonkeyPatch):
    place = use(Labelled(), monkeypatch)
    names = ("owl", "cat", "dog")  # in another order than the generator's
    real = Source(reference([0] * 10 + [1] * 60 + [2] * 30, names), [(8, 8)], [], {})
    source = open_source(place, Draw(count=200, batch=32), None, real)
    drawn = draw_all(source)[:, 0, 0, 0]
    assert source.pictures.labels is not None and source.pictures.class_names == ("cat", "dog", "owl")
    np.testing.assert_array_equal(drawn, source.pictures.labels)
    assert np.bincount(drawn).tolist() == [120, 60, 20]
    assert np.abs(np.diff(drawn.astype(int))).sum() > 50  # shuffled: a part of the seeds has all classes, too
    assert source.notes == []


class Prompted(Generator):
    """A generator that takes prompts; notes them."""

    identity = {"weights": "w" * 64}

    def __init__(self) -> None:
        self.capabilities = Capabilities("prompted", (2,), 8, 3, prompt=True)
        self.seen: list[str] = []

    def generate(self, request: Request) -> np.ndarray:
        self.seen += request.prompts
        return np.zeros((len(request.latent), 3, 8, 8), np.float32)


def test_a_generator_of_prompts_draws_the_references_captions(monkeypatch: pytest.MonkeyPatch):
    generator = Prompted()
    place, captions = use(generator, monkeypatch), ["a", "b", "c"]
    real = Source(reference([0] * 3, ("x",)), [(8, 8)], [], {}, captions=captions)
    source = open_source(place, Draw(count=5, batch=2), None, real)
    draw_all(source)
    assert sorted(generator.seen[:3]) == captions and generator.seen[3:] == generator.seen[:2]
    assert source.notes == [] and source.pictures.labels is None
    bare = open_source(place, Draw(count=2), None, replace(real, captions=[]))
    generator.seen.clear()
    draw_all(bare)
    assert generator.seen == ["", ""] and bare.notes == [NO_CAPTIONS]


def test_a_split_knows_its_captions(tmp_path: Path):
    data = normalized(tmp_path)
    found = open_source(find_source(f"{data}:all"), Draw())
    assert sorted(found.captions) == [f"caption {n}" for n in range(6) if n != 2]
    part = open_source(find_source(f"{data}:all"), Draw(count=2))
    assert len(part.captions) <= 2 and set(part.captions) < set(found.captions)


def normalized(folder: Path) -> Path:
    """Return a data set of six pictures, of which the third has no caption."""
    files = {f"{n}.png": datasets.png(n) for n in range(6)}
    pictures = [
        Picture(key, "pictures.tar", key, caption="" if n == 2 else f"caption {n}") for n, key in enumerate(files)
    ]
    datasets.lay_out(folder, files, pictures)
    return datasets.normalize(folder)


def test_classes_are_matched_by_name():
    labels, notes = wanted_labels(("cat", "dog"), reference([0, 0, 1, 2], ("cat", "fox", "owl")), 10, 0)
    assert labels.tolist() == [0] * 10
    assert notes == ["the model cannot draw fox, owl, which the reference holds"]
    labels, notes = wanted_labels(("cat", "dog"), reference(None, ()), 10, 0)
    assert np.bincount(labels).tolist() == [5, 5] and "equally often" in notes[0]
    with pytest.raises(InputError, match="the model draws cat, dog, the reference holds fox: no class is shared"):
        wanted_labels(("cat", "dog"), reference([0], ("fox",)), 10, 0)


def test_pictures_without_a_class_are_not_counted():
    labels, _ = wanted_labels(("cat", "dog"), reference([-1, -1, 1], ("cat", "dog")), 6, 0)
    assert labels.tolist() == [1] * 6


@pytest.mark.parametrize("count", [1, 7, 100, 999])
def test_shares_add_up_and_are_next_to_exact(count: int):
    generator = np.random.default_rng(count)
    for _ in range(20):
        weights = generator.integers(0, 50, 9).astype(float)
        weights[3] += 1
        shares = apportion(weights, count)
        assert shares.sum() == count and (shares >= 0).all()
        assert np.abs(shares - weights / weights.sum() * count).max() < 1
        assert not shares[weights == 0].any()
    assert apportion(np.array([1.0, 1.0, 1.0]), 4).tolist() == [2, 1, 1]


def test_conditions_follow_the_seeds_and_not_the_order_of_calls():
    conditioned = Conditioned(Labelled(), 100, np.array([0, 1, 2, 1, 0], np.int64))
    whole = np.concatenate(list(conditioned.draw(range(100, 105), 2)))
    np.testing.assert_array_equal(next(conditioned.draw(range(102, 104))), whole[2:4])
    assert conditioned.capabilities.class_names and conditioned.identity == Labelled.identity


def test_a_diverged_generator_is_named(monkeypatch: pytest.MonkeyPatch):
    place = use(Labelled((), float("nan")), monkeypatch)
    with pytest.raises(GateError, match="gan draws NaN or infinity"):
        draw_all(open_source(place, Draw(count=2)))


def test_origins_are_plain_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = open_source(find_source(str(write_pictures(tmp_path / "x", {"a": 2}))), Draw())
    drawn = open_source(use(Labelled(()), monkeypatch), Draw(count=2, seed=3))
    for source in (folder, drawn):
        assert json.loads(json.dumps(source.origin)) == source.origin
    assert drawn.origin["first_seed"] == 3_000_000 and drawn.origin["weights"] == "w" * 64
