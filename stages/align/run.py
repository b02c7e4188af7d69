"""Decides which square of each picture is used; writes decisions and a preview, no pictures."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from stages.align.preview import draw_preview
from stages.catalogue import Picture, read_catalogue
from stages.crops import Crop, check_faceless, check_share, square_quad, write_crops
from stages.decoding import UnreadablePicture, content_mask, decode
from stages.errors import InputError
from stages.packages import fetch
from stages.settings import AlignSettings
from stages.sheet import sheet
from stages.storage import sha256_bytes, whole_folder
from stages.workers import map_pictures

PREVIEW_COUNT = 48
FACE_WEIGHTS = "facenet-pytorch"  # a data package
Background = tuple[int, int, int]


@dataclass(frozen=True)
class Decision:
    """The crops of a picture and, for the pictures of the preview sheet, how they lie in it."""

    crops: list[Crop]
    preview: np.ndarray | None


def run(
    settings: AlignSettings, background: Background, max_reject_share: float, workers: int, raw: Path, crops: Path
) -> None:
    """Write data/crops for the pictures of data/raw, the same bytes for any number of workers.

    Raises:
        InputError: data/raw is absent, more than the allowed share of pictures is unreadable or shows no face, or
            no picture is left.
        FetchError: the weights of mode `face` could not be fetched.
    """
    pictures = read_catalogue(raw)
    weights = fetch(FACE_WEIGHTS) if settings.mode == "face" else None
    shown = set(sorted((p.key for p in pictures), key=lambda key: sha256_bytes(key.encode()))[:PREVIEW_COUNT])
    decide = partial(decide_crops, settings, background, weights, shown)
    outcomes = map_pictures(raw, pictures, decide, workers, "aligning")
    table = [
        crop
        for picture, found, reason in outcomes
        for crop in (found.crops if found else [Crop(picture.key, picture.key, skipped=reason)])
    ]
    skipped = check_skipped(table, len(pictures), max_reject_share, settings.face.max_faceless_share)
    previews = [found.preview for _, found, _ in outcomes if found and found.preview is not None]
    with whole_folder(crops) as folder:
        write_crops(folder, table)
        if previews:
            sheet(np.stack(previews), columns=12, gap=4).save(folder / "preview.png")
    print(f"{len(table) - skipped} crops by `{settings.mode}`, {skipped} pictures set aside, in {crops}")


def check_skipped(table: list[Crop], pictures: int, max_reject_share: float, max_faceless_share: float) -> int:
    """Return how many pictures are set aside.

    Raises:
        InputError: too many are unreadable or show no face, or no crop is left.
    """
    skipped = [crop for crop in table if crop.skipped]
    check_share([crop for crop in skipped if not crop.faceless], pictures, max_reject_share)
    check_faceless([crop for crop in skipped if crop.faceless], pictures, max_faceless_share)
    if len(skipped) == len(table):
        raise InputError(f"none of {pictures} pictures is left, such as {skipped[0].key}: {skipped[0].skipped}")
    return len(skipped)


def decide_crops(
    settings: AlignSettings,
    background: Background,
    weights: Path | None,
    shown: set[str],
    picture: Picture,
    data: bytes,
) -> Decision:
    """Decode one picture and choose its squares; `weights` are needed by mode `face` alone.

    Raises:
        UnreadablePicture: it cannot be decoded, or is blank where content is asked for.
        InputError: the weights are damaged.
    """
    decoded = decode(data, background)
    if weights:
        from stages.align.faces import crop_faces  # torch takes seconds to load, which other modes need not wait for

        crops = crop_faces(weights, settings.face, picture.key, decoded)
    else:
        crops = [Crop(picture.key, picture.key, square_quad(*choose_square(decoded, settings)))]
    return Decision(crops, draw_preview(decoded, crops, background) if picture.key in shown else None)


def choose_square(picture: Image.Image, settings: AlignSettings) -> tuple[float, float, float]:
    """Return left, top and side in pixels of the square that a mode chooses; it may reach outside the picture.

    Raises:
        UnreadablePicture: mode `content` finds nothing that differs from the border.
    """
    width, height = picture.size
    if settings.mode == "none":
        return _centred(0, 0, width, height, max(width, height))
    if settings.mode == "center":
        return _centred(0, 0, width, height, min(width, height))
    mask = content_mask(picture, settings.threshold)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise UnreadablePicture("blank: nothing differs from the border")
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return _centred(*box, max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * settings.margin))


def _centred(left: float, top: float, right: float, bottom: float, side: float) -> tuple[float, float, float]:
    return (left + right - side) / 2, (top + bottom - side) / 2, side
