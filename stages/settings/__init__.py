"""What params.yaml and a preset may say; unknown or impossible values are refused by name before anything runs."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import model_validator

from stages.errors import InputError
from stages.process import MODEL_NAME
from stages.settings.augment import AugmentSettings, check_content
from stages.settings.base import Strict, validated
from stages.settings.models import ModelSettings, Selected, load_preset
from stages.settings.pictures import AlignSettings, DataSettings, EmojiSettings, FolderSettings, NormalizeSettings
from stages.settings.results import BenchmarkSettings, EvaluateSettings, ExportSettings

__all__ = [
    "AlignSettings",
    "AugmentSettings",
    "BenchmarkSettings",
    "DataSettings",
    "EmojiSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FolderSettings",
    "ModelSettings",
    "NormalizeSettings",
    "Settings",
    "load_preset",
    "load_settings",
]
STAGES = ("download", "align", "normalize", "augment", "train", "evaluate", "export", "benchmark")


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
        model = validated(ModelSettings, merged, f"models.{name}")
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
    for name in settings.select:
        settings.model(name)
    return settings


def _where(error: yaml.YAMLError) -> str:
    """Return what is wrong and in which line; PyYAML's own text quotes the line, in which a token may stand."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{problem or getattr(error, 'reason', 'it cannot be read')}{place}"
