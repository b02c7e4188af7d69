"""The data sets that torchvision parses for us: what is fetched from where, where it expects it, what its classes are.

Addresses and md5 are torchvision's own class attributes where it has them; http is replaced by https.
"""

import bz2
import gzip
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stages.archives import member_names, read_members
from stages.errors import InputError

FASHION = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"  # md5 as torchvision's
EUROSAT = (
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
    "c8fa014336c82ac7804f0398fcb19387",
)
MAX_UNPACKED = 1 << 30
File = tuple[str, str]  # address, md5


@dataclass(frozen=True)
class Parsed:
    """What torchvision made of the files: pictures with labels, and the classes' names (empty: numbers)."""

    pictures: Sequence[tuple[Any, int]]
    classes: Sequence[str]


@dataclass(frozen=True)
class Kind:
    """How one family of data sets is fetched, laid out for torchvision and opened; each takes the class first."""

    files: Callable[[Any, str], list[File]]
    place: Callable[[Any, Path, Path], None]
    open: Callable[[Any, Path, str], Any]


def files_of(dataset: str, split: str) -> list[File]:
    """Return address and md5 of each file of a data set."""
    kind, cls = _find(dataset)
    return [(address.replace("http://", "https://", 1), md5) for address, md5 in kind.files(cls, split)]


def parse(dataset: str, split: str, files: list[Path], root: Path) -> Parsed:
    """Lay verified files out below an empty folder and let torchvision read them.

    Raises:
        InputError: torchvision refuses them.
    """
    kind, cls = _find(dataset)
    try:
        for path in files:
            kind.place(cls, path, root)
        opened = kind.open(cls, root, split)
    except (RuntimeError, ValueError, AssertionError, TypeError, KeyError, EOFError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"data.torchvision.dataset is {dataset}: torchvision cannot read its files: {reason}"
        ) from error
    return Parsed(opened, list(getattr(opened, "classes", ())))


def _find(dataset: str) -> tuple[Kind, Any]:
    import torchvision.datasets

    return SETS[dataset], getattr(torchvision.datasets, dataset)


def _by_train(cls: Any, root: Path, split: str) -> Any:
    return cls(root, train=split == "train", download=False)


def _by_split(cls: Any, root: Path, split: str) -> Any:
    return cls(root, split=split, download=False)


def _whole(cls: Any, root: Path, split: str) -> Any:
    return cls(root, download=False)


def _cifar_files(cls: Any, split: str) -> list[File]:
    return [(cls.url, cls.tgz_md5)]


def _place_cifar(cls: Any, path: Path, root: Path) -> None:
    names = [name for name, _ in [*cls.train_list, *cls.test_list]] + [cls.meta["filename"]]
    _place_members(path, root, {f"{cls.base_folder}/{name}" for name in names})


def _mnist_files(cls: Any, split: str, base: str = "") -> list[File]:
    return [((base or cls.mirrors[0]) + name, md5) for name, md5 in cls.resources]


def _place_mnist(cls: Any, path: Path, root: Path) -> None:
    target = root / cls.__name__ / "raw" / path.name.removesuffix(".gz")
    target.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path) as stream:
        target.write_bytes(_bounded(stream, path))


def _listed_files(cls: Any, split: str) -> list[File]:
    address, _, md5 = cls.split_list[split]
    return [(address, md5)]


def _place_file(cls: Any, path: Path, root: Path, below: str = "") -> None:
    (root / below).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, root / below / path.name)


def _place_usps(cls: Any, path: Path, root: Path) -> None:
    with bz2.open(path) as stream:
        _bounded(stream, path)
    _place_file(cls, path, root)


def _flowers_files(cls: Any, split: str) -> list[File]:
    return [(cls._download_url_prefix + name, md5) for name, md5 in cls._file_dict.values()]


def _place_flowers(cls: Any, path: Path, root: Path) -> None:
    if path.suffix == ".tgz":
        _place_members(path, root / "flowers-102", _matching(path, r"jpg/image_\d{5}\.jpg"))
    else:
        _place_file(cls, path, root, "flowers-102")


def _eurosat_files(cls: Any, split: str) -> list[File]:
    return [EUROSAT]


def _place_eurosat(cls: Any, path: Path, root: Path) -> None:
    _place_members(path, root / "eurosat", _matching(path, r"2750/[A-Za-z]+/[A-Za-z]+_\d+\.jpg"))


def _matching(archive: Path, pattern: str) -> set[str]:
    return {name for name in member_names(archive) if re.fullmatch(pattern, name, re.ASCII)}


def _place_members(archive: Path, root: Path, wanted: set[str]) -> None:
    """Write members whose whole names are known; none else is looked at."""
    for name, data in read_members(archive, wanted):
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _bounded(stream: Any, path: Path) -> bytes:
    data: bytes = stream.read(MAX_UNPACKED + 1)
    if len(data) > MAX_UNPACKED:
        raise InputError(f"{path.name} unpacks to more than {MAX_UNPACKED:,} bytes")
    return data


CIFAR = Kind(_cifar_files, _place_cifar, _by_train)
MNIST = Kind(_mnist_files, _place_mnist, _by_train)
SETS = {
    "CIFAR10": CIFAR,
    "CIFAR100": CIFAR,
    "MNIST": MNIST,
    "KMNIST": MNIST,
    "FashionMNIST": Kind(partial(_mnist_files, base=FASHION), _place_mnist, _by_train),
    "SVHN": Kind(_listed_files, _place_file, _by_split),
    "USPS": Kind(_listed_files, _place_usps, _by_train),
    "Flowers102": Kind(_flowers_files, _place_flowers, _by_split),
    "EuroSAT": Kind(_eurosat_files, _place_eurosat, _whole),
}
