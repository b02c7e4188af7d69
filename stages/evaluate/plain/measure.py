"""Scores of any source against any other, without settings or a workspace: what the command line over folders does."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.errors import InputError
from stages.evaluate.plain.feature_choice import choose
from stages.evaluate.plain.folder_pictures import shown, size_text
from stages.evaluate.plain.sources import CPU_PROVIDER, Draw, Place, Source, find_source, look, open_source

LARGEST_SUBSET = 1000  # of KID, as Binkowski et al. 2018 and the field's tools have it
LOSSY = {"JPEG"}


@dataclass(frozen=True)
class Options:
    """What the command line asks for; None stands for the default of the field's tools."""

    real: str
    generated: str
    count: int | None = None
    real_count: int | None = None
    seed: int = 0
    batch: int = 64
    provider: str = CPU_PROVIDER
    features: str | None = None
    weights: Path | None = None
    resize: str | None = None
    engine: str = "exact"
    kid_subset: int | None = None
    kid_subsets: int = 100
    neighbours: int = 3
    bootstrap: int = 1000
    per_class: bool = False

    def draws(self) -> tuple[Draw, Draw]:
        """Return how pictures are taken from the real and from the generated source."""
        draw = Draw(None, self.seed, self.batch, self.provider)
        return replace(draw, count=self.real_count), replace(draw, count=self.count)


def measure(options: Options) -> dict[str, Any]:
    """Compare two sources and return scores, intervals, recipe with its hash, origins and warnings; prints warnings.

    Raises:
        InputError: a source, the weights or a number does not fit; most of it is told before torch is imported.
        GateError: a generator draws NaN or infinity.
    """
    choice = choose(options.features, options.weights)
    real, generated = open_both(options)
    warnings = [*choice.warnings, *real.notes, *generated.notes, *unlike(real, generated)]
    from stages.evaluate.plain.scores import score

    return score(options, choice, real, generated, warnings)


def open_both(options: Options) -> tuple[Source, Source]:
    """Open the real and the generated source, once both were looked at and have enough pictures.

    Raises:
        InputError: one is absent, broken or too small for the numbers that are asked for.
    """
    places = find_source(options.real), find_source(options.generated)
    draws = options.draws()
    contents = [look(place, draw) for place, draw in zip(places, draws, strict=True)]
    check_numbers(options, places, contents)
    real = open_source(places[0], draws[0], contents[0])
    return real, open_source(places[1], draws[1], contents[1], real)


def check_numbers(options: Options, places: tuple[Place, Place], contents: list[Any]) -> None:
    """Refuse sets that are too small for precision and recall's neighbours or for KID's subsets.

    Raises:
        InputError: the source, what it has and what is needed.
    """
    counts = [options.real_count, options.count]
    for number, (place, found) in enumerate(zip(places, contents, strict=True)):
        size = len(found) if found is not None and counts[number] is None else counts[number]
        if size is None:
            continue  # a generator: it draws as many as the other has
        if size <= options.neighbours:
            raise InputError(
                f"{shown(place.text)} has {size} {_pictures(size)}, precision and recall need more than --neighbours "
                f"{options.neighbours}; give more pictures or a smaller --neighbours"
            )
        if options.kid_subset is not None and size < options.kid_subset:
            raise InputError(
                f"{shown(place.text)} has {size} {_pictures(size)}, fewer than --kid-subset {options.kid_subset}; "
                "give more pictures or a smaller --kid-subset"
            )


def kid_subset(options: Options, real: Source, generated: Source) -> int:
    """Return the size of KID's subsets: as asked for, or 1,000, or all of the smallest set."""
    return options.kid_subset or min(LARGEST_SUBSET, real.pictures.count, generated.pictures.count)


def unlike(real: Source, generated: Source) -> list[str]:
    """Return what differs between two sources beside their pictures, and is measured with them: size, compression."""
    found = []
    for source in (real, generated):
        if len(source.sizes) > 1:
            sizes = f"{', '.join(map(size_text, source.sizes[:3]))}{', ...' if len(source.sizes) > 3 else ''}"
            found.append(
                f"{source.pictures.name} has pictures of {len(source.sizes)} sizes ({sizes}), each resized alone"
            )
    if real.sizes[0] != generated.sizes[0]:
        found.append(
            f"pictures of {size_text(real.sizes[0])} ({real.pictures.name}) are compared with pictures of "
            f"{size_text(generated.sizes[0])} ({generated.pictures.name}) after the network's resize: sharpness counts"
        )
    if bool(LOSSY & set(real.formats)) != bool(LOSSY & set(generated.formats)):
        lossy = real if LOSSY & set(real.formats) else generated
        found.append(f"only {lossy.pictures.name} holds JPEG files: their compression is measured, too")
    return found


def _pictures(count: int) -> str:
    return "picture" if count == 1 else "pictures"
