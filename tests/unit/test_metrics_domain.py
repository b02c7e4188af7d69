"""The classifier of the data's own classes: what it learns, that it repeats itself, and how it is kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.errors import InputError
from stages.metrics import classifier
from stages.metrics.classifier import Classifier, TrainingRecipe, augment, balanced_order, classify, prepare, train
from stages.metrics.domain import DomainNetwork, content_hash, train_or_load, unavailable_reason
from stages.metrics.features import FeatureCache, PictureSet, features_of
from stages.metrics.proportions import Accuracy, Proportion, accuracy
from tests.unit.shapes import NAMES, shapes

CPU = torch.device("cpu")
QUICK = TrainingRecipe(kimg=1.28, batch=32)
PIXELS, LABELS = shapes((60, 40, 25), seed=0)
HELD, HELD_LABELS = shapes((30, 30, 30), seed=1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the classifier of the shapes is kept."""
    folder = tmp_path_factory.mktemp("classifiers")
    train_or_load(PIXELS, LABELS, NAMES, folder, 0, CPU, QUICK)
    return folder


@pytest.fixture
def domain(kept: Path) -> DomainNetwork:
    return train_or_load(PIXELS, LABELS, NAMES, kept, 0, CPU, QUICK)


def weights_file(folder: Path) -> Path:
    (path,) = folder.glob("domain-*.safetensors")
    return path


def test_it_learns_the_classes_and_says_how_well(domain: DomainNetwork):
    found = domain.accuracy(HELD, HELD_LABELS)
    assert found.top1.count == 90
    assert found.top1.value is not None and found.top1.value > 0.8
    assert list(found.per_class) == list(NAMES)
    assert found.balanced == pytest.approx(found.top1.value)  # equal numbers of each class
    low, high = found.top1.interval()
    assert 0.7 < low < found.top1.value <= high
    json.dumps(found.to_json())


def test_features_and_logits_have_the_promised_shapes(domain: DomainNetwork):
    features, logits = domain.classify(HELD[:5])
    assert (features.shape, logits.shape) == ((5, domain.dimension), (5, len(NAMES)))
    assert features.dtype == logits.dtype == np.float32
    assert (domain.label, domain.distance, domain.dimension) == ("domain", "fd_domain", 128)
    assert domain.recipe["classes"] == list(NAMES)
    assert domain.recipe["training"]["kimg"] == QUICK.kimg


def test_a_picture_has_the_same_class_in_any_batch(domain: DomainNetwork):
    whole = domain.classify(HELD[:20])[1]
    alone = np.concatenate([domain.classify(picture[None])[1] for picture in HELD[:20]])
    np.testing.assert_allclose(whole, alone, atol=1e-4)


