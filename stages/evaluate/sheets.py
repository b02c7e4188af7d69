"""The pictures that evaluate leaves: uncurated samples, closest pairs, interpolations, other ways to sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from stages.dataset import to_uint8
from stages.evaluate.conditioning import in_turn
from stages.evaluate.page.content import ModelReport
from stages.evaluate.unseen import memorisation
from stages.evaluate.unseen.examination import Unseen
from stages.evaluate.unseen.sampling import Sampling
from stages.generators.interface import Generator
from stages.sheet import sheet

SHEET_PICTURES = 64
SHEET_COLUMNS = 8
SHEET_PIXELS = 600


def samples(generator: Generator, batch: int, captions: Sequence[str] = ()) -> np.ndarray:
    """Return the pictures of seeds 0 to 63, uncurated, uint8 (64, H, W, C).

    Classes take turns where there are any; prompts are captions, evenly apart.
    """
    seeds = range(SHEET_PICTURES)
    drawn = np.concatenate(list(in_turn(generator, seeds, captions).draw(seeds, batch)))
    return to_uint8(drawn).transpose(0, 2, 3, 1)


def sample_sheet(pictures: np.ndarray) -> Image.Image:
    """Lay samples out in rows of eight, about 600 pixels wide."""
    return sheet(pictures, columns=SHEET_COLUMNS, zoom=zoom_of(SHEET_COLUMNS * pictures.shape[2]))


def pair_sheet(pairs: list[tuple[np.ndarray, np.ndarray, float, str]]) -> Image.Image:
    """Lay out each generated picture beside the training picture that it is closest to."""
    generated, train = (np.stack([pair[side] for pair in pairs]).transpose(0, 3, 1, 2) for side in (0, 1))
    return memorisation.pair_sheet(generated, train, zoom=zoom_of(SHEET_COLUMNS * generated.shape[2]))


def strip_sheet(strips: np.ndarray) -> Image.Image:
    """Lay out interpolations and other grids, uint8 (rows, columns, H, W, C)."""
    rows, columns, *shape = strips.shape
    return sheet(strips.reshape(rows * columns, *shape), columns=columns, zoom=zoom_of(columns * shape[1]))


def zoom_of(width: int) -> int:
    """Return how often a pixel is repeated so that a sheet is about 600 pixels wide."""
    return max(1, round(SHEET_PIXELS / width))


def content_of(
    report: dict[str, Any], unseen: Unseen, sampling: Sampling, drawn: np.ndarray, curve: list[dict[str, Any]]
) -> ModelReport:
    """Return what the model's page shows; of the training only what does not change from run to run."""
    record = {"kimg": curve[-1]["kimg"]} if curve else None
    return ModelReport(
        report["model"],
        report,
        drawn,
        unseen.pairs,
        unseen.strips,
        record=record,
        sheets=sampling.sheets,
        mixing=unseen.mixing,
        walk=unseen.walk,
    )
