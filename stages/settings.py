"""What params.yaml and a preset may say; unknown or impossible values are refused by name before anything runs."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stages.errors import InputError
from stages.process import MODEL_NAME

PRESETS = Path(__file__).parent / "presets"
STAGES = ("download", "align", "normalize", "augment", "train", "evaluate", "export", "benchmark")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Model = TypeVar("Model", bound=BaseModel)
Style = Literal["openmoji", "twemoji", "fluent3d", "fluentflat", "fluentcolor"]


class Strict(BaseModel):
    """A group of settings in which an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EmojiSettings(Strict):
    """Which emoji to draw data from: styles, and subgroups of the openmoji catalogue."""

    styles: list[Style] = Field(min_length=1)
    subgroups: list[str] = Field(min_length=1)
    skin_tones: bool


class FolderSettings(Strict):
    """Own pictures: a folder, its sub-folders are classes, metadata.jsonl or metadata.csv may hold captions."""

    path: str | None = None
    licence: str = "unknown"


class DataSettings(Strict):
    """Where pictures come from and how many may be unreadable."""

    source: Literal["emoji", "folder"]
    emoji: EmojiSettings
    folder: FolderSettings = FolderSettings()
    max_reject_share: Share

    @model_validator(mode="after")
    def _folder_named(self) -> "DataSettings":
        if self.source == "folder" and not self.folder.path:
            raise ValueError("source is `folder` but folder.path is empty; give the folder that holds the pictures")
        return self


class AlignSettings(Strict):
    """How the square crop of a picture is chosen; margin and threshold are used by `content`."""

    mode: Literal["none", "center", "content"]
    margin: Share
    threshold: Annotated[int, Field(ge=0, le=255)]


class NormalizeSettings(Strict):
    """The pictures that models see: resolution, resampling filter, background under transparency, splits."""

    resolution: Annotated[int, Field(ge=8, le=1024)]
    filter: Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]
    background: tuple[
        Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]
    ]
    holdout: Annotated[float, Field(gt=0, lt=1)]
    salt: str
    shards: Annotated[int, Field(ge=1, le=4096)]
    workers: Annotated[int, Field(ge=0)]

    @field_validator("resolution")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"{value} is not a power of two; allowed: 8, 16, 32, 64, 128, 256, 512, 1024")
        return value


Transform = Literal["color", "translation", "cutout"]


class AugmentSettings(Strict):
    """The policy for augmentation in the discriminator: none, or DiffAugment with each transform at probability p."""

    kind: Literal["none", "diffaugment"]
    transforms: list[Transform]
    p: Share
    target: Annotated[float, Field(ge=-1, le=1)]
    mirror: bool

    @model_validator(mode="after")
    def _transforms_named(self) -> "AugmentSettings":
        if self.kind != "none" and not self.transforms:
            raise ValueError("kind is `diffaugment` but transforms is empty; name some or set kind: none")
        return self


class Selected(Strict):
    """One selected model: its preset, the family whose code it uses, and what it trains on."""

    preset: str
    family: str
    data: str


class ModelSettings(Strict):
    """A generator's architecture, objective and budget, after a preset and its overrides are merged."""

    family: Literal["dcgan"]
    resolution_min: Count = 8
    latent: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=4, le=1024)]
    discriminator_width: Annotated[int, Field(ge=4, le=1024)]
    upsample: Literal["transposed", "bilinear", "nearest"]
    objective: Literal["non_saturating", "saturating", "least_squares", "hinge"]
    r1_gamma: Annotated[float, Field(ge=0)]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)]
    generator_lr: Positive
    discriminator_lr: Positive
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    batch: Annotated[int, Field(ge=2)]
    budget_kimg: Positive
    ema_half_life_kimg: Positive
    ema_rampup: Share
    tick_kimg: Positive
    checkpoint_kimg: Positive
    precision: Literal["fp32", "bf16", "fp16"]
    threads: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]


class EvaluateSettings(Strict):
    """What is measured: number of generated pictures, batch, seed, and where FID's Inception weights lie."""

    count: Annotated[int, Field(ge=64)]
    batch: Count
    seed: Annotated[int, Field(ge=0)]
    kid_subset: Annotated[int, Field(ge=2)]
    kid_subsets: Count
    neighbours: Count
    inception: str | None

    @model_validator(mode="after")
    def _enough_pictures(self) -> "EvaluateSettings":
        for name in ("kid_subset", "neighbours"):
            if getattr(self, name) >= self.count:
                raise ValueError(f"{name} is {getattr(self, name)}, but count is only {self.count}; raise count")
        return self


class ExportSettings(Strict):
    """The ONNX file: opset and the largest absolute difference to torch that is allowed."""

    opset: Annotated[int, Field(ge=18, le=22)]
    tolerance: Positive