def test_the_kept_classifier_is_the_trained_one(kept: Path, domain: DomainNetwork, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(classifier, "train", lambda *_: pytest.fail("trained again"))
    again = train_or_load(PIXELS, LABELS, NAMES, kept, 0, CPU, QUICK)
    assert again.recipe == domain.recipe
    assert again.classify(HELD)[1].tobytes() == domain.classify(HELD)[1].tobytes()


@pytest.mark.parametrize("damage", ["torn", "altered", "no note", "note of another", "note is no object"])
def test_a_damaged_classifier_is_trained_again_to_the_same_bytes(
    damage: str, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    state, note = weights_file(kept).read_bytes(), weights_file(kept).with_suffix(".json").read_bytes()
    path = tmp_path / weights_file(kept).name
    broken = {"torn": state[:1000], "altered": state[:-1] + bytes([state[-1] ^ 1])}
    path.write_bytes(broken.get(damage, state))
    notes = {"no note": None, "note of another": b'{"sha256": "0"}', "note is no object": b"[]"}
    if (kept_note := notes.get(damage, note)) is not None:
        path.with_suffix(".json").write_bytes(kept_note)
    trained: list[str] = []
    stored = train_or_load(PIXELS, LABELS, NAMES, kept, 0, CPU, QUICK).network

    def train_again(*arguments) -> Classifier:
        trained.append(arguments[-1])
        return stored  # that a training repeats itself is the next test

    monkeypatch.setattr(classifier, "train", train_again)
    train_or_load(PIXELS, LABELS, NAMES, tmp_path, 0, CPU, QUICK)
    assert trained == ["domain classifier"]
    assert "trained again" in capsys.readouterr().err
    assert (path.read_bytes(), path.with_suffix(".json").read_bytes()) == (state, note)


def test_a_training_repeats_itself_and_leaves_the_global_random_state_alone():
    recipe = replace(QUICK, kimg=0.128)
    before = torch.get_rng_state()
    first = train(PIXELS, LABELS, 3, recipe, 0, CPU).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again = train(PIXELS, LABELS, 3, recipe, 0, CPU).state_dict()
    other = train(PIXELS, LABELS, 3, recipe, 1, CPU).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize("change", ["pixels", "labels", "names", "seed", "recipe"])
def test_anything_that_decides_the_weights_is_part_of_the_key(
    change: str, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pixels, labels = PIXELS.copy(), LABELS.copy()
    pixels[0, 0, 0, 0] ^= change == "pixels"
    labels[0] = (labels[0] + 1) % 3 if change == "labels" else labels[0]
    names = (*NAMES[:2], "plus") if change == "names" else NAMES
    recipe = replace(QUICK, mirror=True) if change == "recipe" else QUICK
    monkeypatch.setattr(classifier, "train", lambda *_: Classifier(16, 3))
    found = train_or_load(pixels, labels, names, tmp_path, int(change == "seed"), CPU, recipe)
    assert weights_file(tmp_path).name != weights_file(kept).name
    assert found.recipe["training"]["seed"] == int(change == "seed")


def test_grey_pictures_are_classified_like_their_colour_copies(domain: DomainNetwork):
    grey = HELD[:8, :1]
    np.testing.assert_array_equal(domain.classify(grey)[1], domain.classify(np.repeat(grey, 3, axis=1))[1])


def test_it_is_a_feature_network_whose_features_are_kept(domain: DomainNetwork, tmp_path: Path):
    pictures = PictureSet("held", 20, lambda: iter([HELD[:15], HELD[15:20]]), {"dataset": "shapes"})
    found = features_of(pictures, [domain], FeatureCache(tmp_path))["domain"]
    expected = domain.classify(HELD[:20])
    np.testing.assert_allclose(found.features, expected[0], atol=1e-4)
    assert found.logits is not None
    np.testing.assert_allclose(found.logits, expected[1], atol=1e-4)
    again = features_of(replace(pictures, batches=lambda: iter([])), [domain], FeatureCache(tmp_path))["domain"]
    assert again.features.tobytes() == found.features.tobytes()
    assert domain.names()["fd"] == "fd_domain"
    assert domain.names()["kid"] == "kid_domain"


def test_whole_floats_are_classified_like_uint8(domain: DomainNetwork):
    np.testing.assert_array_equal(domain.classify(HELD[:8].astype(np.float32))[1], domain.classify(HELD[:8])[1])


@pytest.mark.parametrize("side", [16, 24, 32, 48, 64, 128, 256])
def test_pictures_of_any_size_become_16_maps_at_first_and_128_features(side: int):
    network = Classifier(classifier.input_size(side), 4).eval()
    assert network.size == min(side, 64)
    features, logits = classify(network, np.zeros((2, 3, side, side), np.uint8), CPU)
    assert (features.shape, logits.shape) == ((2, 128), (2, 4))
    assert sum(parameter.numel() for parameter in network.parameters()) < 340_000


def test_larger_pictures_are_averaged_down_and_uint8_ends_map_to_one():
    picture = np.zeros((1, 3, 128, 128), np.uint8)
    picture[:, :, ::2] = 255  # every other line: its average is mid-grey, a skipped line would not be
    found = prepare(torch.from_numpy(picture), 64)
    assert found.abs().max() < 1e-6
    ends = prepare(torch.tensor([0, 255], dtype=torch.uint8).repeat(32).reshape(1, 1, 8, 8), 8)
    assert (ends.min(), ends.max()) == (-1, 1)


def test_classes_are_seen_equally_often_and_pictures_of_a_class_too():
    labels = np.array([0] * 50 + [1] * 5 + [-1] * 3 + [2] * 2)
    order = balanced_order(labels, 300, seed=3)
    assert len(order) == 300
    np.testing.assert_array_equal(np.bincount(labels[order]), [100, 100, 100])
    np.testing.assert_array_equal(np.bincount(order, minlength=60), [2] * 50 + [20] * 5 + [0] * 3 + [50] * 2)


def test_more_pictures_of_one_class_do_not_change_the_order_of_the_others():
    labels = np.array([0] * 9 + [1] * 4)
    few, more = balanced_order(labels, 60, 0), balanced_order(np.append(labels, [1] * 8), 60, 0)
    np.testing.assert_array_equal(few < 9, more < 9)
    np.testing.assert_array_equal(few[few < 9], more[more < 9])


def test_augmentation_shifts_within_reach_and_mirrors_only_when_told():
    picture = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    picture[0, 0, 8, 4] = 255
    random = torch.Generator().manual_seed(0)
    places: dict[bool, set[tuple[int, int]]] = {False: set(), True: set()}
    for mirror, found in places.items():
        shifted = augment(picture.expand(200, -1, -1, -1), TrainingRecipe(mirror=mirror), random)
        found.update(map(tuple, shifted.nonzero()[:, 2:].tolist()))
    assert {row for row, _ in places[False]} == {column + 4 for _, column in places[False]} == set(range(6, 11))
    assert {column for _, column in places[True]} == set(range(2, 7)) | set(range(9, 14))


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (None, "no classes"),
        (np.full(50, -1), "no classes"),
        (np.zeros(50, int), "1 of 1 classes"),
        (np.repeat([0, 1, 2], [50, 19, 19]), "1 of 3 classes"),
        (np.repeat([0, 1], [19, 19]), "0 of 2 classes"),
        (np.repeat([0, 1, -1], 20), None),
    ],
)
def test_too_few_classes_or_pictures_are_a_reason(labels: np.ndarray | None, reason: str | None, tmp_path: Path):
    found = unavailable_reason(labels)
    assert (found is None) == (reason is None)
    if reason and found and labels is not None:
        assert reason in found
        with pytest.raises(InputError, match=reason):
            train_or_load(np.zeros((len(labels), 3, 16, 16), np.uint8), labels, NAMES, tmp_path, 0, CPU)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("labels", "match"),
    [(LABELS[:-1], "125 pictures"), (np.full(125, -1), "has a label"), (LABELS + 1, "A label is 3")],
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, match: str):
    with pytest.raises(InputError, match=match):
        train(PIXELS, labels, 3, QUICK, 0, CPU)


