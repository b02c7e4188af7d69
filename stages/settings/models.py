"""Settings of models: architecture, objective and budget, after a preset and its overrides are merged."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from stages.errors import InputError
from stages.settings.base import Count, Positive, Share, Strict

LATER = ("stylegan3", "stylegan_xl", "styleganxl", "stylegan_t", "gigagan", "projected_gan")
PRESETS = Path(__file__).parents[1] / "presets"


class Selected(Strict):
    """One selected model: its preset, the family whose code it uses, and what it trains on."""

    preset: str
    family: str
    data: str  # images, or latents/NAME of an encoded autoencoder


class TrainingSettings(Strict):
    """What every family's training has: batch, budget, average, pace, precision."""

    family: str
    resolution_min: Count = 8
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
    score_kimg: Annotated[float, Field(ge=0)] = 0  # how often a score is taken, and the best snapshot kept; 0: never
    score_count: Annotated[int, Field(ge=64)] = 500  # pictures of a score
    precision: Literal["fp32", "bf16", "fp16"]
    threads: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]

    @classmethod
    def completed(cls, merged: dict[str, Any], resolution: int) -> dict[str, Any]:
        """Return merged settings with what follows from the pictures' size, where a preset leaves it to that."""
        return merged

    @property
    def half_lives_kimg(self) -> tuple[float, ...]:
        """The half-lives of all averages, the first being the one that is drawn while training."""
        return (self.ema_half_life_kimg,)

    def batch_at(self, seen: int) -> int:
        """Return the pictures of the step after `seen` pictures."""
        return self.batch

    def check(self, where: str, resolution: int) -> None:
        """Refuse settings that contradict one another or the pictures; `where` is such as models.NAME.

        Raises:
            InputError: what was found and what is expected.
        """
        if resolution < self.resolution_min:
            raise InputError(f"normalize.resolution is {resolution}; {where} needs at least {self.resolution_min}")
        longest = max(self.half_lives_kimg)
        if longest > self.budget_kimg:
            raise InputError(
                f"{where}.ema_half_life_kimg is {longest}, longer than the whole training of {self.budget_kimg} kimg: "
                "the averaged weights would still be noise; use at most a tenth of it"
            )


def load_preset(preset: str, model: str = "") -> dict[str, Any]:
    """Read one preset's settings.

    Raises:
        InputError: there is no such preset; the known ones are named.
    """
    path = PRESETS / f"{preset}.yaml"
    known = sorted(p.stem for p in PRESETS.glob("*.yaml"))
    if preset.lower().replace("-", "_").startswith(LATER):
        raise InputError(
            f"select.{model}.preset is {preset}, which is not built yet: alias-free and larger style-based GANs follow "
            f"later; allowed: {', '.join(known)}"
        )
    if preset not in known:
        raise InputError(f"select.{model}.preset is {preset}; allowed: {', '.join(known)}")
    return dict(yaml.safe_load(path.read_text()))
