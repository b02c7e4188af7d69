"""What the probe says of generated pictures, and whether they help on rare classes: controls with known answers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.errors import InputError
from stages.evaluate.unseen import usefulness
from stages.evaluate.unseen.probe import Predictions, class_histogram, conditional_accuracy, predict
from stages.evaluate.unseen.usefulness import (
    Absent,
    Effect,
    Labelled,
    Offer,
    Options,
    Usefulness,
    measure,
    rare_classes,
)
from stages.metrics.classifier import Classifier
from stages.metrics.domain import DomainNetwork
from stages.metrics.features import PictureSet
from stages.metrics.proportions import Accuracy, Proportion, accuracy
from tests.unit.shapes import NAMES, shapes

CPU = torch.device("cpu")
SIZE = 12
QUICK = Options(seeds=3, kimg=1.28, batch=32, ratio=30, fewest=5)
TRAIN = Labelled(*shapes((60, 2, 60), 0, SIZE))  # squares are rare, and easily taken for discs
HELD = Labelled(*shapes((40, 40, 40), 1, SIZE))
BACK, SQUARES = shapes((0, 60, 0), 2, SIZE)  # real pictures of the rare class that were held back


@pytest.fixture(autouse=True)
def one_thread():
    """Train on one thread: another number rounds otherwise, and short trainings end elsewhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def measured(train_split: Labelled, holdout: Labelled, offer: Offer, options: Options, seed: int = 0) -> Usefulness:
    found = measure(train_split, holdout, offer, NAMES, options, CPU, seed)
    assert isinstance(found, Usefulness), found
    return found


def test_real_pictures_of_the_rare_class_help():
    found = measured(TRAIN, HELD, Offer(Labelled(BACK, SQUARES)), QUICK)
    effect = found.effects["rare_accuracy"]
    assert found.verdict == effect.verdict == "helps", effect
    assert effect.differences.mean() > 0.2
    assert found.classes == {"square": {"train": 2, "holdout": 40, "offered": 60, "usable": 60, "taken": 60}}
    report = found.to_json()
    assert report == json.loads(json.dumps(report))
    assert (report["labels"], report["verdict"], report["left_out"]) == ("condition", "helps", {})


def test_noise_called_by_the_rare_class_does_not_help():
    noise = np.random.default_rng(0).integers(0, 256, BACK.shape, np.uint8)
    found = measured(TRAIN, HELD, Offer(Labelled(noise, SQUARES)), replace(QUICK, seeds=2))
    assert found.verdict != "helps"
    assert found.effects["rare_accuracy"].differences.mean() <= 0


