"""The sections that show pictures: uncurated samples, closest training pairs, the latent space."""

from typing import Any

import numpy as np

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.images import Shown, clip, contact_sheet, encode, shrink
from stages.evaluate.page.numerals import number, plain
from stages.evaluate.page.readings import reading_of
from stages.evaluate.page.section import Figure, Section, facts_and_tables

# Noise takes four bytes a pixel as PNG in base64; together these keep a page below 3 MB whatever the pictures are. What
# only some models have comes on top: style mixing at most 0.4 MB, a latent walk 1.3 MB.
SAMPLE_PIXELS, PAIR_PIXELS, STRIP_PIXELS, MIXING_PIXELS = 300_000, 120_000, 160_000, 90_000
PAIRS_SHOWN = 16
WALK = "sheets/walk.mp4"  # from the page


def sample_section(content: ModelReport) -> Section:
    """Return the model's samples, all of them in the order of their seeds."""
    title, count = "Samples", len(content.samples)
    last = content.first_seed + count - 1
    alt = f"{count} uncurated samples of {content.name}, seeds {content.first_seed} to {last}"
    shown = contact_sheet(content.samples, alt, SAMPLE_PIXELS)
    if shown is None:
        return Section(title, absent="No sample was drawn.")
    caption = (
        f"Uncurated: the {count} pictures of seeds {content.first_seed} to {last}, in reading order, none left out."
    )
    return Section(title, figures=[Figure([shown], caption, size="full")])


def memorisation_section(content: ModelReport) -> Section:
    """Return what is known of copies, with the pairs of generated and training pictures that are closest."""
    title, absent = "Memorisation", content.absent("memorisation")
    if absent and not content.pairs:
        return Section(title, absent=absent)
    part = content.part("memorisation")
    facts, tables = ([], []) if absent else facts_and_tables(without(part, "reading", "closest"))
    notes = ["Each pair: generated on the left, its nearest training picture on the right; closest first."]
    figures = _pairs(content)
    return Section(
        title,
        reading=reading_of(content, "memorisation"),
        figures=figures,
        facts=facts,
        tables=tables,
        notes=notes if figures else [],
    )


def without(tree: dict, *names: str) -> dict:
    """Return a tree without some of its own keys."""
    return {key: value for key, value in tree.items() if key not in names}


def _pairs(content: ModelReport) -> list[Figure]:
    closest = content.pairs[:PAIRS_SHOWN]
    pixels = PAIR_PIXELS // max(1, 2 * len(closest))
    return [
        Figure(
            [_one(generated, "generated", pixels), _one(trained, f"training picture {key}", pixels)],
            f"distance {number(float(distance))}, {key}",
        )
        for generated, trained, distance, key in closest
    ]


def _one(picture: np.ndarray, alt: str, pixels: int) -> Shown:
    return encode(shrink(picture[None], pixels)[0] if picture.ndim == 3 else picture, alt)


def latent_section(content: ModelReport) -> Section:
    """Return how even the latent space is, with interpolations, styles that are mixed, and a walk as a video."""
    title, absent = "Latent space", content.absent("latent_space")
    found = (_strips(content), _mixing(content), _walk(content))
    figures = [figure for figure in found if figure]
    if absent and not figures:
        return Section(title, absent=absent)
    part = content.part("latent_space")
    facts, tables = ([], []) if absent else facts_and_tables(without(part, "reading", "mixing", "walk"))
    return Section(title, reading=reading_of(content, "latent_space"), figures=figures, facts=facts, tables=tables)


def _strips(content: ModelReport) -> Figure | None:
    caption = "Each row goes from one latent to another in equal steps; a good model changes evenly and leaves no jump."
    return _grid(content.strips, f"interpolations of {content.name}", STRIP_PIXELS, caption)


def _mixing(content: ModelReport) -> Figure | None:
    about = _about(content, "mixing")
    caption = (
        "Style mixing, in blocks: each picture has the coarse styles of the first in its row and the fine styles of "
        "the first in its column. Pose and outline should follow the row, colours the column, and from block to block "
        "more should follow the row."
    )
    if "crossovers" in about and "layers" in about:
        caption += f" The row's styles end at layer {plain(about['crossovers'])} of {plain(about['layers'])}."
    if "class" in about:
        caption += f" All are of the class {plain(about['class'])}."
    return _grid(content.mixing, f"mixed styles of {content.name}", MIXING_PIXELS, caption)


def _grid(grid: np.ndarray, what: str, pixels: int, caption: str) -> Figure | None:
    if grid.ndim != 5 or not grid.size:
        return None
    rows, columns = grid.shape[:2]
    alt = f"{rows} rows of {columns} {what}"
    shown = contact_sheet(grid.reshape(rows * columns, *grid.shape[2:]), alt, pixels, columns=columns)
    return Figure([shown] if shown else [], caption, size="full")


def _walk(content: ModelReport) -> Figure | None:
    if not content.walk:
        return None
    caption = "Each picture walks from latent to latent and back to its first; a good model neither jumps nor stops."
    return Figure([], caption, size="full", clip=clip(content.walk, WALK, f"latent walk of {content.name}"))


def _about(content: ModelReport, name: str) -> dict[str, Any]:
    found = content.part("latent_space").get(name)
    return found if isinstance(found, dict) else {}
