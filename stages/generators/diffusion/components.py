"""The networks of a diffusion model as graphs of their own, with the names that diffusers and optimum give them."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.models import AutoencoderKL
from torch import Tensor, nn

from stages.generators.interface import Component
from stages.generators.noise import latents
from stages.networks.diffusion import FOLDERS, Denoiser

if TYPE_CHECKING:
    from stages.generators.diffusion.generator import DiffusionGenerator

SAMPLES = {"unet": ("sample", "out_sample"), "dit": ("hidden_states", "out_hidden_states")}  # in and out
STEPS = "steps"  # the timesteps' own dimension: 1 for all pictures, or one for each


class DenoiserGraph(nn.Module):
    """A denoiser that takes one timestep for the whole batch, as diffusers' pipelines pass it, or one for each."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, sample: Tensor, timestep: Tensor, *condition: Tensor) -> Tensor:
        """Return the prediction, shape (N, C, S, S), at timesteps (1,) or (N,); the rest as `Denoiser` takes it."""
        for told in condition:  # the exporter finds this out too late for attention
            torch._check(told.shape[0] == sample.shape[0])
        predicted: Tensor = self.denoiser(sample, _one_for_each(timestep, sample), *condition)
        return predicted


class DecoderGraph(nn.Module):
    """An autoencoder's decoder as diffusers' pipelines call it: scaling and clamping are theirs."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latent_sample: Tensor) -> Tensor:
        """Return pictures, about [-1, 1], of latents that are already divided by their scaling."""
        decoded: Tensor = self.autoencoder.decode(latent_sample, return_dict=False)[0]
        return decoded


def _one_for_each(timestep: Tensor, sample: Tensor) -> Tensor:
    if not torch.onnx.is_in_onnx_export():
        return timestep.expand(len(sample))
    # torch's own expand would fix in the graph whether there is one timestep or one for each; ONNX's decides when run
    shape = torch.onnx.ops.symbolic("Shape", [sample], {"start": 0, "end": 1}, dtype=torch.int64, shape=(1,))
    return torch.onnx.ops.symbolic("Expand", [timestep, shape], dtype=timestep.dtype, shape=sample.shape[:1])


def components_of(generator: "DiffusionGenerator") -> dict[str, Component]:
    """Return the parts by folder: `unet` or `transformer`, then `vae_decoder` and `text_encoder` where there are."""
    found = {FOLDERS[generator.config["denoiser"]]: _denoiser(generator)}
    if generator.decoder.autoencoder is not None:
        found["vae_decoder"] = _decoder(generator)
    if generator.text is not None:
        found["text_encoder"] = _text_encoder(generator)
    return found


def _denoiser(generator: "DiffusionGenerator") -> Component:
    takes, gives = SAMPLES[generator.config["denoiser"]]

    def examples(batch: int) -> dict[str, np.ndarray]:
        times = generator.trajectory.timesteps[np.arange(batch) % generator.trajectory.evaluations]
        noise = latents(range(batch), tuple(generator.config["latent_shape"]))
        return {takes: noise, "timestep": times.astype(np.float32), **_conditions(generator, batch)}

    return Component(DenoiserGraph(generator.denoiser).eval(), examples, gives, {"timestep": STEPS})


def _conditions(generator: "DiffusionGenerator", batch: int) -> dict[str, np.ndarray]:
    config = generator.config
    if config["condition"] == "class":
        return {"class_labels": np.arange(batch, dtype=np.int64) % (len(config["class_names"]) + 1)}
    if generator.text is None:
        return {}
    mask = generator.export_inputs(batch)["attention_mask"]
    embeddings = latents(range(batch), (mask.shape[1], config["text_width"]))
    return {"encoder_hidden_states": embeddings, "encoder_attention_mask": mask}


def _decoder(generator: "DiffusionGenerator") -> Component:
    autoencoder: Any = generator.decoder.autoencoder

    def examples(batch: int) -> dict[str, np.ndarray]:
        return {"latent_sample": latents(range(batch), tuple(generator.config["latent_shape"]))}

    return Component(DecoderGraph(autoencoder).eval(), examples, "sample")


def _text_encoder(generator: "DiffusionGenerator") -> Component:
    assert generator.text is not None

    def examples(batch: int) -> dict[str, np.ndarray]:
        inputs = generator.export_inputs(batch)
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}

    return Component(generator.text.network, examples, "last_hidden_state")


def sampling_of(generator: "DiffusionGenerator") -> dict[str, Any]:
    """Return all that a host needs between the graphs, as plain JSON values: trajectory, guidance, scaling, labels.

    latents / scaling_factor + shift_factor is what `vae_decoder` takes; its pictures are then clamped to [-1, 1].
    noise_shape is of one picture; no_class is the label that guidance leads away from.
    """
    config, capabilities = generator.config, generator.capabilities
    values = generator.trajectory.to_json() | {
        "noise_shape": list(capabilities.latent_shape),
        "guidance": float(config["guidance"]) if capabilities.guidance else 1.0,
        "scaling_factor": generator.decoder.scale,
        "shift_factor": generator.decoder.shift,
    }
    if capabilities.class_names:
        values |= {"class_names": list(capabilities.class_names), "no_class": len(capabilities.class_names)}
    if generator.text is not None:
        values |= {"prompt_length": capabilities.prompt_length, "negative_prompt": config["text"]["negative"]}
    return values
