"""Memorisation: copies are found, fresh pictures and repeats of what the data repeat are not taken for them."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from stages.errors import InputError
from stages.evaluate.unseen.conformal import conformal_quantile
from stages.evaluate.unseen.copy_search import Space, pixel_descriptors
from stages.evaluate.unseen.memorisation import Memorisation, measure_memorisation, pair_sheet
from stages.evaluate.unseen.nearest import find_nearest
from stages.evaluate.unseen.repeats import find_repeats
from stages.metrics.proportions import Proportion

DIMENSION = 12


def share(found: Proportion) -> float:
    return found.hits / found.count


def draw(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)


def in_one(generated: np.ndarray, train: np.ndarray, holdout: np.ndarray, **options) -> Memorisation:
    return measure_memorisation({"features": Space(generated, train, holdout)}, **options)


def test_copies_are_found_whole_and_named():
    train, holdout = draw(400, 0), draw(300, 1)
    chosen = np.random.default_rng(2).permutation(400)[:100]
    found = in_one(train[chosen] + np.float32(1e-3), train, holdout)
    finding = found.findings[0]
    assert share(finding.copies) == 1.0
    assert finding.memorised
    assert found.closer["features"] == 1.0
    np.testing.assert_array_equal(found.nearest.indices, chosen)
    np.testing.assert_allclose(found.nearest.distances, 1e-3 * DIMENSION**0.5, rtol=1e-2)


@pytest.mark.parametrize("seed", range(3))
def test_fresh_pictures_are_near_about_as_often_as_the_level_says(seed: int):
    found = in_one(draw(2000, 10 + seed), draw(500, 20 + seed), draw(1000, 30 + seed))
    for finding, low, high in zip(found.findings, (0.003, 0.025), (0.025, 0.09), strict=True):
        assert low < share(finding.near) < high
        assert finding.copies == finding.near  # there are no repeats in the data
        assert not finding.memorised
    assert found.closer["features"] == pytest.approx(0.5, abs=0.03)


def test_a_few_copies_among_fresh_pictures_are_counted_and_come_first():
    train = draw(500, 0)
    generated = np.concatenate([draw(900, 1), train[:100]])
    found = in_one(generated, train, draw(1000, 2))
    assert share(found.findings[0].copies) == pytest.approx(0.1, abs=0.02)
    assert found.findings[0].memorised
    assert set(found.closest(100)) == set(range(900, 1000))


def test_a_crowded_region_is_not_memory():
    """Half of the population is a hundred times denser: raw distances there are small, ratios are not."""

    def population(count: int, seed: int) -> np.ndarray:
        values = draw(count, seed)
        values[::2] = values[::2] * 0.01 + 5
        return values

    train, holdout = population(600, 0), population(400, 1)
    dense = population(800, 2)[::2]
    distances = find_nearest(holdout, train, np.arange(600), 10).distances
    raw = np.median(find_nearest(dense, train, np.arange(600), 10).distances)
    assert raw < np.quantile(distances, 0.4)
    assert share(in_one(dense, train, holdout).findings[0].near) < 0.04


def repeats(subjects: int, each: int, seed: int, spread: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Return near-duplicates of subjects, and their groups."""
    centres = np.repeat(draw(subjects, seed), each, axis=0)
    noise = np.random.default_rng(seed + 100).normal(size=centres.shape)
    return (centres + spread * noise).astype(np.float32), np.repeat(np.arange(subjects), each)


def test_near_duplicates_inside_the_data_are_not_copies():
    """A further repeat of a known subject lies as near to its repeats as these to one another."""
    everything, groups = repeats(60, 20, 0)
    is_new = np.arange(len(everything)) % 20 == 0
    train, train_groups = everything[~is_new], groups[~is_new]
    holdout, holdout_groups = repeats(40, 5, 1)
    options = {"train_groups": train_groups, "holdout_groups": holdout_groups + 1000}
    fresh = in_one(everything[is_new], train, holdout, **options).findings[0]
    assert share(fresh.near) == 1.0  # by hold-out distances alone all would be copies
    assert share(fresh.copies) <= 0.1
    assert not fresh.memorised
    assert share(fresh.data) > 0.9  # the data say why
    copied = in_one(train[::19] + np.float32(1e-4), train, holdout, **options).findings[0]
    assert share(copied.copies) == 1.0  # while true copies of the same pictures are found


def test_identical_repeats_excuse_nothing():
    singles, twice = draw(200, 0), np.repeat(draw(100, 1), 2, axis=0)
    train = np.concatenate([singles, twice])
    groups = np.concatenate([np.arange(200), 1000 + np.repeat(np.arange(100), 2)])
    found = in_one(twice[::2].copy(), train, draw(200, 2), train_groups=groups).findings[0]
    assert share(found.copies) == 1.0
    assert found.repeat_thresholds == {"features": None}


