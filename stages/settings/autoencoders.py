"""Settings of autoencoders: those that latents come from, and the one that is a generator itself."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.errors import InputError
from stages.settings.base import Count, Positive, Strict
from stages.settings.models import TrainingSettings

Weight = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=4, le=2048, multiple_of=4)]
SMALLEST_LATENT = 2  # pixels a side: below, a denoiser has nothing to convolve
SMALLEST_MAP = 3  # pixels a side before the discriminator's last two layers, which take one each


class AdversarySettings(Strict):
    """A patch discriminator beside the reconstruction loss; `weight` scales Esser 2021's adaptive weight.

    Over the few kimg of a small training Rombach's weight of 0.5 lets the autoencoder outrun the discriminator, whose
    loss then stays at 2 while the reconstruction gets worse; a fifth of it does not.
    """

    weight: Positive = 0.1
    start_kimg: Weight = 0.0  # the discriminator neither learns nor counts before
    width: Width = 32
    layers: Annotated[int, Field(ge=1, le=5)] = 2
    lr: Positive = 0.0002


class ReconstructionSettings(TrainingSettings):
    """What both kinds of autoencoders have: diffusers' AutoencoderKL, and the weights of its loss.

    loss = l1 mean|x - x'| + perceptual P(x, x') + kl_weight KL / (C H W), KL in nats per picture; C H W values of a
    picture in [-1, 1]. As in latent-diffusion (Rombach 2022, code) but for a factor C H W of the whole.
    """

    factor: Literal[2, 4, 8, 16, 32]
    latent_channels: Count
    widths: list[Width]  # from the full resolution down: one more than halvings
    layers: Annotated[int, Field(ge=1, le=8)] = 1  # residual blocks per level of the encoder; the decoder has one more
    lr: Positive = 0.001
    warmup_kimg: Weight = 0.5
    l1: Positive = 1.0
    perceptual: Weight = 0.0
    perceptual_network: Literal["efficientnet_lite0"] | None = None
    kl: Weight
    adversarial: AdversarySettings | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False

    @property
    def kl_weight(self) -> float:
        """The weight of KL / (C H W) beside the mean absolute error."""
        return self.kl

    @model_validator(mode="after")
    def _parts_fit(self) -> "ReconstructionSettings":
        if 2 ** (len(self.widths) - 1) != self.factor:
            levels = self.factor.bit_length()
            raise ValueError(f"factor {self.factor} needs {levels} widths, widths has {len(self.widths)}")
        if self.perceptual and not self.perceptual_network:
            raise ValueError("perceptual needs a perceptual_network: efficientnet_lite0")
        return self

    def check(self, where: str, resolution: int) -> None:
        """Refuse pictures that the factor does not divide, or that are too small for the discriminator.

        Raises:
            InputError: the resolution and what is expected.
        """
        super().check(where, resolution)
        check_factor(where, self.factor, resolution, 1)
        if self.adversarial and resolution >> self.adversarial.layers < SMALLEST_MAP:
            raise InputError(
                f"{where}.adversarial.layers is {self.adversarial.layers}, too many for pictures of {resolution} pixels"
            )


class AutoencoderSettings(ReconstructionSettings):
    """An autoencoder that latents come from; `pretrained` is a folder or an id in diffusers' format, not trained on."""

    family: Literal["autoencoder"] = "autoencoder"
    pretrained: str | None = None
    factor: Literal[2, 4, 8]
    latent_channels: Literal[4, 16] = 4
    widths: list[Width] = []
    perceptual: Weight = 1.0
    perceptual_network: Literal["efficientnet_lite0"] | None = "efficientnet_lite0"
    kl: Weight = 0.000001
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    batch: Annotated[int, Field(ge=2)] = 16
    accumulation: Count = 1
    checkpointing: bool = False
    budget_kimg: Positive = 20
    ema_half_life_kimg: Positive = 1
    ema_rampup: Annotated[float, Field(ge=0, le=1)] = 0.05
    tick_kimg: Positive = 2
    checkpoint_kimg: Positive = 5
    threads: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _pretrained_has_widths(cls, raw: object) -> object:
        """Fill in widths where pretrained weights bring their own, so that factor and widths agree."""
        if isinstance(raw, dict) and raw.get("pretrained") and raw.get("factor") in (2, 4, 8):
            return {"widths": [32] * int(raw["factor"]).bit_length(), **raw}
        return raw

    def check(self, where: str, resolution: int) -> None:
        """Refuse pictures whose latents would be too small, beside what every autoencoder refuses."""
        super().check(where, resolution)
        check_factor(where, self.factor, resolution, SMALLEST_LATENT)


class VaeSettings(ReconstructionSettings):
    """The autoencoder as a generator (Kingma 2014): latents drawn from N(0, 1) are decoded.

    Negative ELBO of a decoder with Laplace noise of scale b = `noise`, up to a constant and divided by C H W / b:
    mean|x - x'| + kl b KL / (C H W). `kl` 1 is the ELBO itself, other values are beta-VAE's (Higgins 2017).
    """

    family: Literal["vae"]
    noise: Positive

    @property
    def kl_weight(self) -> float:
        """The weight of KL / (C H W) beside the mean absolute error."""
        return self.kl * self.noise


def check_factor(where: str, factor: int, resolution: int, smallest: int) -> None:
    """Refuse a resolution that a factor does not divide, or that leaves less than `smallest` pixels a side.

    Raises:
        InputError: what was found and what is expected.
    """
    if resolution % factor:
        raise InputError(
            f"{where}.factor is {factor}, but pictures have {resolution} pixels, which is no multiple of it"
        )
    if resolution // factor < smallest:
        raise InputError(
            f"{where}.factor is {factor}, which leaves latents of {resolution // factor} x {resolution // factor} of "
            f"pictures of {resolution} pixels; at least {smallest} x {smallest} are needed"
        )
