"""Settings of diffusion models: denoiser, noise, condition, sampling."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stages.errors import InputError
from stages.settings.base import Count, Positive, Share, Strict
from stages.settings.models import TrainingSettings

SAMPLERS = {
    "epsilon": ("ddpm", "ddim", "dpm++", "euler", "heun"),
    "v": ("ddpm", "ddim", "dpm++", "euler", "heun"),
    "flow": ("flow_euler",),
}
TRAIN_STEPS = 1000  # timesteps of the forward process
GROUP = 8  # channels are cut into groups for normalisation; widths must be multiples of it


class TextSettings(Strict):
    """What captions and prompts are read by: `minilm`, or a folder in transformers format; `length` tokens at most."""

    encoder: str = "minilm"
    length: Annotated[int, Field(ge=4, le=512)] = 24
    prompts: list[str] = []  # drawn at every tick, each over some columns of the grid; none: captions of the data
    negative: str = ""  # what guidance leads away from


class DiffusionSettings(TrainingSettings):
    """A diffusion model: a denoiser, how noise is added, what it is told, and how it is sampled.

    `unet` is diffusers' UNet2DModel, with text UNet2DConditionModel; `dit` is DiTTransformer2DModel, which always has
    classes (one where the condition is none).
    """

    family: Literal["diffusion"]
    denoiser: Literal["unet", "dit"]
    widths: list[Count] = [64, 128]  # of the U-Net, from the full resolution down
    layers: Count = 1  # residual blocks per level of the U-Net, blocks of the DiT
    attention: list[bool] = [False, True]  # per level of the U-Net
    head_width: Count = 32  # channels of an attention head
    heads: Count = 4  # of the DiT
    patch: Count = 2  # of the DiT
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    prediction: Literal["epsilon", "v", "flow"]
    schedule: Literal["linear", "scaled_linear", "cosine"] = "linear"
    zero_terminal_snr: bool = False
    weighting: Literal["uniform", "min_snr_5"] = "uniform"
    timesteps: Literal["uniform", "logit_normal"] = "uniform"
    condition: Literal["none", "class", "text"] = "none"
    condition_dropout: Share = 0.1  # how often the condition is hidden, for guidance (Ho 2022)
    text: TextSettings = TextSettings()
    lr: Positive
    warmup_kimg: Annotated[float, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0
    clip: Annotated[float, Field(ge=0)] = 1.0  # largest norm of the gradient; 0: any
    ema_also_kimg: list[Positive] = []  # half-lives of further averages; the one with the best score is kept
    compile: bool = False
    sampler: Literal["ddpm", "ddim", "dpm++", "euler", "heun", "flow_euler"]
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance: Annotated[float, Field(ge=0, le=100)] = 1.0

    @field_validator("widths")
    @classmethod
    def _whole_groups(cls, value: list[int]) -> list[int]:
        if not value or any(width % GROUP for width in value):
            raise ValueError(f"expected multiples of {GROUP}, at least one")
        return value

    @model_validator(mode="after")
    def _sampling_fits(self) -> "DiffusionSettings":
        if self.sampler not in SAMPLERS[self.prediction]:
            raise ValueError(
                f"sampler is {self.sampler}, but prediction {self.prediction} is sampled by "
                f"{', '.join(SAMPLERS[self.prediction])}"
            )
        if self.zero_terminal_snr and self.prediction != "v":
            raise ValueError(f"zero_terminal_snr needs prediction v, not {self.prediction} (Lin 2023)")
        if self.sampler == "heun" and (self.zero_terminal_snr or self.schedule == "cosine"):
            cause = "zero_terminal_snr" if self.zero_terminal_snr else "schedule cosine"
            raise ValueError(f"{cause} cannot be sampled by heun; use ddim, dpm++, euler or ddpm")
        if self.sampler in ("ddpm", "ddim") and TRAIN_STEPS % self.steps:
            lower, upper = _divisors_around(self.steps)
            raise ValueError(
                f"steps is {self.steps}, but sampler {self.sampler} needs a divisor of {TRAIN_STEPS} such as "
                f"{lower} or {upper}"
            )
        return self

    @model_validator(mode="after")
    def _network_fits(self) -> "DiffusionSettings":
        if len(self.attention) != len(self.widths):
            raise ValueError(f"attention has {len(self.attention)} levels, widths has {len(self.widths)}")
        narrow = [width for width in self._attending() if width < self.head_width]
        if narrow:
            raise ValueError(
                f"head_width is {self.head_width}, wider than a level with attention: {narrow[0]} channels"
            )
        if self.guidance != 1 and (self.condition == "none" or not self.condition_dropout):
            raise ValueError(f"guidance is {self.guidance}, which needs a condition and condition_dropout above 0")
        if self.denoiser == "dit" and self.condition == "text":
            raise ValueError("denoiser dit takes condition none or class; for text use unet")
        if len(self.half_lives_kimg) > 1 and not self.score_kimg:
            raise ValueError("ema_also_kimg needs score_kimg: the average with the best score is kept")
        return self

    def _attending(self) -> list[int]:
        """Return the widths at which UNet2DModel attends; its middle, as wide as the last level, does if any does."""
        if self.denoiser != "unet" or self.condition == "text" or not any(self.attention):
            return []
        return [width for width, attends in zip(self.widths, self.attention, strict=True) if attends] + self.widths[-1:]

    @property
    def half_lives_kimg(self) -> tuple[float, ...]:
        """The half-lives of all averages, the first being the one that is drawn while training."""
        return (self.ema_half_life_kimg, *self.ema_also_kimg)

    def check_size(self, where: str, side: int) -> None:
        """Refuse pictures or latents whose side the denoiser cannot halve, or cut into patches, as often as it does.

        Raises:
            InputError: the side and the multiple that is expected.
        """
        multiple = 2 ** (len(self.widths) - 1) if self.denoiser == "unet" else self.patch
        if side % multiple or side < multiple:
            what = f"{len(self.widths)} widths" if self.denoiser == "unet" else f"patch {self.patch}"
            raise InputError(
                f"{where} has {what}, but its pictures or latents are {side} wide, no multiple of {multiple}"
            )


def _divisors_around(steps: int) -> tuple[int, int]:
    divisors = [number for number in range(1, TRAIN_STEPS + 1) if TRAIN_STEPS % number == 0]
    return max(n for n in divisors if n < steps), min(n for n in divisors if n > steps)
