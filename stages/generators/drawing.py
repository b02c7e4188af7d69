"""Writes the pictures of seeds: one picture, a sheet, or a folder with a file per seed."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stages.errors import InputError, ResourceError
from stages.generators.interface import ANYTHING, Asked, Capabilities, Generator
from stages.progress import progress
from stages.storage import write_bytes

FORMATS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
OPTIONS: dict[str, dict] = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
SEED_LIMIT = 1 << 128  # of a Philox key
DISK_FULL = (28, 122)  # ENOSPC, EDQUOT


@dataclass(frozen=True)
class Wishes:
    """What a command line asks of all pictures, before a model is open; None leaves it to the model."""

    label: str | None = None  # a class by name or by number
    prompt: str | None = None
    negative: str | None = None
    guidance: float | None = None
    truncation: float | None = None
    steps: int | None = None
    sampler: str | None = None

    def check(self) -> None:
        """Check what no model could take.

        Raises:
            InputError: guidance, truncation or steps are impossible numbers.
        """
        if self.truncation is not None and not 0 <= self.truncation < math.inf:
            raise InputError(f"--truncation is {self.truncation:g}; expected a number of 0 or more")
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise InputError(f"--guidance is {self.guidance:g}; expected a number of 0 or more")
        if self.steps is not None and self.steps < 1:
            raise InputError(f"--steps is {self.steps}; expected 1 or more")

    def applied(self, generator: Generator) -> tuple[Generator, Asked]:
        """Return the generator with the wished steps and sampler, and what to ask of it.

        Raises:
            InputError: the generator does not take one of them.
        """
        capabilities = generator.capabilities
        asked = Asked(label_of(self.label, capabilities), self.prompt, self.negative, self.guidance, self.truncation)
        asked.check(capabilities)
        strength = capabilities.default_guidance if self.guidance is None else self.guidance
        if self.negative is not None and (not capabilities.guidance or strength == 1):
            how = "give --guidance above 1" if capabilities.guidance else "this model takes none"
            raise InputError(f"--negative-prompt says nothing without guidance; {how}")
        return generator.resampled(self.steps, self.sampler), asked

    def told(self, asked: Asked, capabilities: Capabilities) -> list[str]:
        """Return what was wished in words, nothing of what was left to the model."""
        found = {
            "class": None if asked.label is None else capabilities.class_names[asked.label],
            "prompt": None if asked.prompt is None else repr(asked.prompt),  # escapes what a terminal would obey
            "negative prompt": None if asked.negative is None else repr(asked.negative),
            "guidance": None if asked.guidance is None else f"{asked.guidance:g}",
            "truncation": None if asked.truncation is None else f"{asked.truncation:g}",
            "sampler": self.sampler,
        }
        steps = [] if self.steps is None else [f"{self.steps} {'step' if self.steps == 1 else 'steps'}"]
        return [f"{name} {text}" for name, text in found.items() if text is not None] + steps


def label_of(text: str | None, capabilities: Capabilities) -> int | None:
    """Return the number of a class that is given by its name, which goes first, or by its number.

    Raises:
        InputError: there is no such class.
    """
    names = capabilities.class_names
    if text is None:
        return None
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    if not names:
        raise InputError(f"--label is {text}, but this {capabilities.family} model has no classes")
    raise InputError(f"--label is {text}; expected 0 to {len(names) - 1} or one of {', '.join(names)}")


def check_request(seed: int, count: int, out: Path, wishes: Wishes) -> None:
    """Check what is asked for before a model is opened.

    Raises:
        InputError: seed, count, guidance, steps or the kind of output file is impossible.
    """
    if count < 1:
        raise InputError(f"--count is {count}; expected 1 or more")
    if not 0 <= seed <= SEED_LIMIT - count:
        raise InputError(f"--seed is {seed}; expected 0 or more, and all seeds below 2**128")
    wishes.check()
    suffix = out.suffix.lower()
    if suffix in Image.registered_extensions() and suffix not in FORMATS and not out.is_dir():
        raise InputError(f"--out is {out}; pictures are written as {', '.join(FORMATS)}, or into a folder")


def draw(generator: Generator, seed: int, count: int, out: Path, asked: Asked = ANYTHING) -> None:
    """Draw the pictures of the seeds `seed` to `seed + count - 1` into a picture file or a folder.

    Raises:
        InputError: the place cannot be written to, or the generator does not take what is asked.
        ResourceError: the disk is full.
    """
    asked.check(generator.capabilities)
    pictures = progress(pixels(generator, range(seed, seed + count), asked), "drawing", count)
    as_file = out.suffix.lower() in FORMATS and not out.is_dir()
    try:
        (out.parent if as_file else out).mkdir(parents=True, exist_ok=True)  # say it before the work, not after
        if as_file:
            write_picture(out, one_or_sheet(np.stack(list(pictures))))
            return
        for number, picture in enumerate(pictures, start=seed):
            write_picture(out / f"seed-{number:06d}.png", to_image(picture))
    except OSError as error:
        if error.errno in DISK_FULL:
            raise ResourceError(f"the disk is full while writing {out}") from error
        raise InputError(f"--out {out} cannot be written: {error.strerror or error}") from error


def pixels(generator: Generator, seeds: range, asked: Asked = ANYTHING) -> Iterator[np.ndarray]:
    """Yield one picture per seed, uint8, shape (H, W, C)."""
    from stages.dataset import to_uint8

    for batch in generator.draw(seeds, asked=asked):
        yield from to_uint8(batch).transpose(0, 2, 3, 1)


def one_or_sheet(pictures: np.ndarray) -> Image.Image:
    """Return the only picture as it is, or several on one sheet; takes uint8, shape (N, H, W, C)."""
    from stages.sheet import sheet

    return to_image(pictures[0]) if len(pictures) == 1 else sheet(pictures)


def to_image(picture: np.ndarray) -> Image.Image:
    """Turn uint8 of shape (H, W, C), C 1 or 3, into an image."""
    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else np.ascontiguousarray(picture))


def write_picture(path: Path, image: Image.Image) -> None:
    """Encode an image by its file's suffix and write it whole."""
    kind = FORMATS[path.suffix.lower()]
    buffer = io.BytesIO()
    image.save(buffer, kind, **OPTIONS[kind])
    write_bytes(path, buffer.getvalue())
