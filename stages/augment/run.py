"""Writes the augmentation policy that training obeys, what it means for this data, and how it looks."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from stages.dataset import ImageDataset, to_uint8
from stages.errors import InputError
from stages.settings import AugmentSettings
from stages.sheet import sheet
from stages.storage import whole_folder, write_json

STRENGTHS = (0.0, 0.25, 0.5, 1.0)
COLUMNS = 16
SMALL_DATA = 10_000  # pictures; below it discriminators memorise (Karras 2020, figure 1; Zhao 2020, table 5)
ZOOM_TO = 64  # pixels of a picture on the sheet
LABEL_WIDTH = 70


def run(settings: AugmentSettings, images: Path, augment: Path) -> None:
    """Write data/augment/policy.json and a preview sheet.

    Raises:
        InputError: data/images is absent, or a transform cannot suit the data.
    """
    dataset = ImageDataset(images, "train")
    check_transforms(settings, dataset.channels)
    advice = advise(settings, len(dataset))
    with whole_folder(augment) as folder:
        write_json(folder / "policy.json", policy(settings) | {"pictures": len(dataset), "advice": advice})
        preview(settings, dataset).save(folder / "preview.png")
    for line in advice:
        print(f"augment: {line}")


def policy(settings: AugmentSettings) -> dict[str, Any]:
    """Return what training obeys: kind, transforms, p, target of r_t, mirror."""
    transforms = [] if settings.kind == "none" else list(settings.transforms)
    p = 0.0 if settings.kind == "none" else settings.p
    return {
        "kind": settings.kind,
        "transforms": transforms,
        "p": p,
        "target": settings.target,
        "mirror": settings.mirror,
    }


def check_transforms(settings: AugmentSettings, channels: int) -> None:
    """Refuse transforms that the data makes impossible.

    Raises:
        InputError: colour changes on pictures without colour.
    """
    if settings.kind != "none" and "color" in settings.transforms and channels == 1:
        raise InputError("augment.transforms has color, but the pictures have one channel; take it out")


def advise(settings: AugmentSettings, count: int) -> list[str]:
    """Say what the number of training pictures suggests."""
    if count < SMALL_DATA and settings.kind == "none":
        return [
            f"{count} training pictures are few: a discriminator learns them by heart; set augment.kind: diffaugment"
        ]
    if count < SMALL_DATA:
        return [f"{count} training pictures: augmentation is worth its cost ({', '.join(settings.transforms)})"]
    return [f"{count} training pictures: augmentation may be weakened (augment.p below {settings.p})"]


def preview(settings: AugmentSettings, dataset: ImageDataset) -> Image.Image:
    """Draw the same pictures at several strengths, a row each, the strength written beside it."""
    count = min(COLUMNS, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).astype(int)
    rows = [to_uint8(_augmented(settings, dataset.pictures(chosen), p)).transpose(0, 2, 3, 1) for p in STRENGTHS]
    zoom = max(1, ZOOM_TO // dataset.resolution)
    body = sheet(np.concatenate(rows), columns=count, zoom=zoom, gap=2).convert("RGB")
    canvas = Image.new("RGB", (body.width + LABEL_WIDTH, body.height), "white")
    canvas.paste(body, (LABEL_WIDTH, 0))
    for row, p in enumerate(STRENGTHS):
        ImageDraw.Draw(canvas).text((6, (row + 0.4) * body.height / len(STRENGTHS)), f"p = {p}", fill="black")
    return canvas


def _augmented(settings: AugmentSettings, pictures: np.ndarray, p: float) -> np.ndarray:
    import torch

    from stages.trainer.diffaugment import augment

    transforms = policy(settings)["transforms"]
    changed = augment(torch.from_numpy(pictures), transforms, p, torch.Generator().manual_seed(0))
    return changed.numpy()
