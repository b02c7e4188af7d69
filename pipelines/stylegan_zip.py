"""Writes data/images as a zip that StyleGAN's own training reads: `python -m pipelines.stylegan_zip`.

Names, dataset.json and uncompressed PNG are those of StyleGAN's dataset_tool.py; the same pictures give the same bytes.
https://github.com/NVlabs/stylegan3#preparing-datasets
"""

import argparse
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.entry import answer
from stages.dataset import ImageDataset, read_shard, shard_name
from stages.download.stylegan import DATASET
from stages.errors import InputError
from stages.progress import progress
from stages.storage import check_free, sync_file

if TYPE_CHECKING:
    import numpy as np

IMAGES = Path("data/images")
FOLDER_SIZE = 1000  # pictures a folder
FIRST_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can name
READABLE = 0o100644 << 16
UNIX = 3
SPLITS = ("train", "holdout")


def write_stylegan_zip(images: Path, out: Path, split: str | None = None) -> int:
    """Write the pictures of data/images, or of one split, as a StyleGAN data set and return how many there are.

    Raises:
        InputError: data/images is absent or empty, some pictures have a class and others none, or `out` cannot be
            written.
        ResourceError: the disk is too small.
    """
    check_out(out)
    dataset = ImageDataset(images, split)
    labels = labels_of(dataset.rows, dataset.description["class_names"], split)
    check_free(out.parent, len(dataset) * (dataset.channels * dataset.resolution**2 + 1024), str(out))
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for position, data in _pictures(dataset):
                archive.writestr(_member(picture_name(position)), data)
            archive.writestr(_member(DATASET), labels)
        sync_file(partial)
        partial.replace(out)
    except PermissionError as error:
        raise InputError(f"--out is {out}, which cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return len(dataset)


def check_out(out: Path) -> None:
    """Refuse a name that StyleGAN would not take, or a folder that is not there.

    Raises:
        InputError: it does not end in .zip, is a folder itself, or its folder does not exist.
    """
    if out.suffix.lower() != ".zip":
        raise InputError(f"--out is {out}; StyleGAN takes names that end in .zip")
    if out.is_dir():
        raise InputError(f"--out is {out}, which is a folder")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out is {out}, whose folder does not exist")


def labels_of(rows: list[dict[str, Any]], class_names: list[str], split: str | None) -> bytes:
    """Return dataset.json: the label of each picture, or null where there are no classes.

    Raises:
        InputError: there is no picture, or some have a class and others none, which StyleGAN cannot tell.
    """
    if not rows:
        raise InputError(f"{IMAGES} holds no picture of split {split}" if split else f"{IMAGES} holds no picture")
    without = [row["key"] for row in rows if row["label"] < 0]
    if without and len(without) < len(rows):
        raise InputError(
            f"{len(without)} of {len(rows)} pictures have no class, such as {without[0]}; StyleGAN wants all or none"
        )
    labels = None if without else [[picture_name(i), row["label"]] for i, row in enumerate(rows)]
    return json.dumps({"labels": labels, "class_names": None if without else class_names}).encode()


def picture_name(position: int) -> str:
    """Return the member's name of a picture by its position."""
    return f"{position // FOLDER_SIZE:05d}/img{position:08d}.png"


def _pictures(dataset: ImageDataset) -> Iterator[tuple[int, bytes]]:
    """Yield position and PNG of each picture, with one shard in memory at a time."""
    from PIL import Image

    count = len(dataset)
    for position, pixels in progress(enumerate(_pixels(dataset)), f"writing {count} pictures", count):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG", compress_level=0)
        yield position, stream.getvalue()


def _pixels(dataset: ImageDataset) -> Iterator["np.ndarray"]:
    for shard, rows in groupby(dataset.rows, key=lambda row: row["shard"]):
        yield from read_shard(dataset.folder / shard_name(shard), [row["row"] for row in rows])


def _member(name: str) -> zipfile.ZipInfo:
    """Describe a member with nothing of this machine or time."""
    info = zipfile.ZipInfo(name, FIRST_TIME)
    info.external_attr, info.create_system = READABLE, UNIX
    return info


def main() -> int:
    """Write the zip and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.stylegan_zip", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the zip to write")
    parser.add_argument("--split", choices=SPLITS, help="only these pictures (default: all)")
    arguments = parser.parse_args()
    return answer("stylegan_zip", partial(_write, arguments.out, arguments.split))


def _write(out: Path, split: str | None) -> int:
    print(f"{write_stylegan_zip(IMAGES, out, split)} pictures in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
