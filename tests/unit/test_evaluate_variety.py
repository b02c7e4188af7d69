"""Variety: known numbers of kinds, standard errors that hold, collapse beside real pictures."""

import json
import math

import numpy as np
import pytest

from stages.errors import InputError
from stages.evaluate.unseen.variety import measure_variety, standard_error, vendi_score
from stages.metrics.proportions import Proportion


def share(found: Proportion) -> float:
    return found.hits / found.count


def draw(count: int, seed: int, dimension: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


@pytest.mark.parametrize("kinds", [1, 3, 8])
def test_vendi_score_counts_kinds(kinds: int):
    features = np.repeat(np.eye(kinds, 10), 6, axis=0) * np.linspace(1, 5, 6 * kinds)[:, None]
    assert vendi_score(features) == pytest.approx(kinds, rel=1e-9)


def test_vendi_score_of_unequal_kinds_is_the_exponential_of_their_entropy():
    features = np.repeat(np.eye(2), [9, 1], axis=0)
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert vendi_score(features) == pytest.approx(math.exp(entropy), rel=1e-9)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (12, 12)])
def test_vendi_score_is_the_same_from_either_gram_matrix(shape: tuple[int, int]):
    features = np.random.default_rng(0).normal(size=shape)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    values = values[values > 1e-12]
    assert vendi_score(features) == pytest.approx(math.exp(-(values * np.log(values)).sum()), rel=1e-9)


def test_vendi_score_of_pictures_without_features_is_one_kind():
    assert vendi_score(np.zeros((5, 3))) == pytest.approx(1)
    assert vendi_score(np.concatenate([np.zeros((5, 3)), np.ones((5, 3))])) == pytest.approx(2)


def test_the_standard_error_is_that_of_repeated_sets():
    """Over 200 sets, the deviation of the mean pairwise distance is what a single set says of itself."""
    values, errors = [], []
    for seed in range(200):
        distances = np.linalg.norm(draw(60, seed, 4)[:, None] - draw(60, seed, 4), axis=2)
        means = distances.sum(axis=1) / 59
        values.append(means.mean())
        errors.append(standard_error(means))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.2)


def test_the_mean_distance_is_that_of_all_pairs():
    generated, real = draw(40, 0), draw(40, 1)
    found = measure_variety(generated, real)
    pairs = np.linalg.norm(generated[:, None] - generated, axis=2)[np.triu_indices(40, 1)]
    assert found.generated.distance == pytest.approx(pairs.mean(), rel=1e-5)
    assert found.count == 40


def test_equal_distributions_have_equal_variety():
    found = measure_variety(draw(800, 0), draw(700, 1))
    ratio, error = found.ratio
    assert abs(ratio - 1) < 4 * error < 0.1
    assert found.generated.vendi == pytest.approx(found.real.vendi, rel=0.02)
    assert share(found.generated.duplicates) < 0.04
    assert share(found.real.duplicates) <= 0.01
    assert found.count == 700


def test_collapse_shows_in_every_number():
    """Twenty pictures drawn forty times each, beside eight hundred different ones."""
    generated = np.repeat(draw(20, 0), 40, axis=0) + 1e-3 * draw(800, 1)
    found = measure_variety(generated, draw(800, 2))
    assert share(found.generated.duplicates) == 1.0
    assert share(found.real.duplicates) <= 0.01
    assert found.generated.vendi < 0.97 * found.real.vendi
    shrunk = measure_variety(0.5 * draw(800, 3), draw(800, 2))
    assert shrunk.ratio[0] == pytest.approx(0.5, abs=0.03)


def test_one_picture_drawn_again_and_again_has_no_distance():
    found = measure_variety(np.ones((50, 4), np.float32), draw(50, 0, 4))
    assert found.generated.distance == 0
    assert found.generated.vendi == pytest.approx(1)
    assert share(found.generated.duplicates) == 1.0
    json.dumps(found.to_json(), allow_nan=False)


def test_repeats_of_one_real_subject_do_not_hide_generated_duplicates():
    real = np.repeat(draw(100, 0), 4, axis=0) + 1e-3 * draw(400, 1)
    generated = draw(400, 2)
    generated[:100] = generated[100:200] + 1e-2 * draw(100, 3)
    groups = np.repeat(np.arange(100), 4)
    found = measure_variety(generated, real, groups)
    assert share(found.generated.duplicates) == pytest.approx(0.5, abs=0.05)
    assert share(found.real.duplicates) == 1.0  # the data's own repeats stand beside them
    assert share(measure_variety(generated, real).generated.duplicates) < 0.1


def test_a_perfect_generator_of_repeating_data_repeats_as_the_data_do():
    centres = draw(100, 0)
    mine, groups = (np.random.default_rng(seed).integers(0, 100, 600) for seed in (1, 2))
    found = measure_variety(centres[mine] + 1e-2 * draw(600, 1), centres[groups] + 1e-2 * draw(600, 2), groups)
    assert share(found.generated.duplicates) == pytest.approx(share(found.real.duplicates), abs=0.02)


def test_the_closest_pairs_are_named_by_their_positions():
    generated = draw(60, 0)
    generated[40] = generated[7] + 1e-4
    generated[3] = generated[50] + 1e-3
    found = measure_variety(generated, draw(30, 1), pairs=2, largest=60)
    assert found.count == 30  # so both pictures of a pair are found only if both are taken
    whole = measure_variety(generated, draw(60, 1), pairs=2)
    assert whole.closest.tolist() == [[7, 40], [3, 50]]


def test_the_same_seed_takes_the_same_pictures():
    sets = (draw(200, 0), draw(150, 1))
    first, again, other = (measure_variety(*sets, seed=seed, largest=50).to_json() for seed in (1, 1, 2))
    assert json.dumps(first, allow_nan=False) == json.dumps(again)
    assert first["generated"] != other["generated"]


@pytest.mark.parametrize(
    ("generated", "real", "groups", "words"),
    [
        (draw(2, 0), draw(9, 1), None, "generated pictures .*N >= 3"),
        (draw(9, 0), draw(9, 1, 5), None, "real 5"),
        (np.full((9, 4), np.inf), draw(9, 1, 4), None, "NaN or infinity"),
        (draw(9, 0), draw(9, 1), np.arange(4), "4 groups"),
        (draw(9, 0), np.ones((9, 16), np.float32), None, "equal features"),
    ],
)
def test_bad_input_is_one_line(generated, real, groups, words: str):
    with pytest.raises(InputError, match=words) as caught:
        measure_variety(generated, real, groups)
    assert "\n" not in str(caught.value)


def test_one_group_of_real_pictures_leaves_nothing_to_compare():
    with pytest.raises(InputError, match="one group"):
        measure_variety(draw(9, 0), draw(9, 1), np.zeros(9))