def test_repeats_of_a_pair_and_of_a_triple():
    train = np.array([[0.0], [1.0], [10.0], [11.0], [13.0], [99.0]])
    found = find_repeats(train, np.array([0, 0, 1, 1, 1, 2]), 1e-6)
    np.testing.assert_allclose(found.spacing, [1, 1, 1, 1, 2, np.inf])
    # pair: nothing to compare with; 10 leads to 11, whose next is 13; 11 to 10, next 13; 13 to 11, whose nearest is 10
    np.testing.assert_allclose(np.sort(found.ratios), np.sort([1, 1, 1 / 2, 1 / 3, 2 / 1]))


def test_nearest_leaves_out_the_group_of_the_nearest_and_the_picture_itself():
    others = np.array([[0.0], [0.5], [3.0], [4.0]], np.float32)
    groups = np.array([0, 0, 1, 2])
    found = find_nearest(np.array([[0.1]], np.float32), others, groups, 2)
    assert found.indices[0] == 0
    assert found.distances[0] == pytest.approx(0.1)
    assert found.behind[0] == pytest.approx((2.9 + 3.9) / 2, rel=1e-5)
    own = find_nearest(others[:1], others, groups, 1, np.array([0]))
    assert own.indices[0] == 1
    assert own.behind[0] == pytest.approx(3, rel=1e-5)


def test_the_quantile_is_conformal():
    """A further draw falls at or below it with the probability that is promised."""
    values = np.random.default_rng(0).normal(size=(20_000, 100))
    threshold = np.array([conformal_quantile(row[:99], 0.05) for row in values])
    assert (values[:, 99] <= threshold).mean() == pytest.approx(0.05, abs=0.005)
    assert conformal_quantile(np.array([3.0, 1.0, 2.0]), 0.01) == 1.0


def drawings(count: int, seed: int) -> np.ndarray:
    """Return drawings of a few coloured shapes, uint8 (N, 3, 64, 64)."""
    random, pictures = np.random.default_rng(seed), []
    for _ in range(count):
        image = Image.new("RGB", (64, 64), tuple(random.integers(120, 256, 3).tolist()))
        pen = ImageDraw.Draw(image)
        for _ in range(5):
            left, top, width, height = random.integers(0, 44, 2).tolist() + random.integers(8, 30, 2).tolist()
            shape = pen.ellipse if random.random() < 0.5 else pen.rectangle
            shape((left, top, left + width, top + height), fill=tuple(random.integers(0, 256, 3).tolist()))
        pictures.append(np.asarray(image).transpose(2, 0, 1))
    return np.stack(pictures)


def jpeg(pictures: np.ndarray) -> np.ndarray:
    decoded = []
    for picture in pictures:
        stream = io.BytesIO()
        Image.fromarray(picture.transpose(1, 2, 0)).save(stream, "JPEG", quality=85)
        decoded.append(np.asarray(Image.open(stream)).transpose(2, 0, 1))
    return np.stack(decoded)


