"""What names say: sub-folders are classes, metadata files hold captions (Hugging Face's imagefolder)."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from stages.catalogue import Picture
from stages.download.captions import METADATA, Metadata, check_all_there, read_captions
from stages.download.verdicts import plain
from stages.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".svg")
HIDDEN = ("__MACOSX",)


@dataclass(frozen=True)
class Source:
    """The pictures of a source, and what of it was set aside, each with its reason."""

    pictures: list[Picture]
    set_aside: dict[str, str] = field(default_factory=dict)


def is_picture(name: str) -> bool:
    """Tell by a name's ending whether it is a picture's."""
    return name.lower().endswith(SUFFIXES) and is_visible(name)


def is_metadata(name: str) -> bool:
    """Tell whether a name is that of a file of captions."""
    return PurePosixPath(name).name in METADATA and is_visible(name)


def is_visible(name: str) -> bool:
    """Tell whether no part of a name is hidden."""
    return not any(part.startswith(".") or part in HIDDEN for part in plain(name).split("/"))


def shared_top(names: list[str]) -> str:
    """Return the one top folder that all names share, with a slash, or nothing where they do not."""
    tops = {key.split("/")[0] if "/" in key else "" for key in map(plain, names)}
    top = tops.pop() if len(tops) == 1 else ""
    return f"{top}/" if top else ""


def described(
    where: str,
    archive: str,
    members: dict[str, str],
    metadata: list[Metadata],
    licence: str,
    set_aside: dict[str, str],
    top: str = "",
) -> Source:
    """List pictures with class, caption and licence; `members` maps their keys to the archive's names.

    Captions may name what was set aside, whose names still begin with `top`. What is unusual but allowed is said in a
    line each.

    Raises:
        InputError: there is no picture, or the metadata cannot be used.
    """
    check_any(where, members, set_aside)
    captions = read_captions(metadata)
    check_all_there(where, captions, {*members, *(plain(name).removeprefix(top) for name in set_aside)})
    pictures = [
        Picture(
            key=key,
            archive=archive,
            member=member,
            class_name=key.split("/")[0] if "/" in key else "",
            caption=captions.get(key, ""),
            licence=licence,
        )
        for key, member in members.items()
    ]
    for line in remarks(pictures):
        print(f"{where}: {line}", flush=True)
    return Source(pictures, set_aside)


def check_any(where: str, members: Collection[object], set_aside: dict[str, str]) -> None:
    """Refuse a source without pictures.

    Raises:
        InputError: there is none; what was set aside is told.
    """
    if members:
        return
    first = next((f"; set aside: {len(set_aside)}, the first is {n}: {why}" for n, why in set_aside.items()), "")
    raise InputError(f"{where} holds no picture ({', '.join(SUFFIXES)}){first}")


def remarks(pictures: list[Picture]) -> list[str]:
    """Say in a line each what is allowed but may not be meant: missing captions, classes of one picture."""
    said = []
    without = sum(not picture.caption for picture in pictures)
    if 0 < without < len(pictures):
        said.append(f"{without} of {len(pictures)} pictures have no caption")
    counts: dict[str, int] = {}
    for picture in pictures:
        counts[picture.class_name] = counts.get(picture.class_name, 0) + 1
    single = sorted(name for name, count in counts.items() if count == 1 and name)
    if single:
        said.append(f"{len(single)} of {len(counts)} classes have one picture, such as {single[0]}")
    if "" in counts and len(counts) > 1:
        said.append(f"{counts['']} pictures lie beside the folders of classes and have no class")
    return said
