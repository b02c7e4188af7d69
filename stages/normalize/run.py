"""Turns every cropped picture into a square uint8 one and writes the data contract of data/images."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from stages.catalogue import Picture, read_catalogue
from stages.crops import Crop, check_share, read_crops
from stages.decoding import decode
from stages.errors import InputError
from stages.normalize.resample import resample_square
from stages.normalize.shards import Normalized, write_dataset
from stages.settings import NormalizeSettings
from stages.sheet import sheet
from stages.storage import sha256_bytes, whole_folder, write_json
from stages.workers import map_pictures

SAMPLE_COUNT = 96


def run(settings: NormalizeSettings, max_reject_share: float, raw: Path, crops: Path, images: Path) -> None:
    """Write data/images from data/raw and data/crops, the same bytes for any number of workers and order of files.

    Raises:
        InputError: an earlier stage has not run, too many pictures are unreadable, or a split is empty.
    """
    pictures, decisions = read_catalogue(raw), read_crops(crops)
    wanted = {key: [crop for crop in found if not crop.skipped] for key, found in decisions.items()}
    usable = [p for p in pictures if wanted.get(p.key)]
    function = partial(normalize_picture, settings, wanted)
    outcomes = map_pictures(raw, usable, function, settings.workers, "normalizing")
    unreadable = [Crop(picture.key, picture.key, skipped=reason) for picture, _, reason in outcomes if reason]
    check_share(unreadable, len(pictures), max_reject_share)
    rejects = [crop for found in decisions.values() for crop in found if crop.skipped] + unreadable
    items = [item for picture, found, _ in outcomes if found for item in _named(picture, found)]
    with whole_folder(images) as folder:
        description = write_dataset(folder, items, settings)
        check_splits(description["splits"], settings)
        write_json(folder / "rejects.json", {crop.key: crop.skipped for crop in rejects})
        sheet(_sample(items), columns=16, zoom=2).save(folder / "samples.png")
    print(f"{len(items)} pictures of {settings.resolution} px ({description['splits']}) in {images}")


def normalize_picture(
    settings: NormalizeSettings, wanted: dict[str, list[Crop]], picture: Picture, data: bytes
) -> dict[str, Normalized]:
    """Decode one picture, crop and resample it; return a result for each of its crops by the crop's key.

    Raises:
        UnreadablePicture: it cannot be decoded.
    """
    decoded = decode(data, settings.background)
    digest = sha256_bytes(data)
    results = {}
    for crop in wanted[picture.key]:
        pixels = resample_square(decoded, crop.quad, settings.resolution, settings.filter, settings.background)
        results[crop.key] = Normalized(pixels, digest)
    return results


def _named(picture: Picture, found: dict[str, Normalized]) -> list[tuple[Picture, Normalized]]:
    """Return a picture's crops, each as a picture of its own key."""
    return [(replace(picture, key=key), normalized) for key, normalized in found.items()]


def check_splits(splits: dict[str, int], settings: NormalizeSettings) -> None:
    """Refuse a data set without training or hold-out pictures.

    Raises:
        InputError: one split is empty.
    """
    for split, count in splits.items():
        if count == 0:
            raise InputError(
                f"no picture fell into the {split} split (normalize.holdout is {settings.holdout}); "
                "add pictures or change normalize.holdout or normalize.salt"
            )


def _sample(items: list[tuple[Picture, Normalized]]) -> np.ndarray:
    """Return pictures chosen by hash of their key, so that the sheet shows all kinds and stays the same."""
    chosen = sorted(items, key=lambda item: sha256_bytes(item[0].key.encode()))[:SAMPLE_COUNT]
    return np.stack([found.pixels for _, found in chosen])
