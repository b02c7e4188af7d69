"""Every picture of data/raw, cropped and resampled once: pixels on disk, what is known of each in memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from stages.catalogue import Picture
from stages.storage import sha256_bytes
from stages.workers import Outcome

SPOOL = "pixels.spool"


@dataclass(frozen=True)
class Normalized:
    """One crop as models see it, uint8 HWC, with its perceptual hash (64 bits, or 0 where none is wanted)."""

    pixels: np.ndarray
    hash: int


@dataclass(frozen=True)
class Reading:
    """What one file gave: its sha256, its size in pixels, what of it was not heeded, its crops by their keys."""

    sha256: str
    width: int
    height: int
    ignored: str
    crops: dict[str, Normalized]


@dataclass(frozen=True)
class SourceFile:
    """One file and its crops: their keys, each with the number of what it looks like."""

    picture: Picture
    sha256: str
    width: int
    height: int
    ignored: str
    crops: dict[str, int]


class Collected:
    """All files, the perceptual hashes of what their crops look like, and why other files are set aside.

    Crops with identical pixels have one look, whose number is the place of its pixels in the spool.
    """

    def __init__(self, spool: IO[bytes]) -> None:
        self.files: list[SourceFile] = []
        self.hashes: list[int] = []
        self.rejects: dict[str, str] = {}
        self._spool = spool
        self._looks: dict[str, int] = {}

    def add(self, picture: Picture, reading: Reading) -> None:
        """Take in what one file gave."""
        crops = {key: self._look(crop) for key, crop in reading.crops.items()}
        size = reading.width, reading.height
        self.files.append(SourceFile(picture, reading.sha256, *size, reading.ignored, crops))

    def _look(self, crop: Normalized) -> int:
        data = crop.pixels.tobytes()
        number = self._looks.setdefault(sha256_bytes(data), len(self._looks))
        if number == len(self.hashes):
            self._spool.write(data)
            self.hashes.append(crop.hash)
        return number

    def pixels(self, resolution: int) -> np.ndarray:
        """Return the pixels of all looks, memory-mapped, uint8, shape (N, resolution, resolution, 3)."""
        self._spool.flush()
        shape = (len(self.hashes), resolution, resolution, 3)
        return np.memmap(self._spool.name, np.uint8, "r", shape=shape) if self.hashes else np.zeros(shape, np.uint8)


@contextmanager
def collect(outcomes: Iterable[Outcome], folder: Path) -> Iterator[Collected]:
    """Take in what workers yield; the pixels are in a file of the folder until the block ends."""
    spool = folder / SPOOL
    try:
        with spool.open("wb") as stream:
            collected = Collected(stream)
            for picture, reading, reason in outcomes:
                if reading is None:
                    collected.rejects[picture.key] = reason
                else:
                    collected.add(picture, reading)
            collected.files.sort(key=lambda file: file.picture.key)
            yield collected
    finally:
        spool.unlink(missing_ok=True)
