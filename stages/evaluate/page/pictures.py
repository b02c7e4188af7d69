"""The sections that show pictures: uncurated samples, closest training pairs, interpolations."""

import numpy as np

from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.images import Shown, contact_sheet, encode, shrink
from stages.evaluate.page.numerals import number
from stages.evaluate.page.readings import reading_of
from stages.evaluate.page.section import Figure, Section, facts_and_tables

# Noise takes four bytes a pixel as PNG in base64; together these keep a page below 3 MB whatever the pictures are.
SAMPLE_PIXELS, PAIR_PIXELS, STRIP_PIXELS = 300_000, 120_000, 160_000
PAIRS_SHOWN = 16


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
    """Return how even the latent space is, with interpolations from one latent to another, a row each."""
    title, absent = "Latent space", content.absent("latent_space")
    strips = content.strips if content.strips.ndim == 5 and content.strips.size else None
    if absent and strips is None:
        return Section(title, absent=absent)
    part = content.part("latent_space")
    facts, tables = ([], []) if absent else facts_and_tables(without(part, "reading"))
    figures = [] if strips is None else [_strips(strips, content.name)]
    return Section(title, reading=reading_of(content, "latent_space"), figures=figures, facts=facts, tables=tables)


def _strips(strips: np.ndarray, name: str) -> Figure:
    rows, steps = strips.shape[:2]
    alt = f"{rows} interpolations of {name} in {steps} steps"
    shown = contact_sheet(strips.reshape(rows * steps, *strips.shape[2:]), alt, STRIP_PIXELS, columns=steps)
    caption = "Each row goes from one latent to another in equal steps; a good model changes evenly and leaves no jump."
    return Figure([shown] if shown else [], caption, size="full")
