"""A trained diffusion model as a generator: pixels or latents, by class or by text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.errors import InputError
from stages.generators.diffusion.components import components_of
from stages.generators.diffusion.sampler import Decoder, LoopedSampler, Sampler
from stages.generators.diffusion.sampling import Trajectory, trace
from stages.generators.diffusion.schedules import NoiseSchedule
from stages.generators.interface import Capabilities, Component, Request, TorchGenerator
from stages.generators.noise import latents
from stages.networks.diffusion import Denoiser, build_denoiser, load_denoiser

if TYPE_CHECKING:
    from stages.generators.diffusion.text import TextEncoder

TOKENS = ("input_ids", "attention_mask")
AUTOENCODERS = ("vae", "vqvae")  # the second is what diffusers' LDMPipeline calls it


def schedule_of(config: dict[str, Any]) -> NoiseSchedule:
    """Return the noise schedule of a model's config."""
    return NoiseSchedule(config["prediction"], config["schedule"], config["zero_terminal_snr"])


class DiffusionGenerator(TorchGenerator):
    """A denoiser with its decoder and text encoder, in evaluation mode, float32, on one device."""

    def __init__(
        self, denoiser: Denoiser, decoder: Decoder, config: dict[str, Any], text: "TextEncoder | None" = None
    ) -> None:
        self.denoiser, self.decoder, self.config, self.text = denoiser, decoder, config, text
        self.identity = dict(config.get("identity", {}))
        if "pictures" in config:  # also of latents: the data is the pictures
            self.identity["dataset"] = config["pictures"]
        self.trajectory: Trajectory = trace(schedule_of(config), config["sampler"], config["steps"])
        conditional = config["condition"] != "none" and config["condition_dropout"] > 0
        shape = tuple(config["latent_shape"])
        self.capabilities = Capabilities(
            "diffusion",
            (1 + self.trajectory.noise_rows, *shape) if self.trajectory.stochastic else shape,
            config["resolution"],
            config["channels"],
            tuple(config["class_names"]) if config["condition"] == "class" else (),
            prompt=config["condition"] == "text",
            guidance=conditional,
            steps=config["steps"],
            prompt_length=config["text"]["length"] if config["condition"] == "text" else 0,
            default_guidance=config["guidance"],
        )
        self.network: Sampler = self._sampler(guided=self.exports_guidance)

    @property
    def exports_guidance(self) -> bool:
        """Whether the network, and so the file, takes guidance: only where the model is meant to be guided."""
        return bool(self.capabilities.guidance and self.config["guidance"] != 1)

    def _sampler(self, guided: bool) -> Sampler:
        text = self.text.network if self.text else None
        no_class = len(self.config["class_names"])
        sampler = Sampler(self.denoiser, self.decoder, self.trajectory, guided, text, no_class)
        return sampler.eval().requires_grad_(False).to(next(self.denoiser.parameters()).device)

    @torch.inference_mode()
    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1].

        Raises:
            InputError: a prompt is too long.
        """
        guidance = self.config["guidance"] if request.guidance is None else request.guidance
        guided = guidance != 1 and self.capabilities.guidance
        network = self.network if guided == self.network.guided else self._sampler(guided)
        inputs = [request.latent, *self._inputs(request, guided, guidance)]
        device = next(self.denoiser.parameters()).device
        drawn: np.ndarray = network(*(torch.from_numpy(value).to(device) for value in inputs)).float().cpu().numpy()
        return drawn

    def _inputs(self, request: Request, guided: bool, guidance: float) -> list[np.ndarray]:
        count = len(request.latent)
        found: list[np.ndarray] = []
        if self.capabilities.class_names:
            found.append(request.extra.get("label", np.full(count, -1, np.int64)))
        if self.text:
            found += self._tokens(list(request.prompts) or [""] * count)
            if guided:
                found += self._tokens([self._negative(request)] * count)
        return [*found, np.full(count, guidance, np.float32)] if guided else found

    def _negative(self, request: Request) -> str:
        default: str = self.config["text"]["negative"]
        return default if request.negative is None else request.negative

    def _tokens(self, prompts: list[str]) -> list[np.ndarray]:
        assert self.text is not None
        found = self.text.tokenizer.encode(prompts)
        return [found[name] for name in TOKENS]

    def export_inputs(self, batch: int) -> dict[str, np.ndarray]:
        """Return inputs of the seeds 0 to batch - 1: classes in turn, the empty prompt, default guidance."""
        names = self.capabilities.class_names
        label = {"label": np.arange(batch, dtype=np.int64) % max(1, len(names))}
        noise = latents(range(batch), self.capabilities.latent_shape)
        request = Request(noise, label if names else {}, self._example_prompts(batch))
        guided = self.exports_guidance
        values = self._inputs(request, guided, self.config["guidance"])
        return dict(zip(self.input_names(guided), [noise, *values], strict=True))

    def _example_prompts(self, batch: int) -> list[str]:
        prompts = self.config["text"]["prompts"] or [""]
        return [prompts[number % len(prompts)] for number in range(batch)] if self.text else []

    def input_names(self, guided: bool) -> list[str]:
        """Return the names of the network's inputs, in order."""
        names = ["latent", *(["label"] if self.capabilities.class_names else [])]
        if self.text:
            names += [*TOKENS, *([f"negative_{name}" for name in TOKENS] if guided else [])]
        return [*names, *(["guidance"] if guided else [])]

    def export_network(self) -> LoopedSampler:
        """Return the sampler with its steps as a loop."""
        return LoopedSampler.of(self.network)

    def metadata(self) -> dict[str, str]:
        """Return the tokenizer of a model that takes prompts, as JSON, and what guidance leads away from."""
        if not self.text:
            return {}
        return {"tokenizer": self.text.tokenizer.to_json(), "negative_prompt": self.config["text"]["negative"]}

    def components(self) -> dict[str, Component]:
        """Return denoiser, decoder and text encoder under the folders and with the tensor names of diffusers."""
        return components_of(self)

    def write_layout(self, folder: Path) -> None:
        """Write what lies beside the graphs: configs, scheduler, tokenizer, trajectory, sampler in numpy."""
        from stages.generators.diffusion.layout import write_layout  # which imports this module

        write_layout(folder, self)

    def resampled(self, steps: int | None, sampler: str | None) -> "DiffusionGenerator":
        """Return the same networks with another number of steps, or another sampler.

        Raises:
            InputError: the sampler does not suit what the network predicts.
        """
        if steps is not None and not 1 <= steps <= 1000:
            raise InputError(f"steps is {steps}; expected 1 to 1000")
        changed = {"steps": steps or self.config["steps"], "sampler": sampler or self.config["sampler"]}
        return DiffusionGenerator(self.denoiser, self.decoder, {**self.config, **changed}, self.text)


def load(weights: Path, config: dict[str, Any]) -> DiffusionGenerator:
    """Open a weights folder in diffusers' layout."""
    return _assemble(load_denoiser(weights, config), weights, config)


def untrained(config: dict[str, Any], seed: int, weights: Path) -> DiffusionGenerator:
    """Return the same denoiser with fresh weights, and the trained decoder: the baseline that training must beat."""
    torch.manual_seed(seed)
    return _assemble(build_denoiser(config), weights, config)


def _assemble(denoiser: Denoiser, weights: Path, config: dict[str, Any]) -> DiffusionGenerator:
    from diffusers.models import AutoencoderKL

    autoencoder, text = None, None
    for name in AUTOENCODERS:
        if (weights / name).is_dir():
            autoencoder = AutoencoderKL.from_pretrained(weights / name, local_files_only=True)
    if config["condition"] == "text":
        from stages.generators.diffusion.text import load_text_encoder

        text = load_text_encoder(weights, config["text"]["length"])
    return DiffusionGenerator(denoiser.eval().requires_grad_(False), Decoder(autoencoder), config, text)
