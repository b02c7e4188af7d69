"""Adaptive discriminator augmentation's pipe: 18 transforms of real and generated pictures (Karras 2020)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from stages.trainer.ada.color import color_matrix, recolor
from stages.trainer.ada.corruption import add_noise, amplify_bands, band_gains, cut_out
from stages.trainer.ada.draws import NOWHERE, Parameters, draw_parameters
from stages.trainer.ada.geometry import acts, blit, blit_matrix, general_matrix, resample


def augment(pictures: Tensor, transforms: Sequence[str], p: float, random: torch.Generator) -> Tensor:
    """Apply transforms, each to each picture with probability p; differentiable, also twice.

    Takes and returns float pictures, shape (N, C, S, S) with C 1 or 3, for [-1, 1], in any memory format; half
    precision is computed in float32. A picture that drew nothing comes back bit for bit; p = 0 returns all as they
    are. `random` is a generator of the CPU, so that every device draws the same.

    Raises:
        ValueError: pictures are not square, or colour transforms meet other than 1 or 3 channels.
    """
    if p <= 0:
        return pictures
    if pictures.shape[-1] != pictures.shape[-2]:
        raise ValueError(f"pictures must be square; these are {pictures.shape[-2]} x {pictures.shape[-1]}")
    with torch.autocast(pictures.device.type, enabled=False):  # bf16 products would blur what the filters keep
        exact = pictures if pictures.dtype == torch.float64 else pictures.float()
        changed = apply(exact, draw_parameters(transforms, p, len(pictures), random), random)
    return pictures if changed is exact else changed.to(pictures.dtype)


def apply(pictures: Tensor, drawn: Parameters, random: torch.Generator) -> Tensor:
    """Apply what pictures drew, in the order geometry, colour, filters, noise, cutout."""
    count, channels, size, _ = pictures.shape
    moves, maps = blit_matrix(drawn, count, size), general_matrix(drawn, count, size)
    mapped, colors, gains = acts(maps), color_matrix(drawn, count, channels), band_gains(drawn, count)
    composed = moves @ maps
    pictures = _on(acts(moves) & ~mapped, pictures, lambda some, chosen: blit(some, moves[chosen]))
    pictures = _on(mapped, pictures, lambda some, chosen: resample(some, composed[chosen]))
    pictures = _on(acts(colors), pictures, lambda some, chosen: recolor(some, colors[chosen]))
    pictures = _on((gains != 1).any(1), pictures, lambda some, chosen: amplify_bands(some, gains[chosen]))
    if "noise" in drawn:
        deviation = drawn["noise"]
        pictures = _on(deviation > 0, pictures, lambda some, chosen: add_noise(some, deviation[chosen], random))
    if "cutout" in drawn:
        centre = drawn["cutout"]
        pictures = _on(centre[:, 0] != NOWHERE, pictures, lambda some, chosen: cut_out(some, centre[chosen]))
    return pictures


def _on(chosen: np.ndarray, pictures: Tensor, change: Callable[[Tensor, np.ndarray], Tensor]) -> Tensor:
    """Change the chosen pictures only: the others cost nothing and stay bit for bit."""
    if not chosen.any():
        return pictures
    by_channel = pictures.is_contiguous(memory_format=torch.channels_last)
    places = chosen.nonzero()[0]
    there = torch.from_numpy(places).to(pictures.device)
    changed = change(pictures.index_select(0, there).contiguous(), places)
    if len(places) < len(pictures):
        changed = pictures.index_copy(0, there, changed)
    return changed.contiguous(memory_format=torch.channels_last if by_channel else torch.contiguous_format)
