"""Fetches the selected source into data/raw: archives as they came, a catalogue, and where all of it is from."""

from pathlib import Path
from typing import Any

from stages.catalogue import Picture, write_catalogue
from stages.download.emoji import download_emoji, packages_for
from stages.download.folder import download_folder, folder_digest
from stages.errors import InputError
from stages.packages import PACKAGES
from stages.settings import DataSettings
from stages.storage import read_json, sha256_file, whole_folder, write_json

REFRESH = "run `python -m pipelines.refresh`"


def run(settings: DataSettings, lock: Path, raw: Path) -> None:
    """Fill data/raw from the source that params.yaml selects and source.lock.json pins.

    Raises:
        InputError: the lock pins another source or content than is there.
        FetchError: a package could not be fetched.
    """
    pinned = read_json(lock, REFRESH)
    check_pinned(settings, pinned, lock)
    with whole_folder(raw) as folder:
        pictures = _download(settings, folder)
        write_catalogue(folder, pictures)
        write_json(folder / "origin.json", _origin(settings, folder, pictures))
    print(f"{len(pictures)} pictures in {raw}")


def check_pinned(settings: DataSettings, pinned: dict[str, Any], lock: Path) -> None:
    """Compare the lock with what the settings select and what is there.

    Raises:
        InputError: they differ; the message says in what.
    """
    if pinned.get("source") != settings.source:
        raise InputError(f"{lock} pins source {pinned.get('source')}, params.yaml selects {settings.source}; {REFRESH}")
    expected = pinned_content(settings)
    if pinned != expected:
        differing = sorted(k for k in expected.keys() | pinned.keys() if pinned.get(k) != expected.get(k))
        raise InputError(f"{lock} pins other {', '.join(differing)} than the source has now; {REFRESH}")


def pinned_content(settings: DataSettings) -> dict[str, Any]:
    """Return what source.lock.json must hold for the selected source as it is now."""
    if settings.source == "folder":
        path = Path(settings.folder.path or "")
        # "own", "./own" and "own/" are one folder
        return {"source": "folder", "path": path.as_posix(), **folder_digest(path)}
    fields = ("name", "version", "file", "bytes", "sha256", "licence")
    packages = [PACKAGES[name] for name in packages_for(list(settings.emoji.styles))]
    return {"source": "emoji", "packages": [{f: getattr(p, f) for f in fields} for p in packages]}


def _download(settings: DataSettings, folder: Path) -> list[Picture]:
    if settings.source == "folder":
        return download_folder(settings.folder, folder)
    return download_emoji(settings.emoji, folder)


def _origin(settings: DataSettings, folder: Path, pictures: list[Picture]) -> dict[str, Any]:
    archives = sorted(path for path in folder.iterdir() if path.suffix in (".tar", ".tgz"))
    return {
        "source": settings.source,
        "pictures": len(pictures),
        "licences": sorted({picture.licence for picture in pictures}),
        "archives": [
            {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in archives
        ],
    }
