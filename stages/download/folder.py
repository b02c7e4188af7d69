"""The `folder` source: own pictures, a class per sub-folder, captions from metadata.jsonl or metadata.csv.

The layout is that of Hugging Face's imagefolder: https://huggingface.co/docs/datasets/image_dataset.
"""

import csv
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from stages.catalogue import Picture
from stages.errors import InputError
from stages.progress import progress
from stages.settings import FolderSettings
from stages.storage import sha256_file

ARCHIVE = "pictures.tar"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".svg")
METADATA = ("metadata.jsonl", "metadata.csv")
CAPTION_COLUMNS = ("text", "caption", "prompt")


def picture_files(folder: Path) -> list[Path]:
    """Return the folder's picture files in name order; hidden ones and links out of the folder are left out.

    Raises:
        InputError: the folder is absent or holds no picture.
    """
    if not folder.is_dir():
        raise InputError(f"data.folder.path is {folder}, which is not a folder")
    root = folder.resolve()
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if path.resolve().is_relative_to(root):
            found.append(path)
    if not found:
        raise InputError(f"data.folder.path is {folder}, which holds no picture ({', '.join(SUFFIXES)})")
    return found


def folder_digest(folder: Path) -> dict[str, Any]:
    """Return how many files and bytes a source folder holds and one sha256 over names, sizes and contents."""
    digest = hashlib.sha256()
    files = [*picture_files(folder), *(folder / name for name in METADATA if (folder / name).is_file())]
    total = 0
    for path in progress(sorted(files), "checking the source folder", len(files)):
        size = path.stat().st_size
        total += size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0{sha256_file(path)}\n".encode())
    return {"files": len(files), "bytes": total, "sha256": digest.hexdigest()}


def download_folder(settings: FolderSettings, folder: Path) -> list[Picture]:
    """Pack the pictures into one tar with fixed owners and times, and list them.

    Raises:
        InputError: the folder or its metadata cannot be used.
    """
    source = Path(settings.path or "")
    files = picture_files(source)
    captions = read_captions(source)
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
    data = path.read_bytes()
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def read_captions(folder: Path) -> dict[str, str]:
    """Read captions by file name from metadata.jsonl or metadata.csv, if there is one.

    Raises:
        InputError: a line is malformed, lacks `file_name` or a caption, or names a file twice.
    """
    path = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if path is None:
        return {}
    captions: dict[str, str] = {}
    for number, row in enumerate(_metadata_rows(path), start=1):
        name = row.get("file_name")
        caption = next((row[column] for column in CAPTION_COLUMNS if row.get(column)), None)
        if not name or caption is None:
            raise InputError(f"{path}, row {number}: needs file_name and one of {', '.join(CAPTION_COLUMNS)}")
        if name in captions:
            raise InputError(f"{path}, row {number}: {name} appears twice")
        captions[name] = str(caption)
    return captions


def _metadata_rows(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text)))
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, row {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, row {number}: not an object")
        rows.append(row)
    return rows
