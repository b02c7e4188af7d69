"""Shows what a policy does: the same pictures at several strengths, and for ADA each group of transforms alone."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from stages.dataset import ImageDataset, to_uint8
from stages.settings import AugmentSettings
from stages.settings.augment import ADA_SETS
from stages.sheet import sheet
from stages.trainer import diffaugment
from stages.trainer.ada import pipe

COLUMNS = 16
ZOOM_TO = 64  # pixels of a picture on the sheet
LABEL_WIDTH = 90
STRENGTHS = {"none": (0.0,), "diffaugment": (0.0, 0.25, 0.5, 1.0), "ada": (0.0, 0.25, 0.5, 0.8)}
GROUPS = ("blit", "geom", "color", "filter", "noise", "cutout")
Row = tuple[str, tuple[str, ...], float]  # label, transforms, p


def preview(settings: AugmentSettings, dataset: ImageDataset) -> Image.Image:
    """Draw the same pictures in rows, each row's label beside it."""
    count = min(COLUMNS, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).astype(int)
    pictures = torch.from_numpy(dataset.pictures(chosen))
    augment = diffaugment.augment if settings.kind == "diffaugment" else pipe.augment
    rows = preview_rows(settings)
    drawn = np.concatenate([_drawn(augment, pictures, transforms, p) for _, transforms, p in rows])
    body = sheet(drawn, columns=count, zoom=max(1, ZOOM_TO // dataset.resolution), gap=2).convert("RGB")
    return labelled(body, [label for label, _, _ in rows])


def preview_rows(settings: AugmentSettings) -> list[Row]:
    """Return the rows of a policy's preview: its strengths, then each of ADA's groups alone at p = 1."""
    rows: list[Row] = [(f"p = {p}", settings.transforms, p) for p in STRENGTHS[settings.kind]]
    if settings.kind == "ada":
        for name in GROUPS:
            group = tuple(each for each in settings.transforms if each in ADA_SETS[name])
            rows += [(f"{name}, p = 1", group, 1.0)] if group else []
    return rows


def labelled(body: Image.Image, labels: list[str]) -> Image.Image:
    """Put a column of labels to the left of a sheet with as many rows."""
    canvas = Image.new("RGB", (body.width + LABEL_WIDTH, body.height), "white")
    canvas.paste(body, (LABEL_WIDTH, 0))
    for row, label in enumerate(labels):
        ImageDraw.Draw(canvas).text((6, (row + 0.4) * body.height / len(labels)), label, fill="black")
    return canvas


def _drawn(augment: Callable[..., Tensor], pictures: Tensor, transforms: tuple[str, ...], p: float) -> np.ndarray:
    changed = augment(pictures, transforms, p, torch.Generator().manual_seed(0))
    return to_uint8(changed.numpy()).transpose(0, 2, 3, 1)
