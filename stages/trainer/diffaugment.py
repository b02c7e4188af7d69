"""DiffAugment: differentiable augmentation of real and generated pictures (Zhao 2020, arXiv 2006.10738).

Formulas and ranges follow section 3 and the authors' published settings; each transform acts per picture with
probability p (1 in the paper).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

BRIGHTNESS = 0.5  # added: U(-0.5, 0.5), pictures in [-1, 1]
SATURATION = 2.0  # factor: U(0, 2) about the pixel's grey
CONTRAST = (0.5, 1.5)  # factor about the picture's mean
SHIFT = 1 / 8  # of the side, either way
CUTOUT = 1 / 2  # side of the box, of the picture's side


def uniform(pictures: Tensor, low: float, high: float, random: torch.Generator) -> Tensor:
    """Draw one number per picture from U(low, high), shape (N, 1, 1, 1), on the pictures' device."""
    drawn = torch.rand(len(pictures), 1, 1, 1, generator=random) * (high - low) + low
    return drawn.to(pictures.device, pictures.dtype)


def change_color(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Change brightness, saturation and contrast."""
    pictures = pictures + uniform(pictures, -BRIGHTNESS, BRIGHTNESS, random)
    grey = pictures.mean(dim=1, keepdim=True)
    pictures = grey + (pictures - grey) * uniform(pictures, 0, SATURATION, random)
    mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (pictures - mean) * uniform(pictures, *CONTRAST, random)


def translate(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Shift by whole pixels up to an eighth of the side; what comes in is 0, mid-grey."""
    size = pictures.shape[-1]
    reach = int(size * SHIFT + 0.5)
    shift = torch.randint(-reach, reach + 1, (len(pictures), 2), generator=random)
    rows, inside_rows = _shifted(shift[:, 0], size)
    columns, inside_columns = _shifted(shift[:, 1], size)
    pick = torch.arange(len(pictures))[:, None, None].to(pictures.device)
    moved = pictures.permute(0, 2, 3, 1)[
        pick, rows[:, :, None].to(pictures.device), columns[:, None].to(pictures.device)
    ]
    inside = (inside_rows[:, :, None] & inside_columns[:, None]).to(pictures.device)
    return (moved * inside[..., None]).permute(0, 3, 1, 2)


def _shifted(shift: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return for each picture the source index of every line and whether it lies inside."""
    source = torch.arange(size)[None] - shift[:, None]
    return source.clamp(0, size - 1), (source >= 0) & (source < size)


def cut_out(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Set a box of half the side to 0; its centre is anywhere in the picture."""
    size = pictures.shape[-1]
    box = int(size * CUTOUT + 0.5)
    corner = torch.randint(0, size + (1 - box % 2), (len(pictures), 2), generator=random) - box // 2
    line = torch.arange(size)[None]
    rows = (line >= corner[:, :1]) & (line < corner[:, :1] + box)
    columns = (line >= corner[:, 1:]) & (line < corner[:, 1:] + box)
    keep = ~(rows[:, :, None] & columns[:, None])
    return pictures * keep[:, None].to(pictures.device, pictures.dtype)


TRANSFORMS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "color": change_color,
    "translation": translate,
    "cutout": cut_out,
}


def augment(pictures: Tensor, transforms: Sequence[str], p: float, random: torch.Generator) -> Tensor:
    """Apply transforms in order, each to every picture with probability p; differentiable, also twice.

    Takes and returns float pictures, shape (N, C, H, W), for [-1, 1]; p = 0 returns them as they are.
    """
    if p <= 0:
        return pictures
    for name in transforms:
        changed = TRANSFORMS[name](pictures, random)
        if p < 1:
            chosen = torch.rand(len(pictures), 1, 1, 1, generator=random) < p
            changed = torch.where(chosen.to(pictures.device), changed, pictures)
        pictures = changed
    return pictures
