"""Upright and turned crops against their definition, what lies outside of a picture, and memory."""

import math

import numpy as np
import pytest
from PIL import Image

from stages.crops import REFLECT, square_quad
from stages.normalize import resample
from stages.normalize.resample import FILTERS, resample_square

WHITE = (255, 255, 255)
KERNELS = {  # support and values, as in Pillow's documentation
    "bilinear": (1, lambda x: np.maximum(0, 1 - np.abs(x))),
    "bicubic": (
        2,
        lambda x: np.where(
            np.abs(x) < 1,
            1.5 * np.abs(x) ** 3 - 2.5 * x**2 + 1,
            np.where(np.abs(x) < 2, -0.5 * np.abs(x) ** 3 + 2.5 * x**2 - 4 * np.abs(x) + 2, 0),
        ),
    ),
    "lanczos": (3, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)),
}


def turned(centre: tuple[float, float], side: float, degrees: float) -> list[float]:
    """A square turned clockwise, from its upper left corner counter-clockwise."""
    angle = math.radians(degrees)
    middle, x = complex(*centre), complex(math.cos(angle), math.sin(angle)) * side / 2
    corners = [middle - x - 1j * x, middle - x + 1j * x, middle + x + 1j * x, middle + x - 1j * x]
    return [value for corner in corners for value in (corner.real, corner.imag)]


