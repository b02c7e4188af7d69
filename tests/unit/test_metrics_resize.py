"""The resize families against the tools from which they have their names."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from stages.errors import InputError
from stages.metrics.resize import FAMILIES, Preparation, require_family

SIZE = 299
SIDES = [(32, 32), (64, 64), (299, 299), (512, 300), (1, 7)]


def pictures(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (count, 3, height, width), np.uint8)


def prepare(family: str, dtype: torch.dtype = torch.float32, centre: float = 128) -> Preparation:
    return Preparation(family, SIZE, (centre,) * 3, (centre,) * 3, dtype)


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tf_is_torch_fidelity_bit_for_bit(sides: tuple[int, int], dtype: torch.dtype):
    given = pictures(*sides)
    tensor = torch.from_numpy(given).to(dtype)
    expected = interpolate_bilinear_2d_like_tensorflow1x(tensor, size=(SIZE, SIZE), align_corners=False)
    assert torch.equal(prepare("tf", dtype)(given), (expected - 128) / 128)


def test_tf_on_a_device_is_tf_in_numpy():
    """Takes the road of the accelerators, by tensors, on the CPU."""
    from stages.metrics import resize

    given = pictures(40, 30).astype(np.float32)
    taps = [resize._taps(side, SIZE, np.dtype(np.float32)) for side in (40, 30)]
    moved = [tuple(torch.from_numpy(part) for part in tap) for tap in taps]
    by_tensors = resize._interpolate(torch.from_numpy(given), *moved)
    assert by_tensors.numpy().tobytes() == resize._interpolate(given, *taps).tobytes()


@pytest.mark.parametrize("sides", SIDES)
def test_pytorch_is_pytorch_fid_bit_for_bit(sides: tuple[int, int]):
    given = pictures(*sides)
    unit = torch.from_numpy(given).float() / 255
    expected = 2 * F.interpolate(unit, size=(SIZE, SIZE), mode="bilinear", align_corners=False) - 1
    assert torch.equal(prepare("pytorch", centre=127.5)(given), expected)


@pytest.mark.parametrize("sides", SIDES)
def test_clean_is_clean_fid_bit_for_bit(sides: tuple[int, int]):
    resizer = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    given = pictures(*sides)
    resized = [resizer(np.ascontiguousarray(picture.transpose(1, 2, 0))).transpose(2, 0, 1) for picture in given]
    assert torch.equal(prepare("clean")(given), (torch.from_numpy(np.stack(resized)) - 128) / 128)


def test_the_families_differ_where_they_must():
    """A checkerboard of one pixel aliases without antialiasing; TensorFlow's grid has no half-pixel centres."""
    board = np.broadcast_to((np.indices((598, 598)).sum(axis=0) % 2 * 255).astype(np.uint8), (1, 3, 598, 598))
    found = {family: prepare(family)(board)[:, :, 20:-20, 20:-20] for family in FAMILIES}
    assert found["clean"].std() < 1e-3 and abs(found["clean"].mean()) < 0.01
    assert torch.equal(found["tf"].unique(), torch.tensor([-1.0]))  # every second pixel, all of them black
    assert found["pytorch"].std() < 1e-3  # halfway between two pixels


@pytest.mark.parametrize("family", FAMILIES)
def test_grey_is_repeated_and_floats_are_taken(family: str):
    given = pictures(24, 20)
    grey = given[:, :1]
    assert torch.equal(prepare(family)(grey), prepare(family)(grey.repeat(3, axis=1)))
    assert torch.equal(prepare(family)(given.astype(np.float32)), prepare(family)(given))


def test_pictures_are_not_changed():
    given = pictures(299, 299)
    before = given.copy()
    for family in FAMILIES:
        prepare(family)(given)
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((2, 4, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((3, 8, 8), np.uint8),
        np.zeros((2, 3, 8, 8), np.int64),
        np.zeros((2, 3, 0, 8), np.uint8),
    ],
)
def test_what_are_no_pictures_is_refused(given: np.ndarray):
    with pytest.raises(InputError, match="expected uint8 or floats") as caught:
        prepare("tf")(given)
    assert str(given.shape) in str(caught.value)


def test_an_unknown_family_is_named():
    with pytest.raises(InputError, match=r"resize is 'lanczos'; expected one of tf, pytorch, clean"):
        require_family("lanczos")


def test_the_normalisation_is_described():
    assert prepare("tf").describe() == "(x - 128) / 128"
    assert Preparation("tf", 224, (1.5, 2, 3), (4, 4, 4)).describe() == "(x - 1.5) / 4; (x - 2) / 4; (x - 3) / 4"
