"""The `folder` source: own pictures, a class per sub-folder, captions from metadata.jsonl or metadata.csv.

The layout is that of Hugging Face's imagefolder: https://huggingface.co/docs/datasets/image_dataset.
"""

import contextlib
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.archives import Member
from stages.download.captions import METADATA, Metadata
from stages.download.layout import Source, check_any, described, is_picture, is_visible
from stages.download.verdicts import control_character, shown, too_large
from stages.errors import InputError
from stages.progress import progress
from stages.settings import FolderSettings
from stages.storage import check_free, sha256_file

ARCHIVE = "pictures.tar"
WHAT = "data.folder.path"


@dataclass(frozen=True)
class Folder:
    """A source folder's pictures and metadata files in name order, and what was set aside with its reason."""

    path: Path
    pictures: list[Path]
    metadata: list[Path]
    set_aside: dict[str, str]

    @property
    def files(self) -> list[Path]:
        """All that counts, in name order."""
        return sorted([*self.pictures, *self.metadata])

    def name(self, path: Path) -> str:
        """The name of a file relative to the folder."""
        return path.relative_to(self.path).as_posix()


def source_files(folder: Path) -> Folder:
    """Look through a source folder; hidden files and folders and what is neither picture nor metadata do not count.

    Raises:
        InputError: the folder is absent, holds no picture or cannot be read, or a file's name is not UTF-8.
    """
    with reading(folder):
        check_folder(folder)
        root = folder.resolve()
        verdicts = {path: _verdict(path, root) for path in sorted(_visible_files(folder))}
    found = Folder(
        folder,
        pictures=[path for path, reason in verdicts.items() if not reason and is_picture(path.name)],
        metadata=[path for path, reason in verdicts.items() if not reason and path.name in METADATA],
        set_aside={shown(p.relative_to(folder).as_posix()): reason for p, reason in verdicts.items() if reason},
    )
    check_any(f"{WHAT} is {folder}, which", found.pictures, found.set_aside)
    return found


def check_folder(folder: Path) -> None:
    """Refuse a source that is no folder.

    Raises:
        InputError: it is absent or something else.
    """
    if not folder.is_dir():
        raise InputError(f"{WHAT} is {folder}, which is not a folder")


def _visible_files(folder: Path) -> Iterator[Path]:
    """Yield what may be a picture or metadata by its name, and every link to a folder; links are not followed."""
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if is_visible(name)]
        for name in folders:
            if (path := Path(parent, name)).is_symlink():
                yield path
        yield from (Path(parent, name) for name in names if is_picture(name) or name in METADATA)


def _verdict(path: Path, root: Path) -> str:
    """Return why a file cannot be used, or nothing."""
    check_name(path)
    reason = link_to_folder(path) or dangling(path) or link_out(path, root) or not_regular(path)
    if reason:
        return reason
    return control_character(path.as_posix()) or too_large(Member(path.name, path.stat().st_size))


def link_to_folder(path: Path) -> str:
    """Refuse links to folders, which may lead out or round in a circle."""
    return "a link to a folder is not followed" if path.is_symlink() and path.is_dir() else ""


def dangling(path: Path) -> str:
    """Refuse links to nothing or to themselves."""
    return "a link to nothing or to itself" if path.is_symlink() and not path.exists() else ""


def link_out(path: Path, root: Path) -> str:
    """Refuse links out of the folder: what they lead to was not chosen."""
    return "" if path.resolve().is_relative_to(root) else "a link out of the folder"


def not_regular(path: Path) -> str:
    """Refuse pipes, devices and sockets, of which reading may never end."""
    return "" if path.is_file() else "not a regular file"


def _refuse(error: OSError) -> None:
    """Stop at a folder that cannot be listed; os.walk would leave out its pictures without a word."""
    raise error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn a failure to read the source into one line: it is the user's folder, not a place that a stage writes."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read: {error.strerror}") from error


def check_name(path: Path) -> None:
    """Refuse a name that no table can hold.

    Raises:
        InputError: it is not UTF-8.
    """
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
    found = source_files(folder)
    total = 0
    for path in progress(found.files, "checking the source folder", len(found.files)):
        with reading(path):
            size, content = path.stat().st_size, sha256_file(path)
        total += size
        digest.update(f"{found.name(path)}\0{size}\0{content}\n".encode())
    return {"files": len(found.files), "bytes": total, "sha256": digest.hexdigest()}


def download_folder(settings: FolderSettings, folder: Path) -> Source:
    """Pack the pictures into one tar with fixed owners and times, and list them.

    Raises:
        InputError: the folder or its metadata cannot be used.
        ResourceError: the disk is too small.
    """
    found = source_files(Path(settings.path or ""))
    names = {found.name(path): path for path in found.pictures}
    metadata = [read_metadata(found, path) for path in found.metadata]
    source = described(str(found.path), ARCHIVE, {n: n for n in names}, metadata, settings.licence, found.set_aside)
    check_free(folder, sum(tar_bytes(path) for path in found.pictures), WHAT)
    with tarfile.open(folder / ARCHIVE, "w") as tar:
        for name, path in progress(names.items(), "packing pictures", len(names)):
            add_member(tar, name, _read(path))
    return source


def read_metadata(found: Folder, path: Path) -> Metadata:
    """Read one file of captions.

    Raises:
        InputError: it cannot be read.
    """
    with reading(path), path.open("rb") as stream:
        return Metadata(str(path), found.name(path), stream.read())


def tar_bytes(path: Path) -> int:
    """Return what a file takes in a tar: its header and whole blocks."""
    return tarfile.BLOCKSIZE * (2 + path.stat().st_size // tarfile.BLOCKSIZE)


def _read(path: Path) -> bytes:
    with reading(path):
        return path.read_bytes()


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file with nothing of its owner or time, so that equal pictures give an equal archive."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