@pytest.mark.parametrize(
    "pictures", [np.zeros((2, 4, 16, 16), np.uint8), np.zeros((2, 3, 16, 16), np.int64), np.zeros((3, 16), np.uint8)]
)
def test_other_than_grey_or_rgb_is_refused(pictures: np.ndarray, domain: DomainNetwork):
    with pytest.raises(InputError, match="convert to RGB"):
        domain.classify(pictures)


def test_content_differs_by_shape_too():
    assert content_hash(PIXELS, LABELS) != content_hash(PIXELS.reshape(125, 3, 8, 32), LABELS)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # computed by hand from Wilson's formula: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    [(0, 10, 0, 0.27753), (10, 10, 0.72247, 1), (5, 10, 0.23659, 0.76341), (0, 0, 0, 1)],
)
def test_wilson_interval(hits: int, count: int, low: float, high: float):
    assert Proportion(hits, count).interval() == pytest.approx((low, high), abs=1e-5)


def test_accuracy_leaves_unlabelled_pictures_out():
    found = accuracy(np.array([0, 1, 1, 2]), np.array([0, 0, 1, -1]), NAMES)
    assert found == Accuracy(Proportion(2, 3), {"disc": Proportion(1, 2), "square": Proportion(1, 1)})
    assert found.balanced == 0.75
    assert accuracy(np.array([1]), np.array([-1]), NAMES).balanced is None


def test_near_duplicates_tell_as_much_as_one_picture_of_each_group():
    hit = np.random.default_rng(0).random(60) < 0.7
    alone, copied = Proportion.of(hit), Proportion.of(np.repeat(hit, 5), np.repeat(np.arange(60), 5))
    assert (copied.hits, copied.count) == (5 * alone.hits, 300)
    assert copied.value == alone.value
    assert copied.effective == pytest.approx(59)  # the variance between groups is over G - 1
    assert copied.interval() == pytest.approx(alone.interval(), abs=2e-3)


@pytest.mark.parametrize(
    ("hit", "groups", "effective"),
    [
        ([1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], 2),  # all are hits: two groups are known, not six pictures
        ([1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], 1),
        ([1, 0, 1, 0, 1, 1], list("abcdef"), 6),
        ([1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 2, 2], 3),  # each group has the same share
    ],
)
def test_effective_number_of_known_groups(hit: list, groups: list, effective: float):
    assert Proportion.of(np.array(hit, bool), np.array(groups)).effective == effective


def test_groups_widen_the_interval_of_an_accuracy(domain: DomainNetwork):
    wide = domain.accuracy(HELD, HELD_LABELS, HELD_LABELS).top1.interval()
    narrow = domain.accuracy(HELD, HELD_LABELS).top1.interval()
    assert wide[0] < narrow[0]
    assert Proportion.of(np.zeros(0, bool), np.zeros(0)).interval() == (0, 1)
