"""A folder of pictures as the field's tools read it: every file with a picture's suffix, converted to RGB by Pillow."""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from stages.decoding import DAMAGE, EXIF_ORIENTATION, UnreadablePicture, check_depth, check_palette, check_size
from stages.decoding import FORMATS as RASTER_FORMATS
from stages.errors import InputError
from stages.progress import progress
from stages.storage import sha256_bytes

FORMATS = (*RASTER_FORMATS, "PPM")
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
COLOUR = "Pillow's convert('RGB'): transparency dropped, no EXIF turn, no colour profile; 16-bit grey scaled to 8"
GREY, DEEP, CLEAR, INKS, TURNED = "grey", "deep", "clear", "inks", "turned"
ODDITIES = {  # what is told of pictures that are not plain RGB, in this order
    GREY: "are grey: read as RGB with equal channels",
    DEEP: "are 16-bit grey: scaled to 8 bits (tools that call convert('RGB') alone clip them to white)",
    CLEAR: "have an alpha channel: dropped, as the field's tools do, so that colours it hid are seen",
    INKS: "are CMYK: turned to RGB without a colour profile, as the field's tools do",
    TURNED: "have an EXIF orientation: not heeded, as the field's tools do",
}


@dataclass(frozen=True)
class PictureFile:
    """A picture's file: path below the folder, sha256 of its bytes, width and height, format, what is odd about it."""

    name: str
    sha256: str
    size: tuple[int, int]
    format: str
    odd: frozenset[str]


@dataclass(frozen=True)
class Folder:
    """The pictures of a folder in the order of their names; those below a folder of the top level are its class."""

    path: Path
    files: list[PictureFile] = field(repr=False)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def content(self) -> str:
        """The sha256 over names and bytes of the files."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(os.fsencode(file.name) + b"\0" + file.sha256.encode() + b"\n")
        return digest.hexdigest()

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The sizes that occur, (width, height), the most frequent first."""
        return [size for size, _ in Counter(file.size for file in self.files).most_common()]

    @property
    def formats(self) -> list[str]:
        """The formats that occur."""
        return sorted({file.format for file in self.files})

    def classes(self) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """Return labels, int64 of shape (N,), and class names; nothing where a picture lies in no folder of its own."""
        above = [file.name.split("/")[0] if "/" in file.name else None for file in self.files]
        if None in above:
            return None, ()
        names = sorted({name for name in above if name is not None})
        positions = {name: number for number, name in enumerate(names)}
        labels = np.array([positions[name] for name in above if name is not None], np.int64)
        return labels, tuple(shown(name) for name in names)

    def notes(self) -> list[str]:
        """Return one line for each way in which files are not plain RGB, and how they were read."""
        counts = Counter(odd for file in self.files for odd in file.odd)
        total = len(self.files)
        return [
            f"{shown(self.path)}: {counts[odd]} of {total} pictures {told}"
            for odd, told in ODDITIES.items()
            if counts[odd]
        ]

    def batches(self, batch: int) -> Iterator[np.ndarray]:
        """Yield the pictures in order, uint8, shape (N, 3, H, W), up to `batch` neighbours of one size at a time.

        Raises:
            InputError: a file is not readable, or not the one that was looked at first.
        """
        waiting: list[np.ndarray] = []
        for file in self.files:
            picture = read_pixels(self.path, file)
            if waiting and (len(waiting) == batch or waiting[0].shape != picture.shape):
                yield np.stack(waiting)
                waiting = []
            waiting.append(picture)
        if waiting:
            yield np.stack(waiting)


def open_folder(path: Path, count: int | None = None, seed: int = 0) -> Folder:
    """Look at all pictures of a folder, or at `count` of them, drawn by seed without replacement.

    Raises:
        InputError: it is no folder, holds too few pictures, cannot be read, or a picture is broken; names say which.
    """
    names = find_pictures(path)
    if not names:
        raise InputError(f"{shown(path)} holds no pictures; expected files that end in {', '.join(SUFFIXES)}")
    if count is not None and count > len(names):
        raise InputError(f"{shown(path)} holds {len(names)} pictures, {count} are asked for; ask for fewer")
    if count is not None:
        generator = np.random.Generator(np.random.Philox(key=seed))
        names = [names[number] for number in sorted(generator.choice(len(names), count, replace=False).tolist())]
    _silence_pillow()
    return Folder(path, [look_at(path, name) for name in progress(names, f"reading {shown(path)}", len(names))])


