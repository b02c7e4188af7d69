"""The `torchvision` source: files that we fetch and verify, pictures that torchvision parses from them."""

import io
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from stages.catalogue import Picture
from stages.download.fetching import Remote, fetch
from stages.download.folder import ARCHIVE, add_member
from stages.download.layout import Source
from stages.download.torchvision_sets import Parsed, files_of, parse
from stages.errors import InputError
from stages.progress import progress
from stages.settings.pictures import TorchvisionSettings
from stages.storage import check_free

WHAT = "data.torchvision.dataset"
BLOCKS = 2 * tarfile.BLOCKSIZE  # of a tar, beside a picture


def torchvision_pins(settings: TorchvisionSettings) -> dict[str, Any]:
    """Return what of source.lock.json the settings alone decide."""
    return {"source": "torchvision", "dataset": settings.dataset, "split": settings.split}


def pin_torchvision(settings: TorchvisionSettings, locked: dict[str, Any], poll: bool) -> dict[str, Any]:
    """Return what source.lock.json must hold; files are fetched where nothing is pinned yet.

    Their md5 are published, so what is pinned cannot become another without an error: there is nothing to poll.

    Raises:
        FetchError: a server could not be reached.
        InputError: it refused, or its file is not the published one.
    """
    pins = torchvision_pins(settings)
    remotes = _remotes(settings)
    if pins.items() <= locked.items() and _addresses(locked) == [remote.url for remote in remotes]:
        return locked
    files = []
    for remote in remotes:
        found = fetch(remote)
        print(f"{remote.url}: pinned from now on as sha256 {found.sha256}, {found.bytes:,} bytes", flush=True)
        files.append({"url": remote.url, "bytes": found.bytes, "sha256": found.sha256})
    return pins | {"files": files}


def download_torchvision(settings: TorchvisionSettings, pinned: dict[str, Any], folder: Path) -> Source:
    """Put the pinned files into a folder as they came, beside a tar of the pictures that torchvision reads from them.

    Raises:
        FetchError: a server could not be reached.
        InputError: a file is not the pinned one, or torchvision cannot read it.
        ResourceError: the disk is too small.
    """
    check_same_files(settings, pinned)
    found = [fetch(remote) for remote in _remotes(settings, pinned["files"])]
    check_free(folder, 2 * sum(file.bytes for file in found), WHAT)
    for file in found:
        shutil.copyfile(file.path, folder / file.path.name)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".parse-") as root:
        dataset, split = settings.dataset or "", settings.split
        parsed = parse(dataset, split, [folder / file.path.name for file in found], Path(root))
        return Source(_pack(parsed, settings, folder))


def check_same_files(settings: TorchvisionSettings, pinned: dict[str, Any]) -> None:
    """Refuse a lock of other files than torchvision names now.

    Raises:
        InputError: it is.
    """
    expected = [address for address, _ in files_of(settings.dataset or "", settings.split)]
    if _addresses(pinned) != expected:
        raise InputError(
            f"{WHAT}: source.lock.json pins other files than torchvision names; run `python -m pipelines.refresh`"
        )


def _addresses(pinned: dict[str, Any]) -> list[str]:
    """Return the addresses of a lock's files, or none where it is of another source or damaged."""
    files = pinned.get("files")
    if not isinstance(files, list) or not all(isinstance(entry, dict) for entry in files):
        return []
    whole = all(isinstance(entry.get("sha256"), str) and isinstance(entry.get("bytes"), int) for entry in files)
    return [str(entry.get("url")) for entry in files] if whole else []


def _remotes(settings: TorchvisionSettings, pinned: list[dict[str, Any]] | None = None) -> list[Remote]:
    files = files_of(settings.dataset or "", settings.split)
    pins = pinned or [{}] * len(files)
    return [
        Remote(address, WHAT, pin.get("sha256"), pin.get("bytes"), md5)
        for (address, md5), pin in zip(files, pins, strict=True)
    ]


def _pack(parsed: Parsed, settings: TorchvisionSettings, folder: Path) -> list[Picture]:
    count = len(parsed.pictures)
    width, height = parsed.pictures[0][0].size
    check_free(folder, count * (3 * width * height + BLOCKS), WHAT)
    listed = []
    with tarfile.open(folder / ARCHIVE, "w") as tar:
        for number in progress(range(count), "packing pictures", count):
            picture, label = parsed.pictures[number]
            key = f"{settings.split}/{number:0{len(str(count - 1))}d}.png"
            add_member(tar, key, _png(picture))
            listed.append(Picture(key, ARCHIVE, key, _class_name(parsed, int(label)), licence=settings.licence))
    return listed


def _class_name(parsed: Parsed, label: int) -> str:
    return parsed.classes[label] if parsed.classes else f"{label:02d}"


def _png(picture: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
