"""Style mixing: pictures that take their coarse styles from one latent and their fine ones from another."""

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from stages.dataset import to_uint8
from stages.generators.interface import Generator, Request
from stages.generators.noise import latents

ROWS, COLUMNS = 3, 6  # sources of coarse and of fine styles
QUARTERS = (1, 2, 3)  # of the layers, which the rows' styles reach


@runtime_checkable
class Mixing(Protocol):
    """A generator with one style for each of its layers."""

    @property
    def layers(self) -> int:
        """Styles of a picture, 0 of a network without a mapping."""

    def mix(self, coarse: np.ndarray, fine: np.ndarray, crossover: int, label: np.ndarray | None = None) -> np.ndarray:
        """Draw pictures with styles of the latents `coarse` up to a layer and of `fine` from it on."""


@dataclass(frozen=True)
class StyleMixing:
    """What is told of the sheet in the report, and its blocks, uint8 (blocks, 1 + rows, 1 + columns, H, W, C).

    Each block has the fine sources in its first row, the coarse ones in its first column, and white where they meet.
    Both are empty of a generator without styles.
    """

    part: dict[str, Any] = field(default_factory=dict)
    blocks: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0, 0, 0, 3), np.uint8))

    @property
    def grid(self) -> np.ndarray:
        """Return the blocks below one another, uint8 (rows, columns, H, W, C)."""
        blocks, rows, *rest = self.blocks.shape
        return self.blocks.reshape(blocks * rows, *rest)


def mix_styles(generator: Generator, batch: int) -> StyleMixing:
    """Mix the styles of the first seeds with those of the next, changing over after each quarter of the layers.

    Karras et al. 2019, "A style-based generator architecture", figure 3. All pictures are of the first class.
    """
    if not isinstance(generator, Mixing) or not generator.layers:
        return StyleMixing()
    takes = generator.capabilities
    seeds = range(ROWS), range(ROWS, ROWS + COLUMNS)
    coarse, fine = (latents(part, takes.latent_shape) for part in seeds)
    crossovers = crossovers_of(generator.layers)
    rows, columns = (_sources(generator, latent) for latent in (coarse, fine))
    blocks = [_block(rows, columns, _mixed(generator, coarse, fine, crossover, batch)) for crossover in crossovers]
    about: dict[str, Any] = {"layers": generator.layers, "crossovers": crossovers}
    about |= {"coarse_seeds": list(seeds[0]), "fine_seeds": list(seeds[1])}
    about |= {"class": takes.class_names[0]} if takes.class_names else {}
    return StyleMixing({"mixing": about}, np.stack(blocks).transpose(0, 1, 2, 4, 5, 3))


def crossovers_of(layers: int) -> list[int]:
    """Return the layers from which on the styles are of the fine source: after each quarter, each once."""
    return sorted({max(1, layers * quarter // 4) for quarter in QUARTERS})


def _sources(generator: Generator, latent: np.ndarray) -> np.ndarray:
    label = _labels(generator, len(latent))
    return to_uint8(generator.generate(Request(latent, {} if label is None else {"label": label})))


def _mixed(generator: Mixing, coarse: np.ndarray, fine: np.ndarray, crossover: int, batch: int) -> np.ndarray:
    """Return each row's source mixed with each column's, uint8 (rows, columns, C, H, W)."""
    first, second = coarse.repeat(len(fine), axis=0), np.tile(fine, (len(coarse), 1))
    parts = []
    for start in range(0, len(first), batch):
        one, other = (latent[start : start + batch] for latent in (first, second))
        parts.append(to_uint8(generator.mix(one, other, crossover, _labels(generator, len(one)))))
    drawn = np.concatenate(parts)
    return drawn.reshape(len(coarse), len(fine), *drawn.shape[1:])


def _labels(generator: Any, count: int) -> np.ndarray | None:
    return np.zeros(count, np.int64) if generator.capabilities.class_names else None


def _block(rows: np.ndarray, columns: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    corner = np.full_like(rows[:1], 255)
    below = np.concatenate([rows[:, None], mixed], axis=1)
    return np.concatenate([np.concatenate([corner, columns])[None], below])