def find_pictures(folder: Path) -> list[str]:
    """Return the files with a picture's suffix at any depth, by their sorted paths below the folder; hidden ones never.

    Links to files and folders are followed.

    Raises:
        InputError: it is no folder, one cannot be listed, or a link leads back to a folder that holds it.
    """
    if not folder.exists():
        raise InputError(f"{shown(folder)} does not exist; expected a folder of pictures")
    if not folder.is_dir():
        raise InputError(f"{shown(folder)} is a file; expected a folder of pictures: give the one that holds it")
    paths = sorted(path.relative_to(folder).as_posix() for path in _walk(folder, frozenset()))
    return [path for path in paths if path.lower().endswith(SUFFIXES)]


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = [(entry, entry.is_dir()) for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{shown(folder)} cannot be listed: {error.strerror}; make it readable") from error
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise InputError(f"{shown(folder)} leads back to a folder that holds it; remove the link")
    for entry, is_folder in entries:
        if is_folder:
            yield from _walk(entry, above | {here})
        else:
            yield entry


def look_at(folder: Path, name: str) -> PictureFile:
    """Read a file's header and the sha256 of its bytes.

    Raises:
        InputError: it cannot be read, is no picture, or is one that no feature network could take.
    """
    data = _read_bytes(folder / name)
    with _open(folder / name, data) as picture:
        return PictureFile(name, sha256_bytes(data), picture.size, picture.format or "", frozenset(_oddities(picture)))


def read_pixels(folder: Path, file: PictureFile) -> np.ndarray:
    """Decode a file to uint8 RGB, shape (3, H, W).

    Raises:
        InputError: it is broken, or has changed since it was looked at.
    """
    path = folder / file.name
    data = _read_bytes(path)
    if sha256_bytes(data) != file.sha256:
        raise InputError(f"{shown(path)} changed while it was measured; run again when nothing writes to the folder")
    try:
        with _open(path, data) as picture:
            picture.load()
            check_palette(picture)
            pixels = np.asarray(_to_rgb(picture))
    except UnreadablePicture as error:
        raise _broken(path, str(error)) from error
    except DAMAGE as error:
        raise _broken(path, f"damaged: {' '.join(str(error).split())}") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def size_text(size: tuple[int, int]) -> str:
    """Return a size as people write it, width first."""
    return f"{size[0]}x{size[1]}"


def shown(path: Path | str) -> str:
    """Return a path for a message of one line: characters that are not printable are escaped."""
    text = str(path)
    return text if text.isprintable() else repr(text)[1:-1]


def _read_bytes(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise _broken(path, "no regular file")  # reading from a pipe or device might never end
    try:
        return path.read_bytes()
    except OSError as error:
        raise _broken(path, f"cannot be read: {error.strerror}") from error


def _open(path: Path, data: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        check_size(*picture.size)
        check_depth(picture)
    except UnidentifiedImageError as error:
        raise _broken(path, "not a picture of a known format") from error
    except UnreadablePicture as error:
        raise _broken(path, str(error)) from error
    except DAMAGE as error:
        raise _broken(path, f"damaged: {' '.join(str(error).split())}") from error
    return picture


def _silence_pillow() -> None:
    """Keep Pillow's remarks on odd EXIF, palettes and large pictures off the terminal; sizes are judged here."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _broken(path: Path, reason: str) -> InputError:
    return InputError(f"{shown(path)}: {shown(reason)}; remove the file or replace it by a whole picture")


def _oddities(picture: Image.Image) -> Iterable[str]:
    if picture.mode.startswith("I;16"):
        yield DEEP
    elif picture.mode in ("1", "L", "LA", "La"):
        yield GREY
    if picture.mode == "CMYK":
        yield INKS
    if picture.has_transparency_data:
        yield CLEAR
    if picture.info.get("exif") and _orientation(picture) not in (None, 1):
        yield TURNED


def _orientation(picture: Image.Image) -> object:
    try:
        return picture.getexif().get(EXIF_ORIENTATION)
    except DAMAGE:
        return None


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):  # convert('RGB') would clip to white what is over 255 of 65,535
        values = np.asarray(picture).astype(np.uint32)
        picture = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    return picture.convert("RGB")
