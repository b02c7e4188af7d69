"""The Inception Score against its known values and torch-fidelity's own call."""

import numpy as np
import pytest

from stages.errors import InputError
from stages.metrics.inception_score import inception_score


def logits(classes: np.ndarray, count: int, sharpness: float) -> np.ndarray:
    return (np.eye(count)[classes] * sharpness).astype(np.float32)


def test_sure_and_even_predictions_score_the_number_of_classes():
    found, deviation = inception_score(logits(np.arange(1000) % 5, 5, 100), splits=1, seed=0)
    assert found == pytest.approx(5, rel=1e-6) and deviation == 0


def test_one_class_or_no_idea_scores_one():
    assert inception_score(logits(np.zeros(100, int), 5, 100), splits=10, seed=0)[0] == pytest.approx(1)
    assert inception_score(np.zeros((100, 5), np.float32), splits=10, seed=0) == pytest.approx((1, 0))


def test_it_is_the_definition_and_seeded():
    found = np.random.default_rng(0).standard_normal((200, 7)).astype(np.float32)
    shares = np.exp(found.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    divergence = (shares * np.log(shares / shares.mean(axis=0))).sum(axis=1)
    assert inception_score(found, splits=1, seed=0)[0] == pytest.approx(np.exp(divergence.mean()), rel=1e-9)
    assert inception_score(found, splits=10, seed=1) == inception_score(found, splits=10, seed=1)
    assert inception_score(found, splits=10, seed=1) != inception_score(found, splits=10, seed=2)


@pytest.mark.parametrize(
    ("found", "splits", "message"),
    [
        (np.zeros((0, 5)), 10, "0 pictures cannot be cut into 10 splits"),
        (np.zeros((9, 5)), 10, "9 pictures cannot be cut into 10 splits"),
        (np.zeros((9, 5)), 0, "cannot be cut into 0 splits"),
        (np.zeros((9, 1)), 1, "at least 2 classes"),
        (np.zeros(9), 1, "at least 2 classes"),
        (np.full((9, 5), np.nan), 1, "NaN or infinity"),
    ],
)
def test_logits_without_a_score_are_refused(found: np.ndarray, splits: int, message: str):
    with pytest.raises(InputError, match=message):
        inception_score(found, splits=splits, seed=0)
