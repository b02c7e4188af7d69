"""Fetches the selected source into data/raw: archives as they came, a catalogue, and where all of it is from."""

from pathlib import Path
from typing import Any

from stages.catalogue import NAME, ORIGIN, Picture, write_catalogue
from stages.download.archive import archive_pins, download_archive, is_pinned, pin_archive
from stages.download.emoji import download_emoji, packages_for
from stages.download.folder import download_folder, folder_digest
from stages.download.layout import Source
from stages.download.stylegan import download_stylegan, stylegan_digest
from stages.download.torchvision_source import download_torchvision, pin_torchvision, torchvision_pins
from stages.download.verdicts import check_share
from stages.errors import InputError
from stages.packages import PACKAGES
from stages.settings import DataSettings
from stages.storage import read_json, sha256_file, whole_folder, write_json

REFRESH = "run `python -m pipelines.refresh`"
TOLD = 5  # of what is set aside: the rest stands in origin.json


def run(settings: DataSettings, lock: Path, raw: Path) -> None:
    """Fill data/raw from the source that params.yaml selects and source.lock.json pins.

    Raises:
        InputError: the lock pins another source or content than is there, or the source cannot be used.
        FetchError: a package or file could not be fetched.
        ResourceError: the disk is too small.
    """
    pinned = read_json(lock, REFRESH)
    check_pinned(settings, pinned, lock)
    with whole_folder(raw) as folder:
        source = _download(settings, pinned, folder)
        check_share(f"data.source {settings.source}", source.set_aside, len(source.pictures), settings.max_reject_share)
        write_catalogue(folder, source.pictures)
        write_json(folder / ORIGIN, _origin(settings, folder, source))
    _tell(source.set_aside, raw)
    print(f"{len(source.pictures)} pictures in {raw}")


def check_pinned(settings: DataSettings, pinned: Any, lock: Path) -> None:
    """Compare the lock with what the settings select and, where that needs no network, with what is there.

    Raises:
        InputError: they differ; the message says in what.
    """
    if not isinstance(pinned, dict):
        raise InputError(f"{lock} holds no object; {REFRESH}")
    if pinned.get("source") != settings.source:
        raise InputError(f"{lock} pins source {pinned.get('source')}, params.yaml selects {settings.source}; {REFRESH}")
    expected = _expected(settings, pinned)
    if pinned != expected:
        differing = sorted(k for k in expected.keys() | pinned.keys() if pinned.get(k) != expected.get(k))
        raise InputError(f"{lock} pins other {', '.join(differing)} than the source has now; {REFRESH}")


def _expected(settings: DataSettings, pinned: dict[str, Any]) -> dict[str, Any]:
    """Return what the lock must hold; of what lies behind the network only what the settings decide."""
    if settings.source == "archive":
        known = pinned if is_pinned(pinned) else {"sha256": None, "bytes": None}
        return known | archive_pins(settings.archive)
    if settings.source == "torchvision":
        return pinned | torchvision_pins(settings.torchvision)
    return pinned_content(settings)


def pinned_content(settings: DataSettings, locked: dict[str, Any] | None = None, poll: bool = False) -> dict[str, Any]:
    """Return what source.lock.json must hold for the selected source as it is now.

    What `locked` says of files behind the network is believed, unless `poll`.

    Raises:
        InputError: the source cannot be used.
        FetchError: it could not be reached.
    """
    if settings.source == "folder":
        path = Path(settings.folder.path or "")
        # "own", "./own" and "own/" are one folder
        return {"source": "folder", "path": path.as_posix(), **folder_digest(path)}
    if settings.source == "stylegan":
        path = Path(settings.stylegan.path or "")
        return {"source": "stylegan", "path": path.as_posix(), **stylegan_digest(path)}
    if settings.source == "archive":
        return pin_archive(settings.archive, locked or {}, poll)
    if settings.source == "torchvision":
        return pin_torchvision(settings.torchvision, locked or {}, poll)
    fields = ("name", "version", "file", "bytes", "sha256", "licence")
    packages = [PACKAGES[name] for name in packages_for(list(settings.emoji.styles))]
    return {
        "source": "emoji",
        **settings.emoji.model_dump(mode="json"),  # other subgroups are other pictures: what is known is kept first
        "packages": [{f: getattr(p, f) for f in fields} for p in packages],
    }


def _download(settings: DataSettings, pinned: dict[str, Any], folder: Path) -> Source:
    if settings.source == "folder":
        return download_folder(settings.folder, folder)
    if settings.source == "archive":
        return download_archive(settings.archive, pinned, folder)
    if settings.source == "torchvision":
        return download_torchvision(settings.torchvision, pinned, folder)
    if settings.source == "stylegan":
        return download_stylegan(settings.stylegan, folder)
    return Source(download_emoji(settings.emoji, folder))


def _tell(set_aside: dict[str, str], raw: Path) -> None:
    for name, reason in list(set_aside.items())[:TOLD]:
        print(f"set aside: {name}: {reason}")
    if len(set_aside) > TOLD:
        print(f"set aside: {len(set_aside) - TOLD} more, listed in {raw / ORIGIN}")


def _origin(settings: DataSettings, folder: Path, source: Source) -> dict[str, Any]:
    archives = sorted(path for path in folder.iterdir() if path.name != NAME)
    return {
        "source": settings.source,
        "pictures": len(source.pictures),
        "licences": _licences(source.pictures),
        "archives": [
            {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in archives
        ],
        "quarantined": source.set_aside,
    }


def _licences(pictures: list[Picture]) -> list[str]:
    return sorted({picture.licence for picture in pictures})