class Recorder:
    """Stands in for training and classifying: keeps what it was given and answers with one class."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.trainings: list[tuple] = []
        monkeypatch.setattr(usefulness, "train", self.train)
        monkeypatch.setattr(usefulness, "classify", lambda _, pixels, __: (None, np.eye(3)[np.zeros(len(pixels), int)]))

    def train(self, pixels, labels, classes, recipe, seed, device, what):
        self.trainings.append((pixels, labels, recipe, seed))


def test_both_arms_of_a_seed_have_the_same_budget_and_differ_in_generated_pictures_alone(
    monkeypatch: pytest.MonkeyPatch,
):
    recorder = Recorder(monkeypatch)
    measured(TRAIN, HELD, Offer(Labelled(BACK, SQUARES)), replace(QUICK, ratio=2.0, seeds=2), seed=5)
    assert [seed for *_, seed in recorder.trainings] == [5, 5, 6, 6]
    assert len({recipe for _, _, recipe, _ in recorder.trainings}) == 1
    (without, labels, *_), (more, more_labels, *_) = recorder.trainings[:2]
    assert (len(without), len(more)) == (len(TRAIN), len(TRAIN) + 4)  # twice the two real ones
    np.testing.assert_array_equal(more[len(without) :], BACK[:4])
    np.testing.assert_array_equal(more_labels, np.append(labels, [1] * 4))


def test_a_probes_labels_are_taken_only_above_the_confidence(monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder(monkeypatch)
    confidences = np.where(np.arange(60) % 2, 0.95, 0.5)
    offer = Offer.probed(BACK, Predictions(SQUARES, confidences))
    found = measured(TRAIN, HELD, offer, QUICK)
    assert found.to_json()["labels"] == "probe"
    assert found.classes["square"]["usable"] == found.classes["square"]["taken"] == 30
    np.testing.assert_array_equal(recorder.trainings[1][0][len(TRAIN) :], BACK[1::2])


def test_too_few_confident_pictures_are_a_reason_instead_of_numbers(monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder(monkeypatch)
    offer = Offer.probed(BACK, Predictions(SQUARES, np.where(np.arange(60) < 3, 0.9, 0.5)))
    found = measure(TRAIN, HELD, offer, NAMES, replace(QUICK, fewest=10), CPU)
    assert isinstance(found, Absent)
    assert "of 60 generated pictures at most 3 belong to one of the rare classes (square)" in found.to_json()["absent"]
    assert "confidence of 0.8" in found.reason
    assert not recorder.trainings


def test_a_rare_class_without_enough_pictures_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch):
    Recorder(monkeypatch)
    offer = Offer(Labelled(BACK, np.where(np.arange(60) < 2, 2, 1)))
    found = measured(TRAIN, HELD, offer, replace(QUICK, rare=("square", "cross")))
    assert found.left_out == {"cross": 2}
    assert list(found.classes) == ["square"]


def test_no_seeds_switch_it_off(monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder(monkeypatch)
    found = measure(TRAIN, HELD, Offer(Labelled(BACK, SQUARES)), NAMES, Options(seeds=0), CPU)
    assert "switched off" in found.to_json()["absent"]
    assert not recorder.trainings


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"seeds": 1}, "usefulness.seeds is 1"),
        ({"seeds": -2}, "usefulness.seeds is -2"),
        ({"kimg": 0}, "usefulness.kimg is 0"),
        ({"kimg": float("nan")}, "usefulness.kimg is nan"),
        ({"ratio": -1}, "usefulness.ratio is -1"),
        ({"confidence": 80}, "usefulness.confidence is 80"),
    ],
)
def test_options_without_a_meaning_are_refused(options: dict, match: str):
    with pytest.raises(InputError, match=match):
        Options(**options)


def test_pictures_of_another_size_and_unknown_classes_are_refused():
    small = Offer(Labelled(BACK[..., ::2, ::2], SQUARES))
    with pytest.raises(InputError, match=r"\(3, 6, 6\), the train split's are uint8 \(3, 12, 12\)"):
        measure(TRAIN, HELD, small, NAMES, QUICK, CPU)
    with pytest.raises(InputError, match=r"usefulness\.rare names 'star'"):
        measure(TRAIN, HELD, Offer(Labelled(BACK, SQUARES)), NAMES, replace(QUICK, rare=("star",)), CPU)


def test_the_rarest_third_of_the_measurable_classes_is_rare():
    train_labels = np.repeat(np.arange(6), [9, 2, 8, 0, 30, 5])
    held_labels = np.repeat(np.arange(6), [4, 3, 9, 9, 9, 4])
    names = tuple("abcdef")  # b has too few hold-out pictures, d no train pictures
    assert rare_classes(train_labels, held_labels, names, None) == [5]
    assert rare_classes(train_labels, held_labels, names, ("c", "a")) == [2, 0]
    with pytest.raises(InputError, match="names 'b'"):
        rare_classes(train_labels, held_labels, names, ("b",))
    with pytest.raises(InputError, match="No class has 4 hold-out pictures"):
        rare_classes(train_labels, np.full(9, -1), names, None)


def test_paired_t_interval_of_known_numbers():
    effect = Effect((0.5, 0.6, 0.7), (0.6, 0.8, 0.8), holdout_error=0.05)
    # differences .1 .2 .1: mean .13333, deviation .057735, t(2, .975) = 4.302653, half width .143421
    assert effect.seeds == pytest.approx((0.133333 - 0.143421, 0.133333 + 0.143421), abs=1e-5)
    assert effect.holdout == pytest.approx((0.035336, 0.231331), abs=1e-5)
    assert effect.verdict == "not shown"  # the seeds' interval holds 0


@pytest.mark.parametrize(
    ("gain", "error", "verdict"), [(0.1, 0.01, "helps"), (0.1, 0.2, "not shown"), (-0.1, 0.01, "hurts")]
)
def test_a_difference_is_shown_only_where_seeds_and_holdout_leave_out_zero(gain: float, error: float, verdict: str):
    without = (0.5, 0.6, 0.55)
    assert Effect(without, tuple(value + gain for value in without), error).verdict == verdict


def test_near_duplicates_of_the_holdout_count_as_one_observation():
    random = np.random.default_rng(0)
    hits = random.random((3, 2, 40)) < 0.5
    weights = np.full(40, 1 / 40)
    alone = usefulness._effect(hits, weights, np.arange(40))
    per_picture = (hits[:, 1].astype(float) - hits[:, 0]).mean(axis=0)
    assert alone.holdout_error == pytest.approx(per_picture.std(ddof=1) / np.sqrt(40))
    copies = usefulness._effect(np.repeat(hits, 5, axis=2), np.full(200, 1 / 200), np.repeat(np.arange(40), 5))
    assert copies.holdout_error == pytest.approx(alone.holdout_error)


def test_unlabelled_holdout_pictures_do_not_count(monkeypatch: pytest.MonkeyPatch):
    Recorder(monkeypatch)
    more = Labelled(np.concatenate([HELD.pixels, BACK]), np.append(HELD.labels, np.full(60, -1)), np.arange(180) % 90)
    found = measured(TRAIN, more, Offer(Labelled(BACK, SQUARES)), QUICK)
    assert found.effects["accuracy"].without == pytest.approx((1 / 3,) * 3)  # the recorder answers `disc`


def test_confidences_are_softmax_maxima_and_large_logits_do_not_overflow():
    found = Predictions.of(np.array([[0, np.log(3), 0], [1e5, 0, 0], [-1e5, -1e5, -1e5]], np.float32))
    np.testing.assert_array_equal(found.labels, [1, 0, 0])
    np.testing.assert_allclose(found.confidences, [0.6, 1, 1 / 3], rtol=1e-6)


def test_a_set_and_an_array_are_predicted_alike():
    probe = DomainNetwork(Classifier(SIZE, 3).eval(), NAMES, CPU, {})
    pictures = PictureSet("held", len(HELD), lambda: iter([HELD.pixels[:50], HELD.pixels[50:]]))
    one, other = predict(probe, pictures), predict(probe, HELD.pixels)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.confidences, other.confidences, atol=1e-5)
    with pytest.raises(InputError, match="given no pictures"):
        predict(probe, HELD.pixels[:0])


def test_conditional_accuracy_stands_beside_what_real_pictures_of_these_classes_would_reach():
    holdout = Accuracy(Proportion(30, 40), {"disc": Proportion(18, 20), "cross": Proportion(12, 20)})
    wanted = np.array([0, 0, 0, 2])
    found = conditional_accuracy(Predictions(np.array([0, 0, 1, 2]), np.ones(4)), wanted, holdout, NAMES)
    assert found.generated == accuracy(np.array([0, 0, 1, 2]), wanted, NAMES)
    assert found.real == pytest.approx((3 * 0.9 + 1 * 0.6) / 4)
    assert found.to_json()["of_real"] == pytest.approx(0.75 / 0.825)
    assert found.to_json()["accuracy"]["per_class"]["cross"]["value"] == 1


@pytest.mark.parametrize(("wanted", "match"), [([0], "2 pictures were classified"), ([0, 3], "classes 0 to 2")])
def test_wanted_labels_that_do_not_fit_are_refused(wanted: list[int], match: str):
    with pytest.raises(InputError, match=match):
        conditional_accuracy(
            Predictions(np.zeros(2, int), np.ones(2)), np.array(wanted), Accuracy(Proportion(0, 0), {}), NAMES
        )


def predictions(*counts: int) -> Predictions:
    return Predictions(np.repeat(np.arange(len(counts)), counts), np.ones(sum(counts)))


def test_histograms_differ_by_total_variation_and_missing_modes_are_named():
    found = class_histogram(predictions(150, 50, 0, 0), predictions(50, 25, 24, 1), ("a", "b", "c", "d"))
    # shares .75 .25 0 0 against .5 .25 .24 .01: half of .25 + 0 + .24 + .01
    assert found.total_variation == pytest.approx(0.25)
    assert found.never_drawn == ["c", "d"]
    assert found.missing == ["c"]  # 200 real pictures miss `d` by luck with .99^200 = .13
    assert found.to_json()["per_class"]["a"]["real"] == 0.5
    assert found.to_json()["floor"]["quantile_95"] < 0.25
    assert found.to_json()["holdout_total_variation"] is None
    other = class_histogram(predictions(1), predictions(50, 50), ("a", "b"), holdout=predictions(75, 25))
    assert other.to_json()["holdout_total_variation"] == pytest.approx(0.25)


def test_an_equal_histogram_is_within_the_floor_and_a_class_that_nobody_has_is_not_missing():
    found = class_histogram(predictions(50, 50, 0), predictions(50, 50, 0), NAMES)
    assert found.total_variation == 0 < found.floor[0] < found.floor[1]
    assert found.never_drawn == found.missing == []
    with pytest.raises(InputError, match="0 generated and 100 real"):
        class_histogram(predictions(0, 0, 0), predictions(50, 50, 0), NAMES)


def test_the_floor_shrinks_with_the_number_of_pictures():
    few, many = (class_histogram(predictions(n, n), predictions(n, n), ("a", "b")).floor[0] for n in (50, 5000))
    # two binomial shares of 1/2: mean |difference| = sqrt(2 / pi) * sqrt(2 * .25 / (2 n))
    assert few == pytest.approx(np.sqrt(0.5 / np.pi / 50), rel=0.1)
    assert many == pytest.approx(few / 10, rel=0.15)
