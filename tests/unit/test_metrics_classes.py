"""Scores by class: which are compared, which are left out, and which are never drawn."""

import numpy as np
import pytest

from stages.errors import InputError
from stages.metrics.classes import class_distances, class_shares, modes
from stages.metrics.frechet import frechet_distance
from stages.metrics.gaussians import Features
from stages.metrics.manifold import manifold
from stages.metrics.proportions import accuracy

NAMES = ("cat", "dog", "owl")


def three(seed: int, counts: tuple[int, int, int]) -> tuple[Features, np.ndarray]:
    """Return features of three classes, each around a centre of its own, and their labels."""
    labels = np.repeat(np.arange(3), counts)
    points = np.random.default_rng(seed).standard_normal((len(labels), 6))
    return Features(points + 20 * labels[:, None]), labels


def test_each_class_is_compared_with_its_own_kind():
    (generated, labels), (real, real_labels) = three(0, (60, 50, 40)), three(1, (70, 80, 90))
    shifted = Features(generated.values + 3 * (labels == 1)[:, None])
    found = class_distances(shifted, labels, real, real_labels, NAMES)
    assert list(found.distances) == list(NAMES) and not found.left_out
    assert found.distances["dog"] > 9 * 6 - 10 > 5 > max(found.distances["cat"], found.distances["owl"])
    own = frechet_distance(Features(shifted.values[labels == 0]), Features(real.values[real_labels == 0]))
    assert found.distances["cat"] == own
    assert found.counts["owl"] == (40, 90)


def test_small_classes_are_left_out_and_named():
    (generated, labels), (real, real_labels) = three(0, (60, 50, 9)), three(1, (70, 4, 90))
    found = class_distances(generated, labels, real, real_labels, NAMES).to_json()
    assert list(found["fd"]) == ["cat"]
    assert found["left_out"] == {
        "dog": "50 generated and 4 real pictures, fewer than 10",
        "owl": "9 generated and 90 real pictures, fewer than 10",
    }


def test_recall_by_class_shows_the_class_that_is_not_drawn():
    (generated, labels), (real, real_labels) = three(0, (80, 80, 0)), three(1, (50, 50, 50))
    found = manifold(generated, real, 5)
    recall = class_shares(found.recalled, real_labels, NAMES)
    coverage = class_shares(found.covered, real_labels, NAMES)
    assert recall["owl"].value == coverage["owl"].value == 0
    assert min(recall["cat"].value or 0, coverage["dog"].value or 0) > 0.8
    low, high = recall["owl"].interval()
    assert low == 0 and 0.05 < high < 0.1  # nothing in 50 is not never
    hits = sum(share.hits for share in recall.values())
    assert hits / len(real) == found.recall
    assert list(class_shares(found.inside, labels, NAMES)) == ["cat", "dog"]


def test_modes_are_counted_and_the_rare_and_missing_named():
    real = np.repeat([0, 1, 2, -1], [50, 40, 10, 7])
    found = modes(np.repeat([0, 1], [997, 3]), real, NAMES)
    assert (found.classes, found.hit, found.hit_by_a_tenth) == (3, 2, 1)
    assert (found.missing, found.rare) == (("owl",), ("dog",))
    assert modes(real, real, NAMES).hit_by_a_tenth == 3
    assert modes(np.array([], int), real, NAMES).missing == NAMES
    assert modes(np.array([2]), np.array([0, 1]), NAMES).to_json() == {
        "classes": 2,
        "hit": 0,
        "hit_by_a_tenth": 0,
        "missing": ["cat", "dog"],
        "rare": [],
    }


def test_accuracy_has_a_wilson_interval():
    wanted = np.repeat([0, 1, 2], 20)
    predicted = np.where(np.arange(60) % 4 == 0, 0, wanted)
    found = accuracy(predicted, wanted, NAMES)
    assert found.top1.hits == 50 and found.per_class["cat"].value == 1
    low, high = found.top1.interval()
    assert (low, high) == pytest.approx((0.7197, 0.9069), abs=1e-4)


def test_labels_that_do_not_fit_are_refused():
    (features, labels), flags = three(0, (20, 20, 20)), np.ones(60, bool)
    with pytest.raises(InputError, match=r"expected integers \(60,\)"):
        class_distances(features, labels[1:], features, labels, NAMES)
    with pytest.raises(InputError, match="labels are from 0 to 2, expected -1 to 1: 2 classes"):
        class_distances(features, labels, features, labels, NAMES[:2])
    with pytest.raises(InputError, match=r"expected integers \(60,\)"):
        class_shares(flags, labels.astype(float), NAMES)
    with pytest.raises(InputError, match="labels are from -2"):
        modes(labels - 2, labels, NAMES)
    with pytest.raises(InputError, match="no real picture has a class"):
        modes(labels, np.full(5, -1), NAMES)
    with pytest.raises(InputError, match="at least 2 pictures"):
        class_distances(features, labels, features, labels, NAMES, fewest=1)
