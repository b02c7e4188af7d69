"""Settings of the pictures: where they come from, how they are cropped and resampled."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stages.addresses import check_https, check_no_password
from stages.errors import InputError
from stages.settings.base import Level, Share, Strict

Style = Literal["openmoji", "twemoji", "fluent3d", "fluentflat", "fluentcolor"]
Content = Literal["text", "flags", "medical"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
CONTENT_OF_SUBGROUP: dict[str, Content] = {
    "keycap": "text",
    "alphanum": "text",
    "flag": "flags",
    "country-flag": "flags",
    "subdivision-flag": "flags",
}


SPLITS_OF_DATASET = {  # what torchvision can parse for us, see stages/download/torchvision_sets.py
    "CIFAR10": ("train", "test"),
    "CIFAR100": ("train", "test"),
    "EuroSAT": ("all",),
    "FashionMNIST": ("train", "test"),
    "Flowers102": ("train", "val", "test"),
    "KMNIST": ("train", "test"),
    "MNIST": ("train", "test"),
    "SVHN": ("train", "test", "extra"),
    "USPS": ("train", "test"),
}


class EmojiSettings(Strict):
    """Which emoji to draw data from: styles, and subgroups of the openmoji catalogue."""

    styles: list[Style] = Field(min_length=1)
    subgroups: list[str] = Field(min_length=1)
    skin_tones: bool


class FolderSettings(Strict):
    """Own pictures: a folder, its sub-folders are classes, metadata.jsonl or metadata.csv may hold captions."""

    path: str | None = None
    licence: str = "unknown"


class ArchiveSettings(Strict):
    """A zip or tar of pictures behind an https address, pinned by sha256 and size; laid out like a folder source.

    `${NAME}` in the address stands for a value of the environment, where secrets belong.
    """

    url: str | None = Field(repr=False)
    sha256: Sha256 | None
    bytes: Annotated[int, Field(ge=1)] | None
    licence: str

    @model_validator(mode="after")
    def _address_allowed(self) -> "ArchiveSettings":
        """Judge the address here rather than in the field, whose errors would print it with its secrets."""
        if self.url:
            try:
                check_https(self.url, "url")
                check_no_password(self.url, "url")
            except InputError as error:
                raise ValueError(str(error)) from None
        return self


class TorchvisionSettings(Strict):
    """A data set that torchvision can parse, by its class name, and which of its splits."""

    dataset: str | None = None
    split: str = "train"
    licence: str = "unknown"

    @model_validator(mode="after")
    def _known(self) -> "TorchvisionSettings":
        if self.dataset is None:
            return self
        if self.dataset not in SPLITS_OF_DATASET:
            raise ValueError(f"dataset is {self.dataset!r}; allowed: {', '.join(SPLITS_OF_DATASET)}")
        allowed = SPLITS_OF_DATASET[self.dataset]
        if self.split not in allowed:
            raise ValueError(f"split is {self.split!r}; allowed for {self.dataset}: {', '.join(allowed)}")
        return self


class StyleganSettings(Strict):
    """A StyleGAN data set: a zip of pictures with dataset.json, as written by dataset_tool.py."""

    path: str | None = None
    licence: str = "unknown"


class DataSettings(Strict):
    """Where pictures come from, what they show that must not be turned or recoloured, how many may be unreadable."""

    source: Literal["emoji", "folder", "archive", "torchvision", "stylegan"]
    content: list[Content] = []
    emoji: EmojiSettings
    folder: FolderSettings
    archive: ArchiveSettings
    torchvision: TorchvisionSettings
    stylegan: StyleganSettings
    max_reject_share: Share

    @model_validator(mode="after")
    def _source_named(self) -> "DataSettings":
        needed = {
            "folder": ("path", self.folder.path, "the folder that holds the pictures"),
            "archive": ("url", self.archive.url, "the https address of a zip or tar"),
            "torchvision": ("dataset", self.torchvision.dataset, "a data set's name, such as CIFAR10"),
            "stylegan": ("path", self.stylegan.path, "the zip with dataset.json"),
        }
        name, value, what = needed.get(self.source, ("", "given", ""))
        if not value:
            raise ValueError(f"source is `{self.source}` but data.{self.source}.{name} is empty; give {what}")
        return self

    @property
    def shown(self) -> set[Content]:
        """What the pictures show: what `content` says, and what the chosen emoji are."""
        if self.source != "emoji":
            return set(self.content)
        return {*self.content, *(CONTENT_OF_SUBGROUP[g] for g in self.emoji.subgroups if g in CONTENT_OF_SUBGROUP)}


class FaceSettings(Strict):
    """Faces: each picture's largest or all, how sure the detector must be, how many pictures may have none."""

    which: Literal["largest", "all"]
    confidence: Share
    min_eye_distance: Annotated[float, Field(ge=0)]
    max_faceless_share: Share


class AlignSettings(Strict):
    """How the square crop of a picture is chosen; margin and threshold are used by `content`, face by `face`."""

    mode: Literal["none", "center", "content", "face"]
    margin: Share
    threshold: Level
    face: FaceSettings


class NormalizeSettings(Strict):
    """The pictures that models see: resolution, resampling filter, background under transparency, splits."""

    resolution: Annotated[int, Field(ge=8, le=1024)]
    filter: Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]
    background: tuple[Level, Level, Level]
    holdout: Annotated[float, Field(gt=0, lt=1)]
    salt: str
    duplicate_bits: Annotated[int, Field(ge=0, le=16)] | None
    shards: Annotated[int, Field(ge=1, le=4096)]
    workers: Annotated[int, Field(ge=0)]

    @field_validator("resolution")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"{value} is not a power of two; allowed: 8, 16, 32, 64, 128, 256, 512, 1024")
        return value