def places(quad: list[float], resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the middles of a crop's pixels lie in the picture."""
    corners = np.reshape(quad, (4, 2))
    along, down = (corners[3] - corners[0]) / resolution, (corners[1] - corners[0]) / resolution
    row, column = np.mgrid[:resolution, :resolution] + 0.5
    x, y = (corners[0][i] + column * along[i] + row * down[i] for i in (0, 1))
    return x, y


def defined(pixels: np.ndarray, quad: list[float], resolution: int, kernel: str) -> np.ndarray:
    """Each pixel as the sum over all of the picture, weighted by the filter along both axes of the crop."""
    _, values = KERNELS[kernel]
    corners = np.reshape(quad, (4, 2))
    along, down = (corners[3] - corners[0]) / resolution, (corners[1] - corners[0]) / resolution
    scale = math.hypot(*along)
    row, column = np.mgrid[: pixels.shape[0], : pixels.shape[1]] + 0.5
    result = np.zeros((resolution, resolution, 3))
    for i, (xs, ys) in enumerate(zip(*places(quad, resolution), strict=True)):
        for j, (x, y) in enumerate(zip(xs, ys, strict=True)):
            u = ((column - x) * along[0] + (row - y) * along[1]) / scale / max(scale, 1)
            v = ((column - x) * down[0] + (row - y) * down[1]) / scale / max(scale, 1)
            weights = values(u) * values(v)
            result[i, j] = (weights[..., None] * pixels).sum((0, 1)) / weights.sum()
    return result.clip(0, 255)


def photo(size: int = 160) -> np.ndarray:
    """A picture with edges, fine texture and smooth parts."""
    rng = np.random.default_rng(7)
    row, column = np.mgrid[:size, :size] / size
    smooth = 128 + 60 * np.sin(7 * row + 3 * column)[..., None] * np.array([1, 0.5, -1])
    disc = (np.hypot(row - 0.5, column - 0.45) < 0.3)[..., None] * np.array([50, -60, 20])
    return (smooth + disc + rng.normal(0, 12, (size, size, 3))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize(("side", "difference"), [(24, 2.0), (40, 1.2), (64, 1.0), (90, 1.0), (104, 1.5)])
def test_a_turned_crop_is_one_antialiased_resampling(kernel, side, difference):
    """It is what the filter, laid along the crop's axes over the picture's own pixels, gives: at every scale."""
    pixels, quad = photo(), turned((80.7, 79.2), side, 27)
    found = resample_square(Image.fromarray(pixels), quad, 12, kernel, WHITE).astype(float)
    expected = defined(pixels, quad, 12, kernel)
    assert math.sqrt(((found - expected) ** 2).mean()) < difference
    assert expected.std() > 15


@pytest.mark.parametrize("degrees", [1, 17, 45, 88, 133, -60])
def test_a_smooth_pattern_is_where_it_belongs(degrees):
    row, column = np.mgrid[:240, :240] + 0.5

    def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([x * 0.8 + 20, y * 0.9 + 10, 128 + 90 * np.sin(x / 19) * np.cos(y / 23)], 2)

    picture = Image.fromarray(pattern(column, row).round().astype(np.uint8))
    quad = turned((118.3, 121.8), 130, degrees)
    found = resample_square(picture, quad, 64, "lanczos", WHITE).astype(float)
    assert np.abs(found - pattern(*places(quad, 64))).max() < 2


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("kernel", sorted(FILTERS))
def test_a_quarter_turn_is_exact(kernel, quarters):
    """To the byte, and what is nearly a quarter turn is nearly the same."""
    picture, upright = Image.fromarray(photo()), square_quad(31.3, 22.7, 90.5)
    corners = np.roll(np.reshape(upright, (4, 2)), quarters, axis=0).flatten().tolist()
    straight = resample_square(picture, upright, 24, kernel, WHITE)
    found = resample_square(picture, corners, 24, kernel, WHITE)
    assert (found == np.rot90(straight, quarters)).all()
    centre = 31.3 + 90.5 / 2, 22.7 + 90.5 / 2
    nearly = resample_square(picture, turned(centre, 90.5, 90 * quarters + 0.02), 24, kernel, WHITE)
    assert np.abs(nearly.astype(int) - found).mean() < (3 if kernel == "box" else 1)


@pytest.mark.parametrize("kernel", sorted(FILTERS))
def test_upright_crops_are_pillows_own_resize(kernel):
    """With fractions of pixels, and beyond the border over a canvas of background."""
    picture = Image.fromarray(photo())
    inside = np.asarray(picture.resize((16, 16), FILTERS[kernel], box=(10.25, 20.5, 110.75, 121)))
    assert (resample_square(picture, square_quad(10.25, 20.5, 100.5), 16, kernel, WHITE) == inside).all()
    canvas = Image.new("RGB", (190, 180), (9, 8, 7))
    canvas.paste(picture, (30, 20))
    outside = np.asarray(canvas.resize((16, 16), FILTERS[kernel], box=(0.5, 0, 170.5, 170)))
    assert (resample_square(picture, square_quad(-29.5, -20, 170), 16, kernel, (9, 8, 7)) == outside).all()


@pytest.mark.parametrize("degrees", [0, 10, 30, 45, 67, 90])
@pytest.mark.parametrize("direction", [0, 45, 90])
@pytest.mark.parametrize("shrink", [2, 3, 5, 9])
def test_what_is_too_fine_goes_to_its_mean(degrees, direction, shrink):
    """A grating of two to three pixels a wave, in any direction, leaves no moire when a turned crop shrinks."""
    row, column = np.mgrid[:420, :420] + 0.5
    angle = math.radians(direction)
    wave = 2 * math.pi * 0.45 * (column * math.cos(angle) + row * math.sin(angle))
    grating = np.repeat((128 + 100 * np.cos(wave))[..., None], 3, 2).round().astype(np.uint8)
    quad = turned((210.2, 209.9), 28 * shrink, degrees)
    found = resample_square(Image.fromarray(grating), quad, 28, "lanczos", WHITE).astype(float)
    assert np.abs(found - 128).max() < 5


def test_a_checkerboard_does_not_fold_when_it_is_turned():
    """Its frequency is in the corner of what pixels can hold: higher along a turned axis than one grid can hold."""
    row, column = np.mgrid[:300, :300]
    board = np.where((row + column) % 2, 228, 28).astype(np.uint8)
    picture = Image.fromarray(np.repeat(board[..., None], 3, 2))
    found = resample_square(picture, turned((150, 150), 56, 45), 28, "lanczos", WHITE).astype(float)
    assert np.abs(found - 128).max() < 8


@pytest.mark.parametrize("degrees", [0, 12, 45])
def test_a_reflected_border_has_no_seam(degrees):
    """A slope goes on without a step, one colour stays one colour, and far away all is the median."""
    row, column = np.mgrid[:200, :200]
    slope = np.stack([column, row, (row + column) // 2], 2).astype(np.uint8)
    quad = turned((20, 30), 180, degrees)
    found = resample_square(Image.fromarray(slope), quad, 90, "bicubic", WHITE, REFLECT).astype(int)
    assert max(np.abs(np.diff(found, axis=axis)).max() for axis in (0, 1)) <= 4  # 2 pixels of the slope, turned
    flat = Image.new("RGB", (120, 90), (40, 90, 160))
    assert (resample_square(flat, quad, 40, "lanczos", WHITE, REFLECT) == (40, 90, 160)).all()
    corner = turned((-300, -300), 900, degrees)
    far = resample_square(Image.fromarray(photo()), corner, 60, "bilinear", WHITE, REFLECT)
    assert np.ptp(far[:15, :15].astype(int), axis=(0, 1)).max() <= 1


def test_reflection_is_sharp_inside_and_blurred_outside():
    pixels = photo()
    quad = turned((30, 80), 100, 8)
    found = resample_square(Image.fromarray(pixels), quad, 100, "bicubic", WHITE, REFLECT).astype(float)
    plain = resample_square(Image.fromarray(pixels), quad, 100, "bicubic", WHITE).astype(float)
    x, _ = places(quad, 100)
    assert np.abs(found - plain)[x > 3].max() <= 1
    assert (plain[x < -3] == 255).all()

    def texture(where: np.ndarray) -> float:
        fine = np.abs(np.diff(found, axis=1)).mean(2)
        return float(fine[where[:, 1:]].mean())

    assert texture(x < -8) < texture(x > 3) / 4


def test_inside_of_the_picture_the_border_does_not_matter():
    picture, quad = Image.fromarray(photo()), turned((80, 80), 60, 33)
    one, other = (resample_square(picture, quad, 32, "lanczos", WHITE, border) for border in ("background", REFLECT))
    assert (one == other).all()


def test_memory_is_bounded_by_the_resolution(monkeypatch):
    """A crop of 9,000 pixels a side that leaves the picture is turned at no more than twice REDUCING_GAP times 32."""
    sizes = []
    real = resample._extend

    def watched(*arguments):
        canvas, box = real(*arguments)
        sizes.append(canvas.size)
        return canvas, box

    monkeypatch.setattr(resample, "_extend", watched)
    picture = Image.new("RGB", (7000, 6000), (10, 200, 30))
    found = resample_square(picture, turned((2000, 2000), 9000, 20), 32, "lanczos", WHITE, REFLECT)
    assert (found == (10, 200, 30)).all()
    assert max(max(size) for size in sizes) < 2 * resample.REDUCING_GAP * 32 * 2
