"""The `folder` source: own pictures, a class per sub-folder, captions from metadata.jsonl or metadata.csv.

The layout is that of Hugging Face's imagefolder: https://huggingface.co/docs/datasets/image_dataset.
"""

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.catalogue import Picture
from stages.download.captions import METADATA, read_captions
from stages.errors import InputError
from stages.progress import progress
from stages.settings import FolderSettings
from stages.storage import sha256_file

ARCHIVE = "pictures.tar"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".svg")


def source_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return a source folder's pictures and its metadata files, in name order.

    Hidden files and folders, and pictures that are links out of the folder, are left out.

    Raises:
        InputError: the folder is absent, holds no picture or cannot be read, or a file's name is not UTF-8.
    """
    with _reading(folder):
        if not folder.is_dir():
            raise InputError(f"data.folder.path is {folder}, which is not a folder")
        root = folder.resolve()
        files = sorted(_visible_files(folder))
        pictures = [p for p in files if p.suffix.lower() in SUFFIXES and p.resolve().is_relative_to(root)]
    if not pictures:
        raise InputError(f"data.folder.path is {folder}, which holds no picture ({', '.join(SUFFIXES)})")
    metadata = [path for path in files if path.name in METADATA]
    for path in (*pictures, *metadata):
        _check_name(path)
    return pictures, metadata


def _visible_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (path for name in names if not name.startswith(".") and (path := Path(parent, name)).is_file())


def _refuse(error: OSError) -> None:
    """Stop at a folder that cannot be listed; os.walk would leave out its pictures without a word."""
    raise error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn a failure to read the source into one line: it is the user's folder, not a place that a stage writes."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read: {error.strerror}") from error


def _check_name(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise InputError(f"{shown}: the file's name is not UTF-8; rename it") from error


def folder_digest(folder: Path) -> dict[str, Any]:
    """Return how many files and bytes a source folder holds and one sha256 over names, sizes and contents.

    Raises:
        InputError: the folder or a file in it cannot be used.
    """
    digest = hashlib.sha256()
    pictures, metadata = source_files(folder)
    files = sorted([*pictures, *metadata])
    total = 0
    for path in progress(files, "checking the source folder", len(files)):
        with _reading(path):
            size, content = path.stat().st_size, sha256_file(path)
        total += size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0{content}\n".encode())
    return {"files": len(files), "bytes": total, "sha256": digest.hexdigest()}


def download_folder(settings: FolderSettings, folder: Path) -> list[Picture]:
    """Pack the pictures into one tar with fixed owners and times, and list them.

    Raises:
        InputError: the folder or its metadata cannot be used.
    """
    source = Path(settings.path or "")
    files, metadata = source_files(source)
    captions = read_captions(source, metadata)
    names = [path.relative_to(source).as_posix() for path in files]
    unknown = sorted(set(captions) - set(names))
    if unknown:
        raise InputError(f"{source}: the metadata names {unknown[0]}, which is no picture there ({len(unknown)} such)")
    with tarfile.open(folder / ARCHIVE, "w") as tar:
        for path, name in progress(list(zip(files, names, strict=True)), "packing pictures", len(files)):
            _add(tar, path, name)
    return [
        Picture(
            key=name,
            archive=ARCHIVE,
            member=name,
            class_name=name.split("/")[0] if "/" in name else "",
            caption=captions.get(name, ""),
            licence=settings.licence,
        )
        for name in names
    ]


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file with nothing of its owner or time, so that equal pictures give an equal archive."""
    with _reading(path):
        data = path.read_bytes()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