def noisy(pictures: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(5).normal(0, 4, pictures.shape)
    return np.clip(np.rint(pictures + noise), 0, 255).astype(np.uint8)


def mirrored(pictures: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pictures[..., ::-1])


@pytest.fixture(scope="module")
def lite0():
    from stages.metrics.feature_networks import open_efficientnet_lite0

    network = open_efficientnet_lite0(torch.device("cpu"))

    def features(pictures: np.ndarray) -> np.ndarray:
        return np.concatenate([network.classify(part)[0] for part in np.array_split(pictures, len(pictures) // 6)])

    return features


@pytest.fixture(scope="module")
def real_spaces(lite0):
    """Return train and hold-out drawings in the network's features and in pixels."""
    train, holdout = drawings(60, 0), drawings(40, 1)
    return train, {name: (f(train), f(holdout)) for name, f in (("lite0", lite0), ("pixels", pixel_descriptors))}


@pytest.mark.parametrize("degrade", [jpeg, noisy, mirrored])
def test_degraded_copies_are_found_in_features_and_pixels(degrade, real_spaces, lite0):
    train, known = real_spaces
    pictures = degrade(train[:12])
    spaces = {name: Space(f(pictures), *known[name]) for name, f in (("lite0", lite0), ("pixels", pixel_descriptors))}
    found = measure_memorisation(spaces)
    assert share(found.findings[0].copies) == 1.0
    assert found.findings[0].memorised
    np.testing.assert_array_equal(found.nearest.indices, np.arange(12))


def test_fresh_drawings_are_not_copies(real_spaces, lite0):
    fresh = drawings(16, 2)
    functions = (("lite0", lite0), ("pixels", pixel_descriptors))
    found = measure_memorisation({name: Space(f(fresh), *real_spaces[1][name]) for name, f in functions})
    finding = found.findings[0]
    assert finding.nominal == pytest.approx(2 / 41)  # 1 % cannot be told with 40 hold-out pictures
    assert finding.expected[1] > 0.1
    assert finding.copies.hits <= 4
    assert not found.findings[0].memorised


def test_pixel_descriptors_do_not_see_mirroring_and_do_see_more():
    pictures = drawings(4, 3)
    np.testing.assert_allclose(pixel_descriptors(pictures), pixel_descriptors(mirrored(pictures)), atol=1e-6)
    upside_down = pixel_descriptors(np.ascontiguousarray(pictures[:, :, ::-1]))
    assert np.abs(pixel_descriptors(pictures) - upside_down).max(axis=1).min() > 0.05
    assert pixel_descriptors(pictures[:, :1, :20, :30]).shape == (4, 16 * 16)


def test_two_spaces_find_what_either_finds_at_an_equal_level():
    train, holdout, generated = draw(500, 0), draw(1000, 1), draw(2000, 2)
    blind = {name: draw(len(s), 50 + i) for i, (name, s) in enumerate([("g", generated), ("t", train), ("h", holdout)])}
    spaces = {"seeing": Space(generated, train, holdout), "blind": Space(blind["g"], blind["t"], blind["h"])}
    assert share(measure_memorisation(spaces).findings[0].near) < 0.025
    spaces["seeing"] = Space(train[:200], train, holdout)
    spaces["blind"] = Space(blind["g"][:200], blind["t"], blind["h"])
    found = measure_memorisation(spaces)
    assert share(found.findings[0].copies) == 1.0
    np.testing.assert_array_equal(found.nearest.indices, np.arange(200))
    assert {found.spaces[position] for position in found.space} == {"seeing"}


def test_the_result_is_plain_json_and_deterministic():
    train = draw(200, 0)
    sets = (np.concatenate([train[:3], draw(50, 1)]), train, draw(100, 2))
    first, second = (json.dumps(in_one(*sets).to_json(pairs=4), allow_nan=False) for _ in range(2))
    assert first == second
    rows = json.loads(first)["closest"]
    assert [(row["generated"], row["train"], row["copy"]) for row in rows[:3]] == [(i, i, True) for i in range(3)]
    assert len(rows) == 4


def test_a_sheet_shows_each_pair_side_by_side():
    left, right = np.zeros((3, 3, 8, 8), np.uint8), np.full((3, 3, 8, 8), 200, np.uint8)
    image = np.asarray(pair_sheet(left, right, columns=2, zoom=1))
    assert image.shape == (2 * 8 + 3 * 4, 2 * 16 + 3 * 4, 3)
    assert (image[4:12, 4:12] == 0).all()
    assert (image[4:12, 12:20] == 200).all()
    assert (image[4:12, 20:24] == 255).all()


def good() -> dict[str, np.ndarray]:
    return {"generated": draw(5, 0), "train": draw(6, 1), "holdout": draw(7, 2)}


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"generated": np.zeros((0, DIMENSION))}, {}, "generated .*expected"),
        ({"holdout": np.full((7, DIMENSION), np.nan)}, {}, "holdout .*NaN"),
        ({"holdout": draw(7, 2)[:, :5]}, {}, "holdout 5"),
        ({"train": draw(1, 1)}, {}, "N >= 2"),
        ({}, {"train_groups": np.zeros(6)}, "all train pictures are of one group"),
        ({}, {"train_groups": np.arange(5)}, "5 and 7 groups"),
        ({}, {"train_groups": np.arange(6), "holdout_groups": np.arange(5, 12)}, "group 5 is in train and hold-out"),
    ],
)
def test_bad_input_is_one_line(change: dict, options: dict, words: str):
    with pytest.raises(InputError, match=words) as caught:
        in_one(**(good() | change), **options)
    assert "\n" not in str(caught.value)


def test_spaces_of_other_pictures_are_refused():
    with pytest.raises(InputError, match="same generated"):
        measure_memorisation({"a": Space(**good()), "b": Space(**(good() | {"generated": draw(4, 0)}))})
    with pytest.raises(InputError, match="no space"):
        measure_memorisation({})


def test_a_tiny_hold_out_and_equal_pictures_give_a_result():
    found = in_one(draw(5, 0), np.ones((6, DIMENSION), np.float32), draw(2, 1))
    assert found.findings[0].near.count == 5
    same = np.ones((6, DIMENSION), np.float32)
    assert 0 <= in_one(same, same, same).closer["features"] <= 1
