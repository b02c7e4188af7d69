"""What a hostile source is: how it is built, which guard stands against it, what is said, how the stage ends."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.stages import hostile_archives as made
from tests.stages.archive_files import as_tar, as_zip

GOOD = made.GOOD
SET_ASIDE, REFUSED = 0, 2
ARCHIVES, VERDICTS = "stages.archives", "stages.download.verdicts"
CAPTIONS, LAYOUT = "stages.download.captions", "stages.download.layout"
FETCHING, FOLDER, STYLEGAN = "stages.download.fetching", "stages.download.folder", "stages.download.stylegan"


Build = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One hostile source.

    `build` puts it into a folder and returns the `data` settings; `gone` is what the guard returns when taken out.
    """

    name: str
    build: Build
    guard: str
    words: tuple[str, ...]
    code: int = REFUSED
    gone: Any = None
    limits: dict[str, int] = field(default_factory=dict)


def archive(make: Callable[[], bytes], suffix: str = "zip") -> Build:
    """A source of bytes that have been fetched already, so that no server is needed."""

    def build(folder: Path) -> dict[str, Any]:
        from stages.download.fetching import cached
        from stages.storage import sha256_bytes

        data = make()
        sha256, name = sha256_bytes(data), f"set.{suffix}"
        path = cached(sha256, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        settings = {"url": f"https://127.0.0.1:1/{name}", "sha256": sha256, "bytes": len(data), "licence": "CC0-1.0"}
        return {"source": "archive", "archive": settings}

    return build


def served(name: str, data: Callable[[], bytes], **pins: Any) -> Build:
    """A source that is fetched from the loopback server, whose address the test puts in."""

    def build(folder: Path) -> dict[str, Any]:
        return {
            "source": "archive",
            "archive": {"url": name, "sha256": None, "bytes": None, "licence": "CC0-1.0", **pins},
            "served": data(),
        }

    return build


def folder(change: Callable[[Path], object], good: bool = True) -> Build:
    """A folder of good pictures that a function spoils."""

    def build(outside: Path) -> dict[str, Any]:
        own = outside / "own"
        for name, data in (GOOD if good else {}).items():
            (own / name).parent.mkdir(parents=True, exist_ok=True)
            (own / name).write_bytes(data)
        own.mkdir(exist_ok=True)
        change(own)
        return {"source": "folder", "folder": {"path": str(own)}}

    return build


def stylegan(description: object) -> Build:
    """A StyleGAN data set of good pictures with a dataset.json: an object, or bytes as they are."""
    data = description if isinstance(description, bytes) else json.dumps(description).encode()
    return stylegan_zip(as_zip(GOOD | ({"dataset.json": data} if data else {})))


def stylegan_zip(data: bytes) -> Build:
    """A StyleGAN data set of any bytes."""

    def build(outside: Path) -> dict[str, Any]:
        (outside / "set.zip").write_bytes(data)
        return {"source": "stylegan", "stylegan": {"path": str(outside / "set.zip")}}

    return build


def links(own: Path) -> None:
    """Nothing but links to nothing."""
    for number in range(5):
        (own / f"{number}.png").symlink_to(f"/absent/{number}")


def a_file(own: Path) -> None:
    """A picture in the place of the folder."""
    own.rmdir()
    own.write_bytes(made.BAD)


def tgz(members: dict[str, bytes]) -> bytes:
    """A tar compressed by gzip."""
    return as_tar(members, "w:gz")


def txz(members: dict[str, bytes]) -> bytes:
    """A tar compressed by xz."""
    return as_tar(members, "w:xz")


def tbz(members: dict[str, bytes]) -> bytes:
    """A tar compressed by bzip2."""
    return as_tar(members, "w:bz2")


def half(data: bytes) -> bytes:
    """The first half."""
    return data[: len(data) // 2]


def labels(*changes: object) -> dict[str, Any]:
    """A dataset.json that labels all pictures with 0, and changes at its end."""
    return {"labels": [[name, 0] for name in GOOD] + list(changes)}


def with_metadata(data: bytes, name: str = "metadata.jsonl") -> Build:
    """A zip of good pictures with a metadata file."""
    return archive(lambda: as_zip(GOOD | {name: data}))


def leaves(name: str, build: Build) -> Case:
    """A case of a name that leads out of the folder."""
    return Case(name, build, f"{VERDICTS}.check_inside", ("leads out of its folder", "nothing of it is used"))


def aside(name: str, build: Build, verdict: str, *words: str) -> Case:
    """A case of one member that is set aside with its reason while the others are used."""
    return Case(name, build, verdict, words, SET_ASIDE, gone="")
