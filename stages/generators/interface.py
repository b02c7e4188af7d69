"""What every trained model and every ONNX file can be asked, whatever its family."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import InputError
from stages.generators.noise import latents

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Capabilities:
    """What a generator takes and gives; export writes it into the ONNX file, so that both answer alike."""

    family: str
    latent_shape: tuple[int, ...]  # of one picture, without the batch
    resolution: int
    channels: int
    class_names: tuple[str, ...] = ()  # empty: takes no label
    prompt: bool = False
    image: bool = False
    mask: bool = False
    truncation: bool = False
    guidance: bool = False
    steps: int | None = None  # sampling steps; None: one pass
    prompt_length: int = 0  # tokens that a prompt is padded to
    default_guidance: float = 1.0  # 1: the condition alone
    default_truncation: float = 1.0  # pictures as without a truncation trick

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"latent_shape": list(self.latent_shape), "class_names": list(self.class_names)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Capabilities":
        """Read what `to_json` returned."""
        return cls(**value | {"latent_shape": tuple(value["latent_shape"]), "class_names": tuple(value["class_names"])})


@dataclass(frozen=True)
class Request:
    """Pictures that are asked for: noise of shape (N, *latent_shape), float32, always passed in.

    `extra` holds `label`, int64 (N,), where the generator has classes; -1 asks one that draws in steps for no class.
    `prompts` are N texts,
    `negative` what guidance leads away from; `guidance` and `truncation` replace the defaults.
    """

    latent: np.ndarray
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    prompts: Sequence[str] = ()
    negative: str | None = None
    guidance: float | None = None
    truncation: float | None = None

    def classes(self, capabilities: Capabilities) -> np.ndarray:
        """Return the class of each picture, int64 (N,).

        Raises:
            InputError: one is missing, and the generator cannot draw without.
        """
        label = self.extra.get("label", np.full(len(self.latent), -1, np.int64))
        if (label < 0).any() and capabilities.steps is None:
            missing = int((label < 0).sum())
            raise InputError(
                f"this {capabilities.family} model draws by class, but {missing} of {len(label)} pictures were asked "
                f"for without one; labels are 0 to {len(capabilities.class_names) - 1}"
            )
        return label

    def truncations(self, capabilities: Capabilities) -> np.ndarray:
        """Return the truncation of each picture, float32 (N,)."""
        wanted = capabilities.default_truncation if self.truncation is None else self.truncation
        return np.full(len(self.latent), wanted, np.float32)


@dataclass(frozen=True)
class Asked:
    """What a person asks of all pictures of a run; None leaves it to the generator.

    Without a label classes take turns by seed; without a prompt it is the empty one.
    """

    label: int | None = None
    prompt: str | None = None
    negative: str | None = None
    guidance: float | None = None
    truncation: float | None = None

    def check(self, capabilities: Capabilities) -> None:
        """Refuse what a generator does not take.

        Raises:
            InputError: such as a label of a model without classes.
        """
        family, names = capabilities.family, capabilities.class_names
        if self.label is not None and not names:
            raise InputError(f"label {self.label} was asked for, but this {family} model has no classes")
        if self.label is not None and not 0 <= self.label < len(names):
            raise InputError(f"label is {self.label}; this model has 0 to {len(names) - 1} ({', '.join(names)})")
        if not capabilities.prompt and (self.prompt is not None or self.negative is not None):
            raise InputError(f"a prompt was given, but this {family} model takes none")
        if self.guidance is not None and not capabilities.guidance:
            raise InputError(f"guidance {self.guidance:g} was asked for, but this {family} model takes none")
        if self.truncation is not None and not capabilities.truncation:
            raise InputError(
                f"truncation {self.truncation:g} was asked for, but this {family} model has no mapping or truncation "
                "trick; families stylegan2 and biggan have one"
            )

    def request(self, capabilities: Capabilities, seeds: range) -> Request:
        """Return the request for the pictures of these seeds."""
        names = capabilities.class_names
        labels = [seed % len(names) if self.label is None else self.label for seed in seeds] if names else []
        return Request(
            latents(seeds, capabilities.latent_shape),
            {"label": np.array(labels, np.int64)} if names else {},
            [self.prompt or ""] * len(seeds) if capabilities.prompt else (),
            self.negative,
            self.guidance,
            self.truncation,
        )


ANYTHING = Asked()


class Generator(ABC):
    """A source of pictures: a trained model or an ONNX file."""

    capabilities: Capabilities
    identity: dict[str, str]  # sha256 of weights, data, settings: what the pictures come from

    @abstractmethod
    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1], one for each latent."""

    def draw(self, seeds: range, batch: int = 64, asked: Asked = ANYTHING) -> Iterator[np.ndarray]:
        """Draw the pictures of these seeds in batches; a seed gives the same picture in any batch.

        Raises:
            InputError: something is asked that the generator does not take.
        """
        asked.check(self.capabilities)
        for start in range(0, len(seeds), batch):
            yield self.generate(asked.request(self.capabilities, seeds[start : start + batch]))

    def resampled(self, steps: int | None, sampler: str | None) -> "Generator":
        """Return the same generator with another number of sampling steps, or another sampler.

        Raises:
            InputError: it does not sample in steps, or cannot change them.
        """
        if steps is None and sampler is None:
            return self
        raise InputError(f"steps or a sampler were given, but this {self.capabilities.family} model draws in one pass")


class TorchGenerator(Generator):
    """A trained model: a generator that also lends its network to export and to the benchmark's comparison."""

    network: "nn.Module"

    @abstractmethod
    def export_inputs(self, batch: int) -> dict[str, np.ndarray]:
        """Return example inputs of the network by name, in the order of its `forward`, for tracing."""

    def export_network(self) -> "nn.Module":
        """Return what is traced for the ONNX file: the network, or a form of it that draws the same."""
        return self.network

    def metadata(self) -> dict[str, str]:
        """Return what an ONNX file must say beside capabilities and identity, such as a tokenizer."""
        return {}

    def components(self) -> dict[str, "Component"]:
        """Return the parts that other tools run by themselves, by the folder of diffusers' layout; mostly none."""
        return {}

    def write_layout(self, folder: Path) -> None:
        """Write what belongs beside the components: configurations, tokenizer, tables."""


@dataclass(frozen=True)
class Component:
    """A part of a generator as a graph of its own: a module of one output, whose name is `output`.

    `examples` gives inputs of a batch by name, in the order of the module's `forward`. The first dimension of each is
    free; it is the batch, but for inputs that `own_dimension` gives another name for it, since they may be of length 1.
    """

    module: "nn.Module"
    examples: Callable[[int], dict[str, np.ndarray]]
    output: str
    own_dimension: dict[str, str] = field(default_factory=dict)
