"""The `archive` source: a zip or tar behind an https address, laid out like a folder, kept as it came."""

import shutil
from pathlib import Path
from typing import Any

from stages.addresses import filled, public
from stages.archives import check_is_archive, members, read_members, unreadable_members
from stages.download.captions import Metadata
from stages.download.fetching import Remote, changed, fetch
from stages.download.layout import Source, described, is_metadata, is_picture, shared_top
from stages.download.verdicts import judge, plain, shown
from stages.progress import progress
from stages.settings.pictures import ArchiveSettings
from stages.storage import check_free

WHAT = "data.archive.url"


def archive_remote(settings: ArchiveSettings, pinned: dict[str, Any]) -> Remote:
    """Return what is to be fetched: the settings' pins, else the lock's."""
    sha256, size = settings.sha256 or pinned.get("sha256"), settings.bytes or pinned.get("bytes")
    url = settings.url or ""
    return Remote(filled(url, WHAT), WHAT, sha256, size, written=url)


def archive_pins(settings: ArchiveSettings) -> dict[str, Any]:
    """Return what of source.lock.json the settings alone decide."""
    fixed = {"source": "archive", "url": public(settings.url or ""), "sha256": settings.sha256, "bytes": settings.bytes}
    return {name: value for name, value in fixed.items() if value is not None}


def pin_archive(settings: ArchiveSettings, locked: dict[str, Any], poll: bool) -> dict[str, Any]:
    """Return what source.lock.json must hold; the network is asked where nothing is pinned yet, or to `poll`.

    Raises:
        FetchError: the server could not be reached.
        InputError: it refused, or its file is not the pinned one or no archive.
    """
    pins = archive_pins(settings)
    if {"sha256", "bytes"} <= pins.keys():
        return pins
    known = locked if pins.items() <= locked.items() and is_pinned(locked) else None
    if known and not (poll and changed(archive_remote(settings, known), known["sha256"], known["bytes"])):
        return known
    found = fetch(archive_remote(settings, {}), check_is_archive)
    print(f"{pins['url']}: pinned from now on as sha256 {found.sha256}, {found.bytes:,} bytes", flush=True)
    return pins | {"sha256": found.sha256, "bytes": found.bytes}


def is_pinned(locked: dict[str, Any]) -> bool:
    """Tell whether a lock says which file it pins."""
    return isinstance(locked.get("sha256"), str) and isinstance(locked.get("bytes"), int)


def download_archive(settings: ArchiveSettings, pinned: dict[str, Any], folder: Path) -> Source:
    """Put the pinned archive into a folder as it came, and list its pictures.

    Raises:
        FetchError: the server could not be reached.
        InputError: the archive is not the pinned one, or cannot be used.
    """
    found = fetch(archive_remote(settings, pinned), check_is_archive)
    check_free(folder, found.bytes, WHAT)
    kept = folder / found.path.name
    source = list_archive(found.path, kept.name, settings.licence)
    shutil.copyfile(found.path, kept)
    return source


def list_archive(path: Path, name: str, licence: str) -> Source:
    """Judge an archive's members and list its pictures; nothing is written.

    Raises:
        InputError: the archive or its metadata cannot be used.
    """
    usable, set_aside = judge(name, members(path, hint=""))
    wanted = [member.name for member in usable if is_picture(member.name) or is_metadata(member.name)]
    unreadable = damaged(path, wanted)
    set_aside |= {shown(member): reason for member, reason in unreadable.items()}
    top = shared_top(wanted)
    keys = {plain(member).removeprefix(top): member for member in wanted if member not in unreadable}
    metadata = _metadata(path, name, {member: key for key, member in keys.items() if is_metadata(key)})
    pictures = {key: member for key, member in keys.items() if is_picture(key)}
    return described(name, name, pictures, metadata, licence, set_aside, top)


def damaged(path: Path, wanted: list[str]) -> dict[str, str]:
    """Return the members that cannot be read whole, with their reason."""
    checked = progress(unreadable_members(path, wanted), "checking the archive", len(wanted))
    return {member: reason for member, reason in checked if reason}


def _metadata(path: Path, archive: str, keys: dict[str, str]) -> list[Metadata]:
    found = read_members(path, keys, hint="")
    return [Metadata(f"{archive}/{member}", keys[member], data) for member, data in found]
