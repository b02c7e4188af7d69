"""Settings of GANs: the parts that any system combines, then what each architecture adds."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from stages.errors import InputError
from stages.settings.base import Count, Positive, Strict
from stages.settings.models import TrainingSettings

NotNegative = Annotated[float, Field(ge=0)]
Width = Annotated[int, Field(ge=4, le=4096)]
CLASSIC = ("non_saturating", "saturating", "least_squares", "hinge")  # objectives that label smoothing belongs to


class Annealing(Strict):
    """Values that settings move to, by a cosine over `kimg`; null: stays (Huang 2024, appendix D)."""

    kimg: Positive
    lr: Positive | None = None  # of both networks
    gamma: NotNegative | None = None  # of R1 and R2
    beta2: Annotated[float, Field(ge=0, lt=1)] | None = None
    ema_half_life_kimg: Positive | None = None


class Transfer(Strict):
    """Where training starts: another model's weights folder, named with the sha256 in its config's identity.

    The first `freeze_discriminator` blocks of the discriminator, counted from the pictures, stay as they are
    (Mo 2020, "Freeze the discriminator").
    """

    weights: str | None = None
    sha256: str | None = None
    freeze_discriminator: Annotated[int, Field(ge=0)] = 0


class GanSettings(TrainingSettings):
    """What every GAN has: objective, penalties, pace of the two networks, condition, parts of the discriminator."""

    latent: Annotated[int, Field(ge=1, le=4096)]
    condition: Literal["none", "class"] = "none"
    objective: Literal["non_saturating", "saturating", "least_squares", "hinge", "wasserstein", "relativistic"]
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0  # one-sided (Salimans 2016, section 3.4)
    optimizer: Literal["adam", "rmsprop"] = "adam"
    generator_lr: Positive
    discriminator_lr: Positive
    discriminator_steps: Count = 1  # of each step of the generator; each sees a batch of its own
    r1_gamma: NotNegative = 0
    r2_gamma: NotNegative = 0
    gradient_penalty: NotNegative = 0  # weight of (|grad D| - 1)^2 between real and generated (Gulrajani 2017)
    regularise_every: Count = 1  # discriminator steps per penalty; from 2 on it is a step of its own (Karras 2020)
    weight_clip: NotNegative = 0  # bound of the critic's weights (Arjovsky 2017); 0: none
    drift: NotNegative = 0  # weight of E[D(x)^2] at real pictures (Karras 2018, appendix A.1)
    orthogonal: NotNegative = 0  # weight of the generator's orthogonal regularisation (Brock 2019, equation 3)
    spectral_norm: bool = False
    minibatch_stddev: bool = False
    minibatch_kernels: Annotated[int, Field(ge=0)] = 0  # of minibatch discrimination; 0: none
    minibatch_group: Annotated[int, Field(ge=2)] = 4  # pictures that either of them compares
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0  # before the discriminator's last layer
    standing_statistics: Annotated[int, Field(ge=0)] = 0  # batches that batch norm's moments are measured on at the end
    batch_start: Annotated[int, Field(ge=0)] = 0  # the batch ramps up from here to `batch`; 0: no ramp
    batch_ramp_kimg: NotNegative = 0
    anneal: Annealing | None = None
    transfer: Transfer = Transfer()
    compile: bool = False

    ARCHITECTURE: ClassVar[tuple[str, ...]] = ()  # settings that rebuild the networks
    PARTS: ClassVar[tuple[str, ...]] = (
        "latent",
        "spectral_norm",
        "minibatch_stddev",
        "minibatch_kernels",
        "minibatch_group",
        "dropout",
    )
    resolution_max: ClassVar[int] = 1024

    @property
    def penalised(self) -> bool:
        """Whether the discriminator's gradient at pictures is penalised."""
        return bool(self.r1_gamma or self.r2_gamma or self.gradient_penalty)

    def batch_at(self, seen: int) -> int:
        """Return the pictures of the step after `seen`: multiples of batch_start that grow evenly up to batch."""
        if not self.batch_start:
            return self.batch
        share = min(seen / (self.batch_ramp_kimg * 1000), 1.0)
        return self.batch_start * (1 + int(share * (self.batch // self.batch_start - 1)))

    def check(self, where: str, resolution: int) -> None:
        """Refuse parts that contradict one another or the pictures' size, beside what every family refuses."""
        super().check(where, resolution)
        if resolution > self.resolution_max or resolution & (resolution - 1):
            raise InputError(
                f"normalize.resolution is {resolution}; {where} (family {self.family}) draws powers of two from "
                f"{self.resolution_min} to {self.resolution_max}"
            )
        for problem in self.contradictions():
            raise InputError(f"{where}: {problem}")

    def contradictions(self) -> list[str]:
        """Return what does not fit together, by names of settings."""
        found = [
            (self.precision == "fp16" and self.penalised, self._half_precision()),
            (
                self.label_smoothing and self.objective not in CLASSIC,
                f"label_smoothing belongs to {', '.join(CLASSIC)}, not to objective {self.objective}",
            ),
            (
                self.regularise_every > 1 and not self.penalised,
                "regularise_every is above 1, but no r1_gamma, r2_gamma or gradient_penalty is set",
            ),
            (
                self.compile and self.penalised,
                "compile cannot differentiate twice, which r1_gamma, r2_gamma and gradient_penalty need; set it false",
            ),
            (
                bool(self.batch_start) != bool(self.batch_ramp_kimg),
                "batch_start and batch_ramp_kimg belong together",
            ),
            (
                self.batch_start and (self.batch % self.batch_start or self.batch_start >= self.batch),
                f"batch_start is {self.batch_start}; expected a divisor of batch {self.batch}",
            ),
            (
                self.transfer.sha256 and not self.transfer.weights,
                "transfer.sha256 names weights, but transfer.weights says not where they are",
            ),
            (
                self.transfer.freeze_discriminator and not self.transfer.weights,
                "transfer.freeze_discriminator would freeze random weights; set transfer.weights",
            ),
        ]
        return [text for wrong, text in found if wrong]

    def _half_precision(self) -> str:
        return "r1_gamma, r2_gamma and gradient_penalty need precision fp32 or bf16, not fp16"


class FullyConnectedSettings(GanSettings):
    """Two multilayer perceptrons (Goodfellow 2014)."""

    family: Literal["gan"]
    widths: list[Width]  # hidden layers of the generator
    discriminator_widths: list[Width]

    ARCHITECTURE: ClassVar[tuple[str, ...]] = ("widths", "discriminator_widths")
    resolution_max: ClassVar[int] = 64  # a layer over all pixels of larger ones has hundreds of millions of weights


class DcganSettings(GanSettings):
    """A DCGAN's architecture."""

    family: Literal["dcgan"]
    width: Width
    discriminator_width: Width
    upsample: Literal["transposed", "bilinear", "nearest"]
    discriminator_norm: Literal["batch", "layer", "none"] = "batch"

    ARCHITECTURE: ClassVar[tuple[str, ...]] = ("width", "discriminator_width", "upsample", "discriminator_norm")

    def contradictions(self) -> list[str]:
        """Return what does not fit together: a penalty on each picture's gradient forbids batch norm, too."""
        found = super().contradictions()
        if self.gradient_penalty and self.discriminator_norm == "batch":
            found.append(
                "gradient_penalty is of each picture alone, which batch norm mixes (Gulrajani 2017, section 4); set "
                "discriminator_norm to layer or none"
            )
        return found


class SnganSettings(GanSettings):
    """Residual networks with a projection discriminator (Miyato 2018)."""

    family: Literal["sngan"]
    width: Width
    discriminator_width: Width

    ARCHITECTURE: ClassVar[tuple[str, ...]] = ("width", "discriminator_width")
    resolution_max: ClassVar[int] = 128


class BigganSettings(GanSettings):
    """BigGAN's networks (Brock 2019)."""

    family: Literal["biggan"]
    width: Width
    discriminator_width: Width
    shared_embedding: Count
    attention: Annotated[int, Field(ge=0)]  # size of the map that attends to itself; 0: none

    ARCHITECTURE: ClassVar[tuple[str, ...]] = ("width", "discriminator_width", "shared_embedding", "attention")
    resolution_max: ClassVar[int] = 256

    def check(self, where: str, resolution: int) -> None:
        """Refuse a latent or an attention that the networks of the resolution do not have, beside what all refuse."""
        super().check(where, resolution)
        chunks, sizes = resolution.bit_length() - 2, [2**power for power in range(3, resolution.bit_length() - 1)]
        if self.latent % chunks:
            raise InputError(
                f"{where}.latent is {self.latent}; {resolution} px needs a multiple of {chunks}: equal parts for the "
                "first layer and each block"
            )
        if self.attention and self.attention not in sizes:
            raise InputError(
                f"{where}.attention is {self.attention}; {resolution} px has maps of {', '.join(map(str, sizes))}; 0: "
                "none"
            )


class ProganSettings(GanSettings):
    """Networks that grow from 4 x 4 (Karras 2018)."""

    family: Literal["progan"]
    channel_base: Count
    channel_max: Count
    phase_kimg: Positive  # of fading a size in, and of training it

    ARCHITECTURE: ClassVar[tuple[str, ...]] = ("channel_base", "channel_max", "phase_kimg")

    def check(self, where: str, resolution: int) -> None:
        """Refuse a budget in which the networks do not reach the pictures' size, beside what every GAN refuses."""
        super().check(where, resolution)
        needed = 2 * (resolution.bit_length() - 3) * self.phase_kimg
        if self.budget_kimg < needed:
            raise InputError(
                f"{where}.budget_kimg is {self.budget_kimg:g}, but {resolution} px are whole after {needed:g} kimg "
                f"only; raise it, or set phase_kimg to at most {self.phase_kimg * self.budget_kimg / needed:g}"
            )


class StyleganSettings(GanSettings):
    """A style-based generator with what regularises it (Karras 2020)."""

    family: Literal["stylegan2"]
    style_width: Count
    mapping_layers: Count
    channel_base: Count
    channel_max: Count
    discriminator_architecture: Literal["resnet", "orig"]
    conv_clamp: Positive | None = None  # bound of convolutions' outputs, for half precision
    style_mixing: Annotated[float, Field(ge=0, le=1)]  # probability that a picture has styles of two latents
    path_length: NotNegative  # weight of the path length penalty; 0: none
    path_length_every: Count = 4
    path_length_decay: Annotated[float, Field(gt=0, le=1)] = 0.01
    path_length_shrink: Count = 2  # the penalty is of a batch so many times smaller
    auto: bool = False  # what is not set follows from the resolution

    ARCHITECTURE: ClassVar[tuple[str, ...]] = (
        "style_width",
        "mapping_layers",
        "channel_base",
        "channel_max",
        "discriminator_architecture",
        "conv_clamp",
    )

    @classmethod
    def completed(cls, merged: dict[str, Any], resolution: int) -> dict[str, Any]:
        """Return settings with what the config `auto` derives from the resolution where they leave it open.

        Karras 2020, "Training Generative Adversarial Networks with Limited Data", official configs.
        """
        if merged.get("auto") is not True:
            return merged
        batch = merged.get("batch", max(min(4096 // resolution, 32), 4))
        rate = 0.002 if resolution >= 1024 else 0.0025
        derived = {
            "batch": batch,
            "channel_base": 32768 if resolution >= 512 else 16384,
            "minibatch_group": min(batch, 4) if isinstance(batch, int) else 4,
            "r1_gamma": 0.0002 * resolution**2 / batch if isinstance(batch, int) and batch else 0,
            "generator_lr": rate,
            "discriminator_lr": rate,
            "ema_half_life_kimg": batch * 10 / 32 if isinstance(batch, int) else 10,
        }
        return derived | merged

    def contradictions(self) -> list[str]:
        """Return what does not fit together: the path length penalty differentiates the generator twice, too."""
        found = super().contradictions()
        if self.path_length and self.precision == "fp16":
            found.append("path_length needs precision fp32 or bf16, not fp16")
        if self.path_length and self.compile:
            found.append("compile cannot differentiate twice, which path_length needs; set it false")
        return found


class R3ganSettings(GanSettings):
    """Grouped residual networks without any trick (Huang 2024)."""

    family: Literal["r3gan"]
    widths: list[Width]  # channels from 4 x 4 upwards
    cardinalities: list[Count]  # groups of the convolutions, likewise
    blocks_per_stage: Count
    expansion: Count

    ARCHITECTURE: ClassVar[tuple[str, ...]] = ("widths", "cardinalities", "blocks_per_stage", "expansion")

    def check(self, where: str, resolution: int) -> None:
        """Refuse widths that are not those of the resolution, beside what every GAN refuses."""
        super().check(where, resolution)
        stages = resolution.bit_length() - 2
        for name in ("widths", "cardinalities"):
            if len(getattr(self, name)) != stages:
                raise InputError(
                    f"{where}.{name} has {len(getattr(self, name))} entries; {resolution} px needs {stages}, from "
                    "4 x 4 upwards"
                )
        for width, groups in zip(self.widths, self.cardinalities, strict=True):
            if width * self.expansion % groups:
                raise InputError(
                    f"{where}.cardinalities has {groups}, which does not divide width {width} x expansion "
                    f"{self.expansion}"
                )


GANS: dict[str, type[GanSettings]] = {
    "gan": FullyConnectedSettings,
    "dcgan": DcganSettings,
    "sngan": SnganSettings,
    "biggan": BigganSettings,
    "progan": ProganSettings,
    "stylegan2": StyleganSettings,
    "r3gan": R3ganSettings,
}
