"""Whether generated pictures carry the pattern that upsampling leaves: peaks at the upsampling frequencies.

A transposed convolution whose kernel overlaps unevenly draws a checkerboard (Odena et al. 2016, "Deconvolution and
checkerboard artifacts"): a peak at period 2, after one more upsampling at period 4, in the mean log power spectrum
(Zhang et al. 2019, "Detecting and simulating artifacts in GAN fake images"; Durall et al. 2020, "Watch your
up-convolution").
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import InputError

PATCH = 16  # pixels
STRIDE = 8
# (vertical, horizontal) in cycles per patch: 8 is period 2, 4 and 12 (another direction of the diagonal) period 4
FREQUENCIES = ((0, 8), (8, 0), (8, 8), (0, 4), (4, 0), (4, 4), (4, 12), (4, 8), (8, 4))
# what is expected at a frequency from those beside it, as weights. Period 4: a parabola through those two and three
# away, so that neither a slope nor the fall of a blur counts. Period 2, the last frequency: no more than before it. One
# away, the window would show the peak itself.
BESIDE = {
    4: ((2, 0.9), (6, 0.9), (1, -0.4), (7, -0.4)),
    8: ((6, 1.0),),
    12: ((10, 0.9), (14, 0.9), (9, -0.4), (15, -0.4)),
}
PERIODS = {0: None, 4: 4, 8: 2, 12: 4}  # pixels
ROUNDING = 1 / 12  # the power, in squared grey levels, that rounding to integers adds at every frequency
DECIBEL = 10 / np.log(10)
SURE = 3.0  # standard errors; nine frequencies are looked at
STRONG = 3.0  # dB: the pattern has as much power as all that pictures show at its frequency


@dataclass(frozen=True)
class Spectra:
    """The mean log power of a set, dB over 1 squared grey level, and each picture's peaks over their neighbourhood.

    `power` has shape (H, W), zero frequency in the corner; `excess` is in dB, shape (N, len(FREQUENCIES)).
    """

    power: np.ndarray
    excess: np.ndarray

    def radial(self) -> np.ndarray:
        """Return the mean of `power` over all directions, at periods of H / 0 to H / (H / 2) pixels, (H / 2 + 1,)."""
        height, width = self.power.shape
        along = [np.abs(np.fft.fftfreq(size)) * height for size in (height, width)]
        radius = np.rint(np.hypot(along[0][:, None], along[1])).astype(int)
        sums = np.bincount(radius.ravel(), self.power.ravel())
        radial: np.ndarray = (sums / np.maximum(np.bincount(radius.ravel()), 1))[: height // 2 + 1]
        return radial


@dataclass(frozen=True)
class Peak:
    """The excess at one frequency, dB, of generated and of real pictures; `error` is that of their difference."""

    frequency: tuple[int, int]
    generated: float
    real: float
    error: float

    @property
    def difference(self) -> float:
        """Return by how much the generated peak exceeds the real one, and no peak: real pictures may lack power there.

        Without the second, mere noise would exceed pictures whose resampling filter has cut that frequency off.
        """
        return self.generated - max(self.real, 0.0)

    @property
    def found(self) -> bool:
        """Whether there is a peak that real pictures lack: surely, and strong enough to matter."""
        return self.difference > max(SURE * self.error, STRONG)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; periods are in pixels, null where the pattern is constant along that axis."""
        periods = {axis: PERIODS[part] for axis, part in zip("yx", self.frequency, strict=True)}
        values = {"generated": self.generated, "real": self.real, "difference": self.difference, "error": self.error}
        return {"period_y": periods["y"], "period_x": periods["x"], **values, "found": self.found}


@dataclass(frozen=True)
class Checkerboard:
    """The peaks at all upsampling frequencies, and both radial profiles (dB, by frequency in cycles per picture)."""

    peaks: tuple[Peak, ...]
    radial_generated: np.ndarray
    radial_real: np.ndarray

    @property
    def worst(self) -> Peak:
        """Return the peak that is highest over that of real pictures."""
        return max(self.peaks, key=lambda peak: peak.difference)

    @property
    def found(self) -> bool:
        """Whether any peak shows the pattern."""
        return any(peak.found for peak in self.peaks)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        radial = {"generated": self.radial_generated.tolist(), "real": self.radial_real.tolist()}
        peaks = [peak.to_json() for peak in self.peaks]
        return {"found": self.found, "worst": self.worst.to_json(), "peaks": peaks, "radial": radial}