class BenchmarkSettings(Strict):
    """What the benchmark times: batch sizes, providers, seconds per row."""

    batches: list[Count] = Field(min_length=1)
    providers: list[Literal["CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"]] = Field(
        min_length=1
    )
    seconds: Positive
    min_runs: Annotated[int, Field(ge=10)]
    threads: Annotated[int, Field(ge=0)]


class Settings(Strict):
    """All of params.yaml; `models` still holds overrides, `model(name)` gives a merged one."""

    data: DataSettings
    align: AlignSettings
    normalize: NormalizeSettings
    augment: AugmentSettings
    select: dict[str, Selected]
    models: dict[str, dict[str, Any]]
    evaluate: EvaluateSettings
    export: ExportSettings
    benchmark: BenchmarkSettings

    @model_validator(mode="after")
    def _selected_models_exist(self) -> "Settings":
        for name in self.select:
            if not MODEL_NAME.fullmatch(name):
                raise ValueError(f"select.{name}: a model's name holds letters, digits, - and _ only")
            if name in STAGES:
                raise ValueError(f"select.{name}: a model may not be called like a stage ({', '.join(STAGES)})")
            if name not in self.models:
                raise ValueError(f"select.{name} has no entry in models; add `{name}: {{}}` under models")
        return self

    def model(self, name: str) -> ModelSettings:
        """Return one selected model's settings: its preset, overridden by `models.NAME`.

        Raises:
            InputError: the model is not selected, its preset is unknown, or a merged value is impossible.
        """
        if name not in self.select:
            raise InputError(f"{name} is not selected; `select` in params.yaml has: {', '.join(self.select) or 'none'}")
        selected = self.select[name]
        merged = {**load_preset(selected.preset, name), **self.models[name]}
        model = _validated(ModelSettings, merged, f"models.{name}")
        self._check_model(name, selected, model)
        return model

    def _check_model(self, name: str, selected: Selected, model: ModelSettings) -> None:
        if selected.family != model.family:
            raise InputError(
                f"select.{name}.family is {selected.family}, but preset {selected.preset} is of family {model.family}"
            )
        if selected.data != "images":
            raise InputError(f"select.{name}.data is {selected.data}; allowed for family {model.family}: images")
        if self.normalize.resolution < model.resolution_min:
            raise InputError(
                f"normalize.resolution is {self.normalize.resolution}; {name} needs at least {model.resolution_min}"
            )
        if model.ema_half_life_kimg > model.budget_kimg:
            raise InputError(
                f"models.{name}.ema_half_life_kimg is {model.ema_half_life_kimg}, longer than the whole training of "
                f"{model.budget_kimg} kimg: the averaged weights would still be noise; use at most a tenth of it"
            )
        if model.precision == "fp16" and model.r1_gamma:
            raise InputError(f"models.{name}: r1_gamma needs precision fp32 or bf16, not fp16")


def load_preset(preset: str, model: str = "") -> dict[str, Any]:
    """Read one preset's settings.

    Raises:
        InputError: there is no such preset; the known ones are named.
    """
    path = PRESETS / f"{preset}.yaml"
    known = sorted(p.stem for p in PRESETS.glob("*.yaml"))
    if preset not in known:
        raise InputError(f"select.{model}.preset is {preset}; allowed: {', '.join(known)}")
    return dict(yaml.safe_load(path.read_text()))


def load_settings(path: Path = Path("params.yaml")) -> Settings:
    """Read and check params.yaml, every selected model's merged settings included.

    Raises:
        InputError: the file is absent, not YAML, or holds an unknown or impossible value, which is named.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run in the project's folder or give --params") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no settings")
    settings = _validated(Settings, raw, "")
    for name in settings.select:
        settings.model(name)
    return settings


def _validated(kind: type[Model], raw: dict[str, Any], prefix: str) -> Model:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise InputError("; ".join(_explain(kind, prefix, entry) for entry in error.errors())) from error


def _explain(kind: type[BaseModel], prefix: str, entry: Any) -> str:
    """Turn one pydantic error into `name: what was found, what is allowed`."""
    where = ".".join(part for part in (prefix, *map(str, entry["loc"])) if part)
    if entry["type"] == "extra_forbidden":
        return f"{where}: unknown setting; allowed: {', '.join(_siblings(kind, entry['loc']))}"
    if entry["type"] == "missing":
        return f"{where}: missing"
    message = entry["msg"].removeprefix("Value error, ")
    if not where:
        return message
    return f"{where}: {message}" if isinstance(entry["input"], dict) else f"{where} is {entry['input']!r}: {message}"


def _siblings(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the names that are allowed where an unknown one was found."""
    for part in location[:-1]:
        field = kind.model_fields.get(str(part))
        if field is None:  # an entry of a mapping such as select: its annotation holds the entry's type
            continue
        arguments = [a for a in getattr(field.annotation, "__args__", ()) if isinstance(a, type)]
        candidates = [a for a in [field.annotation, *arguments] if isinstance(a, type) and issubclass(a, BaseModel)]
        if candidates:
            kind = candidates[0]
    return list(kind.model_fields)
