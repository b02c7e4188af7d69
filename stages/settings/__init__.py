"""What params.yaml and a preset may say; unknown or impossible values are refused by name before anything runs."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import model_validator

from stages.errors import InputError
from stages.process import MODEL_NAME
from stages.settings.augment import AugmentSettings, check_content
from stages.settings.autoencoders import AutoencoderSettings, VaeSettings
from stages.settings.base import Strict, validated
from stages.settings.diffusion import DiffusionSettings
from stages.settings.gans import GANS
from stages.settings.models import Selected, TrainingSettings, load_preset
from stages.settings.pictures import AlignSettings, DataSettings, EmojiSettings, FolderSettings, NormalizeSettings
from stages.settings.results import BenchmarkSettings, CertifySettings, EvaluateSettings, ExportSettings

__all__ = [
    "AlignSettings",
    "AugmentSettings",
    "AutoencoderSettings",
    "BenchmarkSettings",
    "CertifySettings",
    "DataSettings",
    "EmojiSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FolderSettings",
    "NormalizeSettings",
    "Settings",
    "TrainingSettings",
    "load_preset",
    "load_settings",
]
KINDS: dict[str, type[TrainingSettings]] = {
    **GANS,
    "diffusion": DiffusionSettings,
    "vae": VaeSettings,
}
LATENTS = "latents/"  # data of a model that learns from an autoencoder's latents
STAGES = (
    "download",
    "align",
    "normalize",
    "augment",
    "autoencoder",
    "train",
    "evaluate",
    "export",
    "certify",
    "benchmark",
)


class Settings(Strict):
    """All of params.yaml; `models` still holds overrides, `model(name)` gives a merged one."""

    data: DataSettings
    align: AlignSettings
    normalize: NormalizeSettings
    augment: AugmentSettings
    select: dict[str, Selected]
    models: dict[str, dict[str, Any]]
    encode: list[str] = []  # autoencoders whose latents the selected models learn from
    autoencoders: dict[str, dict[str, Any]] = {}
    evaluate: EvaluateSettings
    export: ExportSettings
    certify: CertifySettings
    benchmark: BenchmarkSettings

    @model_validator(mode="after")
    def _augmentation_suits_content(self) -> "Settings":
        check_content(self.augment, self.data.shown)
        return self

    @model_validator(mode="after")
    def _selected_models_exist(self) -> "Settings":
        for name in self.select:
            if not MODEL_NAME.fullmatch(name):
                raise ValueError(f"select.{name}: a model's name holds letters, digits, - and _ only")
            if name in STAGES:
                raise ValueError(f"select.{name}: a model may not be called like a stage ({', '.join(STAGES)})")
            if name == "autoencoders" or name.startswith("autoencoder-"):
                raise ValueError(f"select.{name}: this name is kept for autoencoders, whose files lie beside models")
            if name not in self.models:
                raise ValueError(f"select.{name} has no entry in models; add `{name}: {{}}` under models")
        return self

    @model_validator(mode="after")
    def _encoded_is_used(self) -> "Settings":
        used = {selected.data.removeprefix(LATENTS) for selected in self.select.values() if LATENTS in selected.data}
        if set(self.encode) != used or len(set(self.encode)) != len(self.encode):
            raise ValueError(
                f"encode is {self.encode}, but the selected models learn from latents of {sorted(used) or 'none'}; "
                "expected the same names, each once"
            )
        for name in self.encode:
            if not MODEL_NAME.fullmatch(name):
                raise ValueError(f"encode has {name}: a name holds letters, digits, - and _ only")
            if name not in self.autoencoders:
                raise ValueError(f"encode has {name}, which autoencoders does not describe; add it there")
        return self

    def autoencoder(self, name: str) -> AutoencoderSettings:
        """Return the settings of an autoencoder that a selected model uses.

        Raises:
            InputError: it is not used, or a value is impossible.
        """
        if name not in self.encode:
            raise InputError(f"{name} is not encoded; `encode` in params.yaml has: {', '.join(self.encode) or 'none'}")
        found = validated(AutoencoderSettings, self.autoencoders[name], f"autoencoders.{name}")
        found.check(f"autoencoders.{name}", self.normalize.resolution)
        return found

    def model(self, name: str) -> TrainingSettings:
        """Return one selected model's settings: its preset, overridden by `models.NAME`.

        Raises:
            InputError: the model is not selected, its preset is unknown, or a merged value is impossible.
        """
        if name not in self.select:
            raise InputError(f"{name} is not selected; `select` in params.yaml has: {', '.join(self.select) or 'none'}")
        selected = self.select[name]
        preset = load_preset(selected.preset, name)
        if selected.family != preset["family"]:
            raise InputError(
                f"select.{name}.family is {selected.family}, but preset {selected.preset} is of family "
                f"{preset['family']}"
            )
        merged = {**preset, **self.models[name]}
        if merged["family"] not in KINDS:
            raise InputError(f"models.{name}.family is {merged['family']}; allowed: {', '.join(KINDS)}")
        kind = KINDS[merged["family"]]
        model = validated(kind, kind.completed(merged, self.normalize.resolution), f"models.{name}")
        self._check_model(name, selected, model)
        return model

    def _check_model(self, name: str, selected: Selected, model: TrainingSettings) -> None:
        allowed = ["images", *(LATENTS + encoded for encoded in self.encode)]
        if not isinstance(model, DiffusionSettings):
            allowed = ["images"]
        if selected.data not in allowed:
            raise InputError(
                f"select.{name}.data is {selected.data}; allowed for family {model.family}: {', '.join(allowed)}"
            )
        model.check(f"models.{name}", self.normalize.resolution)
        if isinstance(model, DiffusionSettings):
            encoded = selected.data.removeprefix(LATENTS) if LATENTS in selected.data else None
            factor = self.autoencoder(encoded).factor if encoded else 1
            model.check_size(f"models.{name}", self.normalize.resolution // factor)


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
        raise InputError(f"{path} is not valid YAML: {_where(error)}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path} holds no settings")
    settings = validated(Settings, raw, "")
    for name in settings.encode:
        settings.autoencoder(name)
    for name in settings.select:
        settings.model(name)
    return settings


def _where(error: yaml.YAMLError) -> str:
    """Return what is wrong and in which line; PyYAML's own text quotes the line, in which a token may stand."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{problem or getattr(error, 'reason', 'it cannot be read')}{place}"
