"""Decides which square of each picture is used; writes decisions and a preview, no pictures."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stages.catalogue import Picture, read_catalogue
from stages.crops import Crop, check_share, square_quad, write_crops
from stages.decoding import UnreadablePicture, content_mask, decode
from stages.settings import AlignSettings
from stages.sheet import sheet
from stages.storage import sha256_bytes, whole_folder
from stages.workers import map_pictures

PREVIEW_COUNT = 48
PREVIEW_SIZE = 96
FRAME_COLOUR = (230, 30, 90)
Background = tuple[int, int, int]


@dataclass(frozen=True)
class Decision:
    """A crop and, for the pictures of the preview sheet, the picture with the crop's frame drawn in."""

    quad: list[float]
    preview: np.ndarray | None


def run(
    settings: AlignSettings, background: Background, max_reject_share: float, workers: int, raw: Path, crops: Path
) -> None:
    """Write data/crops for the pictures of data/raw, the same bytes for any number of workers.

    Raises:
        InputError: data/raw is absent, or more than the allowed share of pictures is unreadable.
    """
    pictures = read_catalogue(raw)
    shown = set(sorted((p.key for p in pictures), key=lambda key: sha256_bytes(key.encode()))[:PREVIEW_COUNT])
    decide = partial(decide_crop, settings, background, shown)
    outcomes = map_pictures(raw, pictures, decide, workers, "aligning")
    table = [
        Crop(p.key, p.key, found.quad) if found else Crop(p.key, p.key, skipped=reason) for p, found, reason in outcomes
    ]
    skipped = [crop for crop in table if crop.skipped]
    check_share(skipped, len(table), max_reject_share)
    previews = [found.preview for _, found, _ in outcomes if found and found.preview is not None]
    with whole_folder(crops) as folder:
        write_crops(folder, table)
        sheet(np.stack(previews), columns=12, gap=4).save(folder / "preview.png")
    print(f"{len(table) - len(skipped)} crops by `{settings.mode}`, {len(skipped)} pictures set aside, in {crops}")


def decide_crop(
    settings: AlignSettings, background: Background, shown: set[str], picture: Picture, data: bytes
) -> Decision:
    """Decode one picture and choose its square.

    Raises:
        UnreadablePicture: it cannot be decoded, or is blank where content is asked for.
    """
    decoded = decode(data, background)
    left, top, side = choose_square(decoded, settings)
    preview = _draw_preview(decoded, left, top, side, background) if picture.key in shown else None
    return Decision(square_quad(left, top, side), preview)


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


def _draw_preview(picture: Image.Image, left: float, top: float, side: float, background: Background) -> np.ndarray:
    """Show a picture, centred on a square, with the frame of its crop."""
    scale = PREVIEW_SIZE / (1.2 * max(*picture.size, side))
    small = picture.resize([max(1, round(length * scale)) for length in picture.size], Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (PREVIEW_SIZE, PREVIEW_SIZE), background)
    x, y = ((PREVIEW_SIZE - length) // 2 for length in small.size)
    canvas.paste(small, (x, y))
    corners = (x + left * scale, y + top * scale, x + (left + side) * scale - 1, y + (top + side) * scale - 1)
    ImageDraw.Draw(canvas).rectangle(corners, outline=FRAME_COLOUR)
    return np.asarray(canvas)
