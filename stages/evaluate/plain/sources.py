"""Where pictures come from: a folder, a split of data/images, a trained model or an ONNX file, each as a PictureSet."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import InputError
from stages.evaluate.conditioning import Conditioned, captions_of, wanted_labels, wanted_prompts
from stages.evaluate.plain.folder_pictures import COLOUR, Folder, open_folder, shown
from stages.generators.interface import Generator
from stages.generators.noise import RECIPE
from stages.storage import read_json

if TYPE_CHECKING:  # torch is imported once arguments and files are known to be good
    from stages.dataset import ImageDataset
    from stages.metrics.features import PictureSet

FOLDER, SPLIT, MODEL, ONNX = "folder", "split", "model", "onnx"
SPLITS = {"train": "train", "holdout": "holdout", "all": None}
MODELS = Path("models")
CPU_PROVIDER = "CPUExecutionProvider"
MOST = 10**6  # pictures of a generator: its seeds must stay below those of the next --seed
SOURCES = (
    "a folder of pictures, DATA:train or DATA:holdout for a folder that normalize wrote, a trained model's name or "
    "weights folder, or an .onnx file"
)


@dataclass(frozen=True)
class Place:
    """A source that is known to be there, not yet opened; `text` is how the user named it."""

    text: str
    kind: str
    path: Path
    split: str | None = None


@dataclass(frozen=True)
class Draw:
    """How pictures are taken from a source: how many (None: all, or as many as the reference), seed, batch, provider.

    A generator's seeds begin at a million times `seed`; of a folder or split, `count` are chosen by `seed`.
    """

    count: int | None = None
    seed: int = 0
    batch: int = 64
    provider: str = CPU_PROVIDER


@dataclass(frozen=True)
class Source:
    """Pictures with what a reader of scores must know of them: sizes (width, height), file formats, origin, notes.

    `captions` are those of its pictures that have one.
    """

    pictures: "PictureSet"
    sizes: list[tuple[int, int]]
    formats: list[str]
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)


def find_source(text: str) -> Place:
    """Tell what kind of source a text names, by what is there; an existing path goes before a model's name.

    Raises:
        InputError: nothing of that name is a source.
    """
    path, (data, _, split) = Path(text).expanduser(), text.rpartition(":")
    if text.endswith(".onnx"):
        return Place(text, ONNX, path)
    if data and not path.exists() and (split in SPLITS or _is_dataset(Path(data))):
        return _find_split(text, Path(data).expanduser(), split)
    if _is_dataset(path):
        raise InputError(f"{shown(text)} is a data set of several splits; expected {shown(text)}:train or :holdout")
    if weights := _find_weights(path):
        return Place(text, MODEL, weights)
    if path.is_dir():
        return Place(text, FOLDER, path)
    if weights := _find_weights(MODELS / text):
        return Place(text, MODEL, weights)
    found = "is a file" if path.exists() else "does not exist"
    raise InputError(f"{shown(text)} {found}; expected {SOURCES}")


def _find_weights(path: Path) -> Path | None:
    """Return the weights folder that a path is or holds."""
    for weights in (path, path / "training" / "weights"):
        config = weights / "config.json"
        if config.is_file() and "family" in read_json(config):
            return weights
    return None


def _is_dataset(path: Path) -> bool:
    return (path / "dataset.json").is_file() and (path / "index.parquet").is_file()


def _find_split(text: str, path: Path, split: str) -> Place:
    if split not in SPLITS:
        raise InputError(f"{shown(text)}: there is no split {shown(split)}; expected one of {', '.join(SPLITS)}")
    if not _is_dataset(path):
        raise InputError(f"{shown(path)} holds no data set; run `python -m stages.normalize` or `dvc repro` first")
    return Place(text, SPLIT, path, SPLITS[split])


def look(place: Place, draw: Draw) -> "Folder | ImageDataset | None":
    """Read a folder's headers or a split's index, so that what is wrong with them is told before torch is imported.

    Raises:
        InputError: it is empty, has fewer pictures than are asked for, or one of them is broken.
    """
    if place.kind == FOLDER:
        return open_folder(place.path, draw.count, draw.seed)
    if place.kind == SPLIT:
        return _open_split(place, draw)
    if draw.count is not None and not 0 < draw.count <= MOST:
        raise InputError(f"{shown(place.text)}: {draw.count} pictures are asked for; expected 1 to {MOST}")
    if place.kind == ONNX and not place.path.is_file():
        raise InputError(f"{shown(place.path)} is no file; expected one that `python -m stages.export NAME` wrote")
    return None


def _open_split(place: Place, draw: Draw) -> "ImageDataset":
    from stages.dataset import ImageDataset

    dataset = ImageDataset(place.path, place.split)
    if not len(dataset):
        raise InputError(f"{shown(place.text)} has no pictures; change normalize.holdout in params.yaml")
    if draw.count is not None and draw.count > len(dataset):
        raise InputError(f"{shown(place.text)} has {len(dataset)} pictures, {draw.count} are asked for; ask for fewer")
    return dataset


def open_source(place: Place, draw: Draw, contents: Any = None, reference: Source | None = None) -> Source:
    """Open a source; `contents` is what `look` returned for it.

    A generator draws as many pictures as the reference has unless `draw` says how many, and a conditional one draws
    the reference's classes in the reference's proportions, or its captions.

    Raises:
        InputError: it cannot be opened, or it is not known how many pictures a generator should draw.
    """
    contents = contents if contents is not None else look(place, draw)
    if isinstance(contents, Folder):
        return _folder_source(place, draw, contents)
    if place.kind == SPLIT:
        return _split_source(place, draw, contents)
    count = draw.count or (reference.pictures.count if reference else None)
    if count is None:
        raise InputError(f"{shown(place.text)} is a generator, which has no number of pictures; give one by --count")
    return _generator_source(place, replace(draw, count=min(count, MOST)), reference)


def _folder_source(place: Place, draw: Draw, folder: Folder) -> Source:
    from stages.metrics.features import PictureSet

    labels, names = folder.classes()
    content = folder.content
    identity = {"folder": content, "colour": COLOUR}
    pictures = PictureSet(
        shown(place.text), len(folder.files), lambda: folder.batches(draw.batch), identity, labels, names
    )
    origin = {"kind": FOLDER, "path": shown(place.text), "sha256": content, "colour": COLOUR, **_chosen(draw)}
    return Source(pictures, folder.sizes, folder.formats, origin, folder.notes())


def _split_source(place: Place, draw: Draw, dataset: "ImageDataset") -> Source:
    from stages.metrics.features import PictureSet

    chosen, content = np.arange(len(dataset)), dataset.content_hash
    if draw.count is not None:
        generator = np.random.Generator(np.random.Philox(key=draw.seed))
        chosen = np.sort(generator.choice(len(dataset), draw.count, replace=False))

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(chosen), draw.batch):
            yield dataset.pixels[chosen[start : start + draw.batch]].transpose(0, 3, 1, 2)

    split = place.split or "all"
    identity = {"dataset": content, "split": split, "selection": _chosen(draw)["selection"]}
    names = tuple(dataset.description.get("class_names", ()))
    labels = np.array([dataset.rows[position]["label"] for position in chosen], np.int64) if names else None
    pictures = PictureSet(shown(place.text), len(chosen), batches, identity, labels, names)
    origin = {"kind": SPLIT, "path": shown(place.text), "sha256": content, "split": split, **_chosen(draw)}
    captions = captions_of([dataset.rows[position] for position in chosen])
    return Source(pictures, [(dataset.resolution, dataset.resolution)], [], origin, captions=captions)


def _chosen(draw: Draw) -> dict[str, str]:
    return {"selection": "all" if draw.count is None else f"{draw.count} by seed {draw.seed}"}


def _generator_source(place: Place, draw: Draw, reference: Source | None) -> Source:
    from stages.evaluate.picture_sets import SEEDS_PER_SEED, generated_set

    generator, count = open_generator(place, draw.provider), draw.count or 0
    seeds = range(draw.seed * SEEDS_PER_SEED, draw.seed * SEEDS_PER_SEED + count)
    takes, labels, prompts, notes = generator.capabilities, None, None, list[str]()
    if takes.class_names:
        labels, notes = wanted_labels(takes.class_names, reference.pictures if reference else None, count, draw.seed)
    if takes.prompt:
        prompts, found = wanted_prompts(reference.captions if reference else [], count, draw.seed)
        notes = notes + found
    if takes.class_names or takes.prompt:
        generator = Conditioned(generator, seeds.start, labels, prompts)
    pictures = generated_set(shown(place.text), generator, seeds, draw.batch)
    origin: dict[str, Any] = {"kind": place.kind, "path": shown(place.text), **generator.identity, "noise": RECIPE}
    origin |= {"first_seed": seeds.start} | ({"provider": draw.provider} if place.kind == ONNX else {})
    labelled = replace(pictures, labels=labels, class_names=takes.class_names)
    return Source(labelled, [(takes.resolution,) * 2], [], origin, notes)


def open_generator(place: Place, provider: str = CPU_PROVIDER) -> Generator:
    """Open an ONNX file on the provider, or a trained model on accelerate's device.

    Raises:
        InputError: it cannot be opened, or the provider cannot run here.
    """
    if place.kind == ONNX:
        from stages.generators.onnx_file import OnnxGenerator

        return OnnxGenerator(place.path, [provider])
    from stages.generators.loading import load_trained
    from stages.metrics.shares import processes

    generator = load_trained(place.path)
    generator.network.to(processes().device)
    return generator
