"""Turns every cropped picture into a square uint8 one and writes the data contract of data/images."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from stages.catalogue import ORIGIN, Picture, read_catalogue
from stages.crops import Crop, check_share, read_crops
from stages.dataset import split_of
from stages.decoding import read_picture
from stages.errors import InputError
from stages.normalize.collect import Collected, Normalized, Reading, collect
from stages.normalize.duplicates import near_duplicates, perceptual_hash
from stages.normalize.findings import find_all
from stages.normalize.groups import Grouping, Member, Near, group_members
from stages.normalize.known import Known, digest_of, read_known
from stages.normalize.page import page
from stages.normalize.resample import resample_square
from stages.normalize.shards import Item, write_dataset
from stages.settings import NormalizeSettings
from stages.sheet import sheet
from stages.storage import check_free, read_json, sha256_bytes, whole_folder, write_bytes, write_json
from stages.workers import stream_pictures

SAMPLE_COUNT = 96
SAMPLE_SIDE = 64  # pixels of a picture on the sheet: smaller ones are enlarged to it, larger ones reduced
KEPT_SHARE = 2.0  # of the target's side: what a JPEG is decoded to at least, so that the chosen filter still decides
Wanted = dict[str, list[Crop]]


def run(settings: NormalizeSettings, max_reject_share: float, raw: Path, crops: Path, lock: Path, images: Path) -> None:
    """Write data/images from data/raw, data/crops and what earlier versions of the data decided.

    The bytes are the same for any number of workers and order of files.

    Raises:
        InputError: an earlier stage has not run, too many pictures are unreadable, or a split is empty.
        ResourceError: the disk is too small, or a worker ran out of memory.
    """
    pictures, decisions, known = read_catalogue(raw), read_crops(crops), read_known(lock)
    wanted = {key: [crop for crop in found if not crop.skipped] for key, found in decisions.items()}
    skipped = {crop.key: crop.skipped for found in decisions.values() for crop in found if crop.skipped}
    usable = [picture for picture in pictures if wanted.get(picture.key)]
    check_free(images, 2 * 3 * settings.resolution**2 * sum(map(len, wanted.values())), "normalizing")
    outcomes = stream_pictures(
        raw, usable, partial(normalize_picture, settings, wanted), settings.workers, "normalizing"
    )
    with whole_folder(images) as folder, collect(outcomes, folder) as collected:
        unreadable = [Crop(key, key, skipped=reason) for key, reason in sorted(collected.rejects.items())]
        check_share(unreadable, len(pictures), max_reject_share)
        source = read_json(raw / ORIGIN, "run `python -m stages.download`")["source"]
        summary = write_images(folder, source, collected, known, settings, skipped)
    print(f"{summary} in {images}")


def normalize_picture(settings: NormalizeSettings, wanted: Wanted, picture: Picture, data: bytes) -> Reading:
    """Decode one picture, crop and resample it.

    Crops are in pixels of the whole picture. A JPEG that is far larger than the target is decoded at a half, a
    quarter or an eighth of its size, but to at least twice the target's side, and the crops are scaled with it.

    Raises:
        UnreadablePicture: it cannot be decoded.
    """
    crops = wanted[picture.key]
    decoded = read_picture(data, settings.background, min(map(side_of, crops)) / (KEPT_SHARE * settings.resolution))
    results = {}
    for crop in crops:
        quad = [coordinate / decoded.scale for coordinate in crop.quad]
        look = settings.resolution, settings.filter, settings.background, crop.border
        pixels = resample_square(decoded.picture, quad, *look)
        results[crop.key] = Normalized(pixels, 0 if settings.duplicate_bits is None else perceptual_hash(pixels))
    width, height = (side * decoded.scale for side in decoded.picture.size)
    return Reading(sha256_bytes(data), width, height, decoded.ignored, results)


def side_of(crop: Crop) -> float:
    """Return the length of a crop's first side, in pixels of the picture."""
    x0, y0, x1, y1 = crop.quad[:4]
    return float(np.hypot(x1 - x0, y1 - y0))


def write_images(
    folder: Path,
    source: str,
    collected: Collected,
    known: Known,
    settings: NormalizeSettings,
    skipped: dict[str, str],
) -> str:
    """Group what was collected, write all files of data/images, and return a summary of one line.

    Raises:
        InputError: no picture is left, or a split is empty.
    """
    pixels = collected.pixels(settings.resolution)
    near = find_near(pixels, collected, settings)
    grouping = group_files(collected, near, known, settings)
    items = name_items(collected, grouping)
    if not items:
        raise InputError("no picture is left for data/images; data/crops/preview.png and rejects of `align` tell why")
    classes = known.ordered(source, {item.picture.class_name for item in items} - {""})
    written = write_dataset(folder, source, items, pixels, classes, settings)
    check_splits(written.description["splits"], settings)
    rejects = dict(sorted((skipped | collected.rejects | grouping.set_aside).items()))
    write_json(folder / "rejects.json", rejects)
    sheet(_sample(items, pixels), columns=16, zoom=max(1, SAMPLE_SIDE // settings.resolution)).save(
        folder / "samples.png"
    )
    findings = find_all(written, collected, grouping, near, rejects)
    write_json(folder / "report.json", findings)
    write_bytes(folder / "report.html", page(findings, pixels, {i.picture.key: i.position for i in items}).encode())
    aside = f", {len(rejects)} set aside" if rejects else ""
    return f"{len(items)} pictures of {settings.resolution} px ({written.description['splits']}){aside}"


def find_near(pixels: np.ndarray, collected: Collected, settings: NormalizeSettings) -> Near:
    """Return for each look which others nearly agree with it; none where only identical pixels count."""
    near: Near = {}
    if settings.duplicate_bits is not None:
        hashes = np.array(collected.hashes, np.uint64)
        for first, second, bits in near_duplicates(pixels, hashes, settings.duplicate_bits):
            near.setdefault(first, []).append((second, bits))
            near.setdefault(second, []).append((first, bits))
    return near


def group_files(collected: Collected, near: Near, known: Known, settings: NormalizeSettings) -> Grouping:
    """Return every file's group; all crops of a file share it."""
    members = [
        Member(file.picture.key, digest_of(file.sha256), tuple(file.crops.values()), file.picture.group)
        for file in collected.files
    ]
    return group_members(members, near, known.groups, lambda group: split_of(group, settings.salt, settings.holdout))


def name_items(collected: Collected, grouping: Grouping) -> list[Item]:
    """Return the pictures of the data set: every crop of every file that is not set aside, by its own key."""
    return [
        Item(replace(file.picture, key=key), file.sha256, look, grouping.names[file.picture.key])
        for file in collected.files
        if file.picture.key in grouping.names
        for key, look in file.crops.items()
    ]


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


def _sample(items: list[Item], pixels: np.ndarray) -> np.ndarray:
    """Return pictures chosen by hash of their key, so that the sheet shows all kinds and stays the same."""
    chosen = sorted(items, key=lambda item: sha256_bytes(item.picture.key.encode()))[:SAMPLE_COUNT]
    step = max(1, pixels.shape[1] // SAMPLE_SIDE)
    return np.stack([np.asarray(Image.fromarray(pixels[item.position]).reduce(step)) for item in chosen])
