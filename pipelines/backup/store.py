"""A back-up's folder: contents by their sha256, and a manifest, written last, that gives them their names.

A back-up that is cut off leaves the one before it whole, since nothing that its manifest names is touched.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stages.errors import InputError
from stages.storage import CHUNK, read_json, sha256_file, sha256_json, sync_folder, write_json

FORMAT = 1
MANIFEST, OBJECTS, BUNDLES = "manifest.json", "objects", "repository-*.bundle"
NAMED = 5  # files in a message


@dataclass(frozen=True)
class Entry:
    """A file of the project: its content, size, mode, and when it was written (nanoseconds since 1970)."""

    sha256: str
    bytes: int
    mode: int
    modified: int


@dataclass
class Manifest:
    """What a back-up holds: files by their name in the project, and of what, when and where it was made."""

    project: str
    created: str = ""
    commit: str | None = None
    branch: str | None = None
    uncommitted: list[str] = field(default_factory=list)
    bundle: dict[str, str] | None = None  # name and sha256
    files: dict[str, Entry] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """The bytes of all its files, each content counted once."""
        return sum({entry.sha256: entry.bytes for entry in self.files.values()}.values())


class Store:
    """The folder of a back-up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether a whole back-up is there."""
        return (self.folder / MANIFEST).exists()

    def prepare(self) -> None:
        """Make the folder, for its owner alone.

        Raises:
            InputError: there is something else in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ours = (OBJECTS, BUNDLES, "*.partial")
        foreign = [path.name for path in self.folder.iterdir() if not any(path.match(pattern) for pattern in ours)]
        if foreign and not self.exists:
            raise InputError(f"{self.folder} is no back-up, but holds {foreign[0]}; expected an empty or new folder")
        (self.folder / OBJECTS).mkdir(exist_ok=True)

    def read(self) -> Manifest:
        """Return the manifest.

        Raises:
            InputError: there is none, or it is damaged or of another format.
        """
        path = self.folder / MANIFEST
        content = dict(read_json(path, "is that the folder of a back-up?"))
        seal = content.pop("sha256", None)
        if seal != sha256_json(content):
            raise InputError(f"{path} is damaged: its content is not what its sha256 says")
        if content.pop("format") != FORMAT:
            raise InputError(f"{path} is of another format; expected {FORMAT}: use the version that made it")
        files = {name: Entry(**entry) for name, entry in content.pop("files").items()}
        return Manifest(**content, files=files)

    def write(self, manifest: Manifest) -> None:
        """Seal a back-up whose contents are all there, then drop contents that no file has any more."""
        manifest.created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        content: dict[str, Any] = {"format": FORMAT, **asdict(manifest)}
        write_json(self.folder / MANIFEST, {**content, "sha256": sha256_json(content)})
        wanted = {self.path(entry.sha256) for entry in manifest.files.values()}
        wanted |= {self.folder / manifest.bundle["name"]} if manifest.bundle else set()
        for path in [*(self.folder / OBJECTS).glob("*/*"), *self.folder.glob(BUNDLES)]:
            if path not in wanted:
                path.unlink()

    def path(self, sha256: str) -> Path:
        """Return where a content lies."""
        return self.folder / OBJECTS / sha256[:2] / sha256

    def holds(self, entry: Entry) -> bool:
        """Return whether a content of the right size is there."""
        path = self.path(entry.sha256)
        return path.exists() and path.stat().st_size == entry.bytes

    def put(self, source: Path) -> Entry:
        """Copy a file's content, unless it is there, and return its entry; it is read once."""
        about = source.stat()  # before it is read: what is written meanwhile is newer, and copied the next time
        with _copied(source, self.folder / OBJECTS) as (partial, sha256):
            entry = Entry(sha256, partial.stat().st_size, about.st_mode & 0o777, about.st_mtime_ns)
            if not self.holds(entry):
                target = self.path(sha256)
                target.parent.mkdir(exist_ok=True)
                partial.replace(target)
                sync_folder(target.parent)
        return entry

    def problems(self, manifest: Manifest) -> list[str]:
        """Return the names of the files whose content is missing or not what the manifest says."""
        bad = {entry.sha256 for entry in manifest.files.values() if not self._is_good(entry)}
        names = [name for name, entry in manifest.files.items() if entry.sha256 in bad]
        bundle = manifest.bundle
        if bundle and not _has(self.folder / bundle["name"], bundle["sha256"]):
            names.append(bundle["name"])
        return names

    def _is_good(self, entry: Entry) -> bool:
        return _has(self.path(entry.sha256), entry.sha256)

    def check(self, manifest: Manifest) -> None:
        """Read every content of the back-up.

        Raises:
            InputError: some are damaged; their names in the project are told.
        """
        if bad := self.problems(manifest):
            raise InputError(f"back-up {self.folder} is damaged: {first_of(bad)} missing or altered")


def first_of(names: list[str]) -> str:
    """Return the first few of many names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _has(path: Path, sha256: str) -> bool:
    return path.exists() and sha256_file(path) == sha256


@contextlib.contextmanager
def _copied(source: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield a durable copy of a file that is gone after the block unless it was moved, and its sha256."""
    partial = folder / f".{os.getpid()}.partial"
    digest = hashlib.sha256()
    try:
        with source.open("rb") as reader, partial.open("wb") as writer:
            while block := reader.read(CHUNK):
                digest.update(block)
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
        yield partial, digest.hexdigest()
    finally:
        partial.unlink(missing_ok=True)


def give_back(content: Path, target: Path, entry: Entry) -> None:
    """Put a content to its place in a project, with the mode and time that it had; the old file stays until then."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        shutil.copyfile(content, partial)
        partial.chmod(entry.mode)
        os.utime(partial, ns=(entry.modified, entry.modified))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
