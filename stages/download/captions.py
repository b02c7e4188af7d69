"""Captions of own pictures, from metadata.jsonl or metadata.csv in the source folder and any of its sub-folders.

As in Hugging Face's imagefolder, `file_name` is relative to the metadata file:
https://huggingface.co/docs/datasets/image_dataset.
"""

import csv
import io
import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.errors import InputError

METADATA = ("metadata.jsonl", "metadata.csv")
CAPTION_COLUMNS = ("text", "caption", "prompt")


@dataclass(frozen=True)
class Metadata:
    """A metadata file: where it stands for messages, its name relative to the source's top, its bytes."""

    where: str
    name: str
    data: bytes


def read_captions(files: list[Metadata]) -> dict[str, str]:
    """Read captions by the pictures' names relative to the source's top.

    Raises:
        InputError: a metadata file cannot be decoded, stands beside one of the other format, has a malformed row or
            one without `file_name` or a caption; or a picture is named twice.
    """
    check_one_format(files)
    captions: dict[str, str] = {}
    for file in files:
        below = posixpath.dirname(file.name)
        for where, file_name, caption in _named_captions(file):
            name = posixpath.normpath(posixpath.join(below, file_name))
            check_named_once(where, name, captions)
            captions[name] = caption
    return captions


def check_one_format(files: list[Metadata]) -> None:
    """Refuse two metadata files in one folder; nothing tells which is right.

    Raises:
        InputError: a folder holds both formats.
    """
    names = {file.name for file in files}
    for file in files:
        folder, name = posixpath.split(file.name)
        if name != METADATA[0] and posixpath.join(folder, METADATA[0]) in names:
            raise InputError(f"{posixpath.dirname(file.where)} holds both {' and '.join(METADATA)}; keep one of them")


def check_named_once(where: str, name: str, captions: dict[str, str]) -> None:
    """Refuse a second caption for a picture.

    Raises:
        InputError: it has one already.
    """
    if name in captions:
        raise InputError(f"{where}: {name} appears twice")


def check_all_there(source: str, captions: dict[str, str], present: set[str]) -> None:
    """Refuse captions for pictures that are not there: names or the folder are wrong.

    Raises:
        InputError: one is not; the first is named.
    """
    unknown = sorted(set(captions) - present)
    if unknown:
        raise InputError(f"{source}: the metadata names {unknown[0]}, which is no picture there ({len(unknown)} such)")


def _named_captions(file: Metadata) -> Iterator[tuple[str, str, str]]:
    """Yield where a row stands, its file name and its caption."""
    for number, row in enumerate(_rows(file), start=1):
        where = f"{file.where}, row {number}"
        name = row.get("file_name")
        caption = next((str(row[column]) for column in CAPTION_COLUMNS if row.get(column)), None)
        if not isinstance(name, str) or not name or caption is None:
            raise InputError(f"{where}: needs file_name and one of {', '.join(CAPTION_COLUMNS)}")
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in name + caption):  # JSON may escape half a character
            raise InputError(f"{where}: {ascii(name + ' ' + caption)[:120]} is not Unicode text")
        yield where, name, caption


def _rows(file: Metadata) -> list[dict[str, Any]]:
    text = _text(file)
    if file.name.endswith(".csv"):
        try:
            return list(csv.DictReader(io.StringIO(text)))
        except csv.Error as error:
            raise InputError(f"{file.where}: not CSV ({error})") from error
    lines = enumerate(text.split("\n"), start=1)
    return [_object(line, f"{file.where}, line {number}") for number, line in lines if line.strip()]


def _text(file: Metadata) -> str:
    try:
        return file.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(f"{file.where} is not UTF-8 (byte 0x{byte:02x} at {error.start}); save it as UTF-8") from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # the latter from a thousand brackets
        raise InputError(f"{where}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: not an object")
    return row
