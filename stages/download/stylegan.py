"""The `stylegan` source: a zip of pictures with dataset.json, the layout of StyleGAN's data sets.

`labels` is null, or [[name, label], ...] with a label of 0 or more for every picture. Names of classes may stand in
`class_names`, which other readers do not look at. https://github.com/NVlabs/stylegan3#preparing-datasets
"""

import json
import shutil
from pathlib import Path
from typing import Any

from stages.archives import check_is_archive, members, read_members
from stages.catalogue import Picture
from stages.download.archive import damaged
from stages.download.layout import Source, check_any, is_picture, remarks
from stages.download.verdicts import judge, plain, shown
from stages.errors import InputError
from stages.settings.pictures import StyleganSettings
from stages.storage import check_free, sha256_file

WHAT = "data.stylegan.path"
DATASET = "dataset.json"
Labels = dict[str, int]


def stylegan_digest(path: Path) -> dict[str, Any]:
    """Return a zip's size and sha256.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    check_file(path)
    try:
        return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    except OSError as error:
        raise InputError(f"{WHAT} is {path}, which cannot be read: {error.strerror}") from error


def check_file(path: Path) -> None:
    """Refuse what is no file.

    Raises:
        InputError: it is absent or something else.
    """
    if not path.is_file():
        raise InputError(f"{WHAT} is {path}, which is not a file")


def download_stylegan(settings: StyleganSettings, folder: Path) -> Source:
    """Put the zip into a folder as it came, and list its pictures.

    Raises:
        InputError: it is no zip or tar, or its dataset.json cannot be used.
        ResourceError: the disk is too small.
    """
    path = Path(settings.path or "")
    check_is_archive(path, WHAT)
    source = list_stylegan(path, settings.licence)
    check_free(folder, path.stat().st_size, WHAT)
    shutil.copyfile(path, folder / path.name)
    return source


def list_stylegan(path: Path, licence: str) -> Source:
    """List the pictures of a StyleGAN data set with their classes; nothing is written.

    Raises:
        InputError: the archive or its dataset.json cannot be used.
    """
    usable, set_aside = judge(path.name, members(path, hint=""))
    names = [member.name for member in usable if is_picture(member.name)]
    description = _description(path, usable)
    labels = read_labels(description, names, [*set_aside])
    set_aside |= {shown(member): reason for member, reason in damaged(path, names).items()}
    classes = class_names(description, labels)
    pictures = [
        Picture(plain(name), path.name, name, classes[labels[name]] if labels else "", licence=licence)
        for name in names
        if shown(name) not in set_aside
    ]
    check_any(path.name, pictures, set_aside)
    for line in remarks(pictures):
        print(f"{path.name}: {line}", flush=True)
    return Source(pictures, set_aside)


def _description(path: Path, usable: list[Any]) -> dict[str, Any]:
    found = [member.name for member in usable if plain(member.name) == DATASET]
    data = next((data for _, data in read_members(path, found, hint="")), None)
    return read_description(path.name, data)


def read_description(source: str, data: bytes | None) -> dict[str, Any]:
    """Return dataset.json as an object.

    Raises:
        InputError: it is absent, not JSON or not an object.
    """
    if data is None:
        raise InputError(f"{source} holds no {DATASET}; for other zips take data.source archive or folder")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}/{DATASET} is not JSON ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict) or "labels" not in found:
        raise InputError(f"{source}/{DATASET} is not an object with `labels`")
    return found


def read_labels(description: dict[str, Any], names: list[str], set_aside: list[str]) -> Labels:
    """Return the label of each picture by its name, or nothing where `labels` is null.

    Raises:
        InputError: an entry is malformed, names no picture or names one again; or a picture has none.
    """
    entries = description["labels"]
    if entries is None:
        return {}
    if not isinstance(entries, list):
        raise InputError(f"{DATASET}: labels is neither null nor a list")
    by_key = {plain(name): name for name in names}
    labels: Labels = {}
    for number, entry in enumerate(entries, start=1):
        check_entry(number, entry)
        key = plain(entry[0].replace("\\", "/"))
        if key in by_key:
            check_once(number, key, by_key[key] in labels)
            labels[by_key[key]] = entry[1]
        else:
            check_known(number, key, set_aside)
    check_complete(names, labels)
    return labels


def check_entry(number: int, entry: Any) -> None:
    """Refuse an entry that is not a name with a class.

    Raises:
        InputError: it is something else, such as a float, a negative number or a vector.
    """
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        raise InputError(f"{DATASET}: label {number} is {shown(str(entry))}, expected [name, class]")
    if type(entry[1]) is not int or entry[1] < 0:
        raise InputError(f"{DATASET}: label {number} is {shown(str(entry[1]))}, expected a whole number from 0 on")


def check_once(number: int, name: str, again: bool) -> None:
    """Refuse a second label of a picture.

    Raises:
        InputError: it has one already.
    """
    if again:
        raise InputError(f"{DATASET}: label {number} is a second one for {shown(name)}")


def check_known(number: int, name: str, set_aside: list[str]) -> None:
    """Refuse a label of a picture that the archive lacks.

    Raises:
        InputError: it was not set aside either.
    """
    if shown(name) not in set_aside:
        raise InputError(f"{DATASET}: label {number} names {shown(name)}, which is no picture there")


def check_complete(names: list[str], labels: Labels) -> None:
    """Refuse labels of some pictures only.

    Raises:
        InputError: one has none; the first is named.
    """
    without = [name for name in names if name not in labels]
    if without:
        raise InputError(
            f"{DATASET}: {len(without)} of {len(names)} pictures have no label, such as {shown(without[0])}"
        )


def class_names(description: dict[str, Any], labels: Labels) -> dict[int, str]:
    """Return the name of each class: from `class_names`, else its number with zeros in front, so that they sort alike.

    Raises:
        InputError: `class_names` is not a list of different texts, one for each label.
    """
    highest = max(labels.values(), default=-1)
    given = description.get("class_names")
    if given is None:
        return {label: f"{label:0{len(str(highest))}d}" for label in set(labels.values())}
    texts = isinstance(given, list) and all(isinstance(name, str) and name for name in given)
    if not texts or len(set(given)) < len(given) or len(given) <= highest:
        raise InputError(f"{DATASET}: class_names must be different texts, one for each of {highest + 1} labels")
    return dict(enumerate(given))
