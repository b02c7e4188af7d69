"""FFHQ's square around five points, which faces of a picture are used, and what the table says of the others."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.align import faces
from stages.align.cascade import turn_back
from stages.align.faces import crop_faces, face_quad
from stages.align.run import check_skipped
from stages.align.upright import Face
from stages.crops import BACKGROUND, REFLECT, Crop, read_crops, write_crops
from stages.errors import InputError
from stages.settings.pictures import FaceSettings

UPRIGHT = np.array([[40.0, 50], [80, 50], [60, 70], [45, 90], [75, 90]])
WHEEL = Path("no-wheel")


def choose(**changes) -> FaceSettings:
    usual = {"which": "all", "confidence": 0.95, "min_eye_distance": 8.0, "max_faceless_share": 0.5}
    return FaceSettings(**(usual | changes))


def as_complex(points: np.ndarray) -> np.ndarray:
    return points[:, 0] + 1j * points[:, 1]


def ffhq_square(points: np.ndarray) -> np.ndarray:
    """The corners as complex numbers: a quarter turn is a factor of 1j, a length an absolute value."""
    left, right, _, mouth_left, mouth_right = as_complex(points)
    eyes = (left + right) / 2
    to_mouth = (mouth_left + mouth_right) / 2 - eyes
    x = (right - left) - 1j * to_mouth
    x *= max(2.0 * abs(right - left), 1.8 * abs(to_mouth)) / abs(x)
    centre = eyes + 0.1 * to_mouth
    return np.array([centre + x * (-1 - 1j), centre + x * (-1 + 1j), centre + x * (1 + 1j), centre + x * (1 - 1j)])


def random_points(seed: int) -> np.ndarray:
    """A face of any size, place and lean, seen askew."""
    rng = np.random.default_rng(seed)
    turned = as_complex(UPRIGHT + rng.normal(0, 6, (5, 2))) * np.exp(1j * rng.uniform(-np.pi, np.pi))
    moved = turned * rng.uniform(0.1, 20) + complex(*rng.normal(0, 500, 2))
    return np.stack([moved.real, moved.imag], 1)


@pytest.mark.parametrize("seed", range(50))
def test_the_square_is_ffhqs(seed):
    points = random_points(seed)
    found = as_complex(np.reshape(face_quad(points), (4, 2)))
    np.testing.assert_allclose(found, ffhq_square(points), rtol=1e-12, atol=1e-9)


def test_an_upright_face_by_hand():
    """Eyes 40 apart, the mouth 40 below: half a side is 80, the centre 4 below the eyes."""
    assert face_quad(UPRIGHT) == [-20, -26, -20, 134, 140, 134, 140, -26]


@pytest.mark.parametrize("seed", range(5))
def test_the_square_moves_with_the_face(seed):
    points = random_points(seed)
    turn = np.exp(0.7j) * 1.5
    moved = as_complex(points) * turn + (30 - 20j)
    quad = as_complex(np.reshape(face_quad(np.stack([moved.real, moved.imag], 1)), (4, 2)))
    expected = as_complex(np.reshape(face_quad(points), (4, 2))) * turn + (30 - 20j)
    np.testing.assert_allclose(quad, expected, rtol=1e-9)


@pytest.mark.parametrize("quarters", range(4))
def test_points_of_a_turned_picture_turn_back(quarters):
    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[7, 41] = 255
    turned = np.asarray(Image.fromarray(pixels).rotate(90 * quarters, expand=True))
    row, column = (int(where[0]) for where in np.nonzero(turned[..., 0]))
    assert turn_back(np.array([[column + 0.5, row + 0.5]]), (50, 30), quarters).tolist() == [[41.5, 7.5]]


@pytest.fixture
def found(monkeypatch):
    """What the detector is said to have found: (size, left, confidence) of each face."""

    def say(*faces_found: tuple[float, float, float]) -> None:
        answer = [Face(UPRIGHT * size + [left, 0], surety) for size, left, surety in faces_found]
        monkeypatch.setattr(faces, "load_detector", lambda wheel: None)
        monkeypatch.setattr(faces, "find_faces", lambda detector, picture, confidence: answer)

    return say


def crops_of(settings: FaceSettings) -> list[Crop]:
    return crop_faces(WHEEL, settings, "a/b.jpg", Image.new("RGB", (500, 300)))


def test_faces_are_named_in_the_order_of_size(found):
    found((0.5, 300, 0.99), (1.5, 100, 0.96), (1.0, 0, 1.0), (4.0, 0, 0.94), (1.0, 50, 0.97))
    crops = crops_of(choose())
    assert [crop.key for crop in crops] == ["a/b.jpg", "a/b.jpg#2", "a/b.jpg#3", "a/b.jpg#4"]
    assert {crop.source for crop in crops} == {"a/b.jpg"}
    assert [crop.landmarks[2] - crop.landmarks[0] for crop in crops] == [60, 40, 40, 20]
    assert crops[1].landmarks[0] < crops[2].landmarks[0]
    for crop in crops:
        points = np.reshape(crop.landmarks, (5, 2))
        np.testing.assert_allclose(as_complex(np.reshape(crop.quad, (4, 2))), ffhq_square(points), atol=2e-3)
        assert (crop.border, crop.skipped, crop.faceless) == (REFLECT, "", False)
    assert crops_of(choose(which="largest")) == crops[:1]


@pytest.mark.parametrize(
    ("faces_found", "reason"),
    [
        ([], "no face: the best confidence found is 0.00, align.face.confidence is 0.95"),
        ([(1, 0, 0.41), (1, 90, 0.94)], "no face: the best confidence found is 0.94, align.face.confidence is 0.95"),
        (
            [(0.1, 0, 0.99), (0.18, 9, 0.96), (1, 90, 0.2)],
            "no face is large enough: eyes are 7.2 pixels apart, align.face.min_eye_distance is 8",
        ),
    ],
)
def test_a_picture_without_a_face_says_why(found, faces_found, reason):
    found(*faces_found)
    assert crops_of(choose()) == [Crop("a/b.jpg", "a/b.jpg", skipped=reason, faceless=True)]


def skipped(count: int, faceless: bool) -> list[Crop]:
    reason = "no face: none" if faceless else "damaged: cut"
    return [Crop(f"{reason[:2]}{i}", f"{i}", skipped=reason, faceless=faceless) for i in range(count)]


def test_the_faceless_and_the_unreadable_have_limits_of_their_own():
    good = [Crop(f"good{i}", f"good{i}", [0.0] * 8) for i in range(6)]
    table = good + skipped(3, True) + skipped(1, False)
    assert check_skipped(table, 10, 0.1, 0.3) == 4
    with pytest.raises(
        InputError, match=r"1 of 10 pictures are unreadable, more than data\.max_reject_share 0\.05: da0"
    ):
        check_skipped(table, 10, 0.05, 0.3)
    with pytest.raises(
        InputError, match=r"3 of 10 pictures show no face, more than align\.face\.max_faceless_share 0\.2"
    ):
        check_skipped(table, 10, 0.1, 0.2)
    with pytest.raises(InputError, match=r"none of 4 pictures is left, such as no0: no face: none"):
        check_skipped(skipped(3, True) + skipped(1, False), 4, 1.0, 1.0)


def test_the_table_keeps_all_of_a_crop(tmp_path):
    crops = [
        Crop("b.png", "b.png", skipped="no face: none", faceless=True),
        Crop("a.png#2", "a.png", [1.0] * 8, [2.0] * 10, border=REFLECT),
        Crop("a.png", "a.png", [3.0] * 8),
    ]
    write_crops(tmp_path, crops)
    table = read_crops(tmp_path)
    assert table == {"a.png": [crops[2], crops[1]], "b.png": [crops[0]]}
    assert table["a.png"][0].border == BACKGROUND


def test_two_crops_of_one_name_are_refused(tmp_path):
    crops = [Crop("a.png#2", "a.png", [1.0] * 8), Crop("a.png#2", "a.png#2", [1.0] * 8)]
    with pytest.raises(InputError, match=r"two crops are called a\.png#2"):
        write_crops(tmp_path, crops)


def test_a_face_of_no_size_has_a_square_that_can_be_drawn():
    face = Face(np.zeros((5, 2)), 1.0)
    assert face.side > 0
    assert np.isfinite(face.axes).all()
    assert all(math.isfinite(value) for value in face_quad(face.points))
