"""A walk through the latent space as a film: a grid of walks, each by way of several latents and back to the first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stages.dataset import to_uint8
from stages.evaluate.conditioning import Conditions, conditions_in_turn
from stages.evaluate.unseen.latent_space import draw_paths, slerp
from stages.evaluate.video import FRAMES_PER_SECOND, encode, ffmpeg
from stages.generators.interface import Capabilities, Generator
from stages.generators.noise import latents

LATENTS = 6  # that a walk passes, one a second
MOST_WALKS = 4  # side by side
GRID_PIXELS = 512  # of the grid's side, above which there are fewer walks
SMALLEST_PIXELS = 256  # of the film's side
FINE = 128  # pixels of a picture from which on halved colours are no loss to see


@dataclass(frozen=True)
class Walk:
    """What is told of the film in the report, and the film, an MP4; both empty of a generator that draws in steps."""

    part: dict[str, Any] = field(default_factory=dict)
    film: bytes = b""


def can_walk(capabilities: Capabilities) -> bool:
    """Return whether a walk is worth its pictures: thousands of a generator that draws in one pass."""
    return capabilities.steps is None


def check_walk(capabilities: Capabilities) -> None:
    """Refuse what a walk would end with before anything is drawn.

    Raises:
        InputError: a walk will be filmed, and there is no ffmpeg for it.
    """
    if can_walk(capabilities):
        ffmpeg()


def film_walk(generator: Generator, batch: int) -> Walk:
    """Film a generator's latent space: walks of the seeds from 0 on, which begin as the sheet of samples does.

    A conditional generator keeps one class along each walk, classes take turns.

    Raises:
        GateError: the generator draws NaN or infinity.
        InputError: there is no ffmpeg for it.
    """
    takes = generator.capabilities
    if not can_walk(takes):
        return Walk()
    side = walks_beside(takes.resolution)
    film = encode(_frames(generator, side, batch), side * takes.resolution, zoom_of(side, takes.resolution))
    about = {"walks": side**2, "latents": LATENTS, "frames": LATENTS * FRAMES_PER_SECOND + 1}
    return Walk({"walk": about | {"frames_per_second": FRAMES_PER_SECOND}}, film)


def walks_beside(resolution: int) -> int:
    """Return how many walks are side by side in a film, and as many below one another."""
    return max(1, min(MOST_WALKS, GRID_PIXELS // resolution))


def zoom_of(side: int, resolution: int) -> int:
    """Return how often a pixel is repeated: films hold one colour for two by two, and tiny ones are hard to see."""
    return max(1 if resolution >= FINE else 2, SMALLEST_PIXELS // (side * resolution))


def walk_path(count: int, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the latents (count, *shape) of each frame, float32; the last are the first again.

    Walk i passes the latents of the seeds i, i + count, i + 2 count, ...
    """
    stops = [latents(range(count * stop, count * (stop + 1)), shape) for stop in range(LATENTS)]
    for here, there in zip(stops, [*stops[1:], stops[0]], strict=True):
        yield here
        for frame in range(1, FRAMES_PER_SECOND):
            yield slerp(here, there, frame / FRAMES_PER_SECOND)
    yield stops[0]


def _frames(generator: Generator, side: int, batch: int) -> Iterator[np.ndarray]:
    """Yield frames, uint8 (N, side H, side W, 3), as many at a time as a batch of pictures makes."""
    takes, walks = generator.capabilities, side**2
    conditions = conditions_in_turn(takes, walks)
    held: list[np.ndarray] = []
    for latent in walk_path(walks, takes.latent_shape):
        held.append(latent)
        if len(held) * walks >= batch:
            yield _drawn(generator, held, side, conditions)
            held = []
    if held:
        yield _drawn(generator, held, side, conditions)


def _drawn(generator: Generator, held: Sequence[np.ndarray], side: int, conditions: Conditions) -> np.ndarray:
    pictures = to_uint8(draw_paths(generator, np.concatenate(held), conditions))
    _, channels, height, width = pictures.shape
    grids = pictures.reshape(len(held), side, side, channels, height, width).transpose(0, 1, 4, 2, 5, 3)
    frames = grids.reshape(len(held), side * height, side * width, channels)
    return frames if channels == 3 else frames.repeat(3, axis=3)
