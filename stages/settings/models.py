"""Settings of models: architecture, objective and budget, after a preset and its overrides are merged."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from stages.errors import InputError
from stages.settings.base import Count, Positive, Share, Strict

PRESETS = Path(__file__).parents[1] / "presets"


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
    accumulation: Count
    checkpointing: bool
    budget_kimg: Positive
    ema_half_life_kimg: Positive
    ema_rampup: Share
    tick_kimg: Positive
    checkpoint_kimg: Positive
    precision: Literal["fp32", "bf16", "fp16"]
    threads: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]


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