def measure_checkerboard(generated: Iterable[np.ndarray], real: Iterable[np.ndarray]) -> Checkerboard:
    """Compare the peaks of two sets, each in batches of pictures in [0, 255], shape (N, C, H, W), of one size.

    Raises:
        InputError: sizes differ or are below 16 pixels, or a set has fewer than two pictures.
    """
    drawn, true = measure_spectra("generated pictures", generated), measure_spectra("real pictures", real)
    if drawn.power.shape != true.power.shape:
        raise InputError(
            f"generated pictures measure {_size(drawn.power.shape)} pixels and real ones {_size(true.power.shape)}; "
            "give both in one size, as resizing makes and hides such patterns"
        )
    peaks = []
    for position, frequency in enumerate(FREQUENCIES):
        mine, theirs = drawn.excess[:, position], true.excess[:, position]
        error = math.hypot(*(column.std(ddof=1) / math.sqrt(len(column)) for column in (mine, theirs)))
        peaks.append(Peak(frequency, float(mine.mean()), float(theirs.mean()), error))
    return Checkerboard(tuple(peaks), drawn.radial(), true.radial())


def measure_spectra(name: str, batches: Iterable[np.ndarray]) -> Spectra:
    """Return the spectra of batches of pictures in [0, 255], shape (N, C, H, W).

    Raises:
        InputError: pictures are of several sizes, below 16 pixels or not finite, or fewer than two.
    """
    total, excess, shape = np.zeros(()), [], None
    for batch in batches:
        _check(name, batch, shape)
        shape = batch.shape[1:]
        total = total + log_power(batch).sum(axis=0)
        excess.append(peak_excess(patch_power(batch)))
    count = sum(len(part) for part in excess)
    if count < 2:
        raise InputError(f"there are {count} {name}; expected two or more to tell a pattern from one picture's content")
    return Spectra(total / count, np.concatenate(excess))


def log_power(pictures: np.ndarray) -> np.ndarray:
    """Return each picture's log power spectrum averaged over its channels, dB, shape (N, H, W), from (N, C, H, W).

    The power is |F|^2 / (H W), so that white noise of variance v has v everywhere. That of rounding is added, or exact
    zeros of plain pictures would rule the mean.
    """
    spectrum = np.fft.fft2(pictures.astype(np.float64), norm="ortho")
    power: np.ndarray = DECIBEL * np.log(np.square(np.abs(spectrum)) + ROUNDING).mean(axis=1)
    return power


def patch_power(pictures: np.ndarray) -> np.ndarray:
    """Return each picture's log power over small patches, dB, shape (N, 16, 16), from (N, C, H, W) (Welch 1967).

    Patches, since the two halves of a symmetric picture cancel at period 2 in its whole spectrum, as the halves of
    drawings do, where those of generated pictures differ slightly.
    """
    along = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(PATCH) / PATCH)
    window = np.outer(along, along)
    window /= np.linalg.norm(window)
    height, width = pictures.shape[2:]
    total, patches = np.zeros((len(pictures), PATCH, PATCH)), 0
    for top in range(0, height - PATCH + 1, STRIDE):
        for left in range(0, width - PATCH + 1, STRIDE):
            patch = pictures[:, :, top : top + PATCH, left : left + PATCH].astype(np.float64)
            spectrum = np.fft.fft2((patch - patch.mean(axis=(2, 3), keepdims=True)) * window)
            total += np.square(np.abs(spectrum)).mean(axis=1)
            patches += 1
    power: np.ndarray = DECIBEL * np.log(total / patches + ROUNDING)
    return power


def peak_excess(power: np.ndarray) -> np.ndarray:
    """Return by how many dB each upsampling frequency exceeds what those beside it lead to expect, (N, 9).

    Takes the log power of patches, (N, 16, 16). Expected is the mean over both axes; for a frequency on an axis that
    along the axis alone, which edges make stronger than all beside it.
    """
    columns = []
    for row, column in FREQUENCIES:
        down = [(beside, column, weight) for beside, weight in BESIDE.get(row, ())]
        across = [(row, beside, weight) for beside, weight in BESIDE.get(column, ())]
        axes = bool(down) + bool(across)
        expected = np.sum([power[:, y, x] * weight for y, x, weight in down + across], axis=0) / axes
        columns.append(power[:, row, column] - expected)
    return np.stack(columns, axis=1)


def _check(name: str, batch: np.ndarray, shape: tuple[int, ...] | None) -> None:
    if batch.ndim != 4 or min(batch.shape[2:]) < PATCH:
        raise InputError(f"{name} have shape {batch.shape}; expected (N, C, H, W) of at least {PATCH} pixels a side")
    if shape is not None and batch.shape[1:] != shape:
        raise InputError(f"{name} are of several shapes, {shape} and {batch.shape[1:]}; expected one size and mode")
    if not np.isfinite(batch).all():
        raise InputError(f"{name} hold NaN or infinity")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"
