"""Captions of own pictures, from metadata.jsonl or metadata.csv in the source folder and any of its sub-folders.

As in Hugging Face's imagefolder, `file_name` is relative to the metadata file:
https://huggingface.co/docs/datasets/image_dataset.
"""

import csv
import io
import json
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.errors import InputError

METADATA = ("metadata.jsonl", "metadata.csv")
CAPTION_COLUMNS = ("text", "caption", "prompt")


def read_captions(folder: Path, metadata: list[Path]) -> dict[str, str]:
    """Read captions by the pictures' names relative to the source folder.

    Raises:
        InputError: a metadata file cannot be read or decoded, stands beside one of the other format, has a malformed
            row or one without `file_name` or a caption; or a picture is named twice.
    """
    for path in metadata:
        if path.name != METADATA[0] and path.with_name(METADATA[0]) in metadata:
            raise InputError(f"{path.parent} holds both {' and '.join(METADATA)}; keep one of them")
    captions: dict[str, str] = {}
    for path in metadata:
        below = path.parent.relative_to(folder).as_posix()
        for where, file_name, caption in _named_captions(path):
            name = posixpath.normpath(posixpath.join(below, file_name))
            if name in captions:
                raise InputError(f"{where}: {name} appears twice")
            captions[name] = caption
    return captions


def _named_captions(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield where a row stands, its file name and its caption."""
    for number, row in enumerate(_rows(path), start=1):
        where = f"{path}, row {number}"
        name = row.get("file_name")
        caption = next((str(row[column]) for column in CAPTION_COLUMNS if row.get(column)), None)
        if not isinstance(name, str) or not name or caption is None:
            raise InputError(f"{where}: needs file_name and one of {', '.join(CAPTION_COLUMNS)}")
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in name + caption):  # JSON may escape half a character
            raise InputError(f"{where}: {ascii(name + ' ' + caption)[:120]} is not Unicode text")
        yield where, name, caption


def _rows(path: Path) -> list[dict[str, Any]]:
    text = _text(path)
    if path.suffix == ".csv":
        try:
            return list(csv.DictReader(io.StringIO(text)))
        except csv.Error as error:
            raise InputError(f"{path}: not CSV ({error})") from error
    lines = enumerate(text.split("\n"), start=1)
    return [_object(line, f"{path}, line {number}") for number, line in lines if line.strip()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(f"{path} is not UTF-8 (byte 0x{byte:02x} at {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: not an object")
    return row
