"""Files that are either whole or absent, and the hashes that name their content."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.errors import InputError, ResourceError

CHUNK = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def files_digest(folder: Path, names: Sequence[str]) -> str:
    """Return the sha256 of the only file, or of the names and sha256 of several."""
    if len(names) == 1:
        return sha256_file(folder / names[0])
    return sha256_json({name: sha256_file(folder / name) for name in names})


def sha256_tree(folder: Path) -> str:
    """Return one sha256 over the relative names and contents of all files below a folder, in name order."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON (sorted keys, no spaces)."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new bytes, never a part (temporary file, fsync, replace)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with a closing newline, atomically; NaN and infinity are refused."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, hint: str = "") -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is absent or not JSON; `hint` tells what makes it anew.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; {hint or 'an earlier stage writes it'}") from error
    except ValueError as error:
        remedy = hint or "delete it and run the stage that writes it"
        raise InputError(f"{path} is not valid JSON ({error}); {remedy}") from error


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable (POSIX; elsewhere a folder cannot be opened and nothing is done)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """Yield an empty sibling folder that takes the destination's place only if the block succeeds."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    replaced = destination.with_name(f".{destination.name}.replaced.partial")
    try:
        yield partial
        for path in partial.rglob("*"):
            if path.is_file():
                sync_file(path)
        shutil.rmtree(replaced, ignore_errors=True)
        if destination.exists():
            destination.replace(replaced)  # a kill from here to the next line leaves nothing, never a part
        partial.replace(destination)
    finally:
        if replaced.exists() and not destination.exists():  # stopped between the two renames
            replaced.replace(destination)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    sync_folder(destination.parent)


def require(path: Path, stage: str) -> Path:
    """Return a path that an earlier stage must have made.

    Raises:
        InputError: it is not there; the message names the stage to run.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; run `python -m stages.{stage}` or `dvc repro` first")
    return path


def check_free(folder: Path, needed: int, what: str) -> None:
    """Refuse to start what would fill the disk; the folder need not exist yet.

    Raises:
        ResourceError: less is free than `needed` bytes.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ResourceError(f"{what}: {needed / 1e6:.0f} MB are needed in {folder}, only {free / 1e6:.0f} MB are free")
