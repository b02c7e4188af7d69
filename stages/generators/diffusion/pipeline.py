"""Draw pictures from noise with the networks beside this file, by diffusers and without any other code.

pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
pictures = pipe(latents=torch.randn(4, *pipe.noise_shape)).images
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class NoiseToPicturePipeline(DiffusionPipeline):
    """Pixel or latent diffusion and flows, without a condition, by class or by text, with any scheduler of diffusers.

    steps, guidance_scale and negative_prompt are what a call leaves out; eta above 0 lets DDIM add noise at each step;
    id2label names the classes. The label that stands for no class is the one after them.
    """

    model_cpu_offload_seq = "text_encoder->unet->transformer->vae"  # type: ignore[assignment]
    _optional_components = ["unet", "transformer", "vae", "text_encoder", "tokenizer"]

    def __init__(
        self,
        scheduler: SchedulerMixin,
        unet: UNet2DModel | UNet2DConditionModel | None = None,
        transformer: DiTTransformer2DModel | None = None,
        vae: AutoencoderKL | None = None,
        text_encoder: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        steps: int = 50,
        guidance_scale: float = 1.0,
        eta: float = 0.0,
        id2label: dict[int, str] | None = None,
        negative_prompt: str = "",
    ) -> None:
        super().__init__()
        self.register_modules(
            scheduler=scheduler,
            unet=unet,
            transformer=transformer,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        defaults = {"steps": steps, "guidance_scale": guidance_scale, "negative_prompt": negative_prompt}
        self.register_to_config(**defaults, eta=eta, id2label=id2label or {})

    @property
    def denoiser(self) -> Any:
        """The network that predicts."""
        return self.unet if self.unet is not None else self.transformer

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.config["id2label"])

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The shape of one picture's noise at the default number of steps: (C, S, S), or (steps, C, S, S)."""
        return self._noise_shape(self.config["steps"])

    def _noise_shape(self, steps: int) -> tuple[int, ...]:
        side, channels = self.denoiser.config.sample_size, self.denoiser.config.in_channels
        own = (channels, side, side)
        return (steps, *own) if self.config["eta"] > 0 and steps > 1 else own

    @torch.no_grad()
    def __call__(
        self,
        latents: torch.Tensor | np.ndarray | None = None,
        class_labels: torch.Tensor | Sequence[int] | int | None = None,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        batch_size: int = 1,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw one picture for each noise of `latents`, else `batch_size` pictures from noise of `generator`.

        latents: standard normal (N, *noise_shape); where eta is above 0 row 0 is the start, the others are added.
        class_labels: N numbers or one for all; -1, or leaving them out, asks for no class. prompt: N texts or one.
        guidance_scale: u + scale * (c - u), classifier-free guidance (Ho 2022); 1 is the condition alone.
        output_type: "pil", "np" (N, S, S, C) in [0, 1] or "pt" (N, C, S, S) in [0, 1].

        Raises:
            ValueError: shapes or lengths do not fit, or something is asked that the networks do not take.
        """
        scale = self.config["guidance_scale"] if guidance_scale is None else guidance_scale
        steps = self.config["steps"] if num_inference_steps is None else num_inference_steps
        noise = self._noise(latents, batch_size, steps, generator)
        told = self._conditions(len(noise), class_labels, prompt)
        if scale != 1:
            told = self._with_unconditional(told, len(noise), negative_prompt)
        self._set_timesteps(steps)
        pictures = self._as_asked(self._decode(self._walk(noise, told, scale)), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=pictures) if return_dict else (pictures,)

    def _set_timesteps(self, steps: int) -> None:
        options: dict[str, Any] = {"num_inference_steps": steps}
        if isinstance(self.scheduler, FlowMatchEulerDiscreteScheduler):  # whose own last step nearly stands still
            options["sigmas"] = np.linspace(1.0, 1.0 / steps, steps)
        self.scheduler.set_timesteps(**options, device=self._execution_device)

    def _noise(
        self, latents: torch.Tensor | np.ndarray | None, count: int, steps: int, generator: torch.Generator | None
    ) -> torch.Tensor:
        shape, where = self._noise_shape(steps), {"device": self._execution_device, "dtype": self.denoiser.dtype}
        if latents is None:
            drawn: torch.Tensor = randn_tensor((count, *shape), generator=generator, **where)
            return drawn
        given = torch.as_tensor(latents).to(**where)
        if tuple(given.shape[1:]) != shape:
            raise ValueError(f"latents: found shape {tuple(given.shape)}, expected (N, {', '.join(map(str, shape))})")
        return given

    def _conditions(self, count: int, class_labels: Any, prompt: str | Sequence[str] | None) -> dict[str, torch.Tensor]:
        if class_labels is not None and not self.classes:
            raise ValueError("class_labels were given, but this model has no classes")
        if prompt is not None and self.text_encoder is None:
            raise ValueError("a prompt was given, but this model takes none")
        if self.text_encoder is not None:
            return self._read([prompt or ""] * count if prompt is None or isinstance(prompt, str) else prompt, count)
        if self.classes:
            return {"class_labels": self._labels(count, class_labels)}
        return {"class_labels": self._all(0, count)} if self.transformer is not None else {}

    def _all(self, label: int, count: int) -> torch.Tensor:
        return torch.full((count,), label, dtype=torch.int64, device=self._execution_device)

    def _labels(self, count: int, class_labels: Any) -> torch.Tensor:
        labels = torch.as_tensor(-1 if class_labels is None else class_labels, device=self._execution_device).long()
        labels = labels.expand(count) if labels.ndim == 0 else labels
        if len(labels) != count or not ((labels >= -1) & (labels < self.classes)).all():
            raise ValueError(f"class_labels: found {labels.tolist()}, expected {count} of -1 to {self.classes - 1}")
        return torch.where(labels < 0, self.classes, labels)

    def _read(self, prompts: Sequence[str], count: int) -> dict[str, torch.Tensor]:
        longest = self.tokenizer.model_max_length
        tokens = self.tokenizer(list(prompts), padding="max_length", max_length=longest, return_tensors="pt")
        ids, mask = (tokens[name].to(self._execution_device) for name in ("input_ids", "attention_mask"))
        if ids.shape != (count, longest):
            raise ValueError(f"prompt: found {ids.shape[0]} of {ids.shape[1]} tokens, expected {count} of {longest}")
        embeddings = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return {"encoder_hidden_states": embeddings, "encoder_attention_mask": mask.bool()}

    def _with_unconditional(
        self, told: dict[str, torch.Tensor], count: int, negative_prompt: str | None
    ) -> dict[str, torch.Tensor]:
        if self.text_encoder is not None:
            negative = self.config["negative_prompt"] if negative_prompt is None else negative_prompt
            other = self._read([negative] * count, count)
        elif self.classes:
            other = {"class_labels": self._all(self.classes, count)}
        else:
            raise ValueError("guidance_scale is not 1, but this model has no condition to be guided by")
        return {name: torch.cat([other[name], value]) for name, value in told.items()}

    def _walk(self, noise: torch.Tensor, told: dict[str, torch.Tensor], scale: float) -> torch.Tensor:
        rows = noise if noise.ndim == 5 else noise[:, None]
        sample = rows[:, 0] * getattr(self.scheduler, "init_noise_sigma", 1.0)
        for number, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            scaled = sample
            if hasattr(self.scheduler, "scale_model_input"):
                scaled = self.scheduler.scale_model_input(sample, timestep)
            output = self._predict(scaled, timestep, told, scale)
            options: dict[str, Any] = {}
            if self.config["eta"] > 0:  # the last step adds nothing: what stands there does not matter
                added = rows[:, min(number + 1, rows.shape[1] - 1)]
                options = {"eta": self.config["eta"], "variance_noise": added}
            sample = self.scheduler.step(output, timestep, sample, **options, return_dict=False)[0]
        return sample

    def _predict(
        self, sample: torch.Tensor, timestep: torch.Tensor, told: dict[str, torch.Tensor], scale: float
    ) -> torch.Tensor:
        seen = torch.cat([sample, sample]) if scale != 1 else sample
        times = timestep.to(seen).expand(len(seen))
        output: torch.Tensor = self.denoiser(seen, timestep=times, **told, return_dict=False)[0]
        if scale == 1:
            return output
        without, conditional = output.chunk(2)
        return without + scale * (conditional - without)

    def _decode(self, sample: torch.Tensor) -> torch.Tensor:
        if self.vae is not None:
            sample = sample / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
            sample = self.vae.decode(sample, return_dict=False)[0]
        return (sample / 2 + 0.5).clamp(0, 1)

    def _as_asked(self, pictures: torch.Tensor, output_type: str) -> Any:
        if output_type == "pt":
            return pictures
        arrays = pictures.cpu().permute(0, 2, 3, 1).float().numpy()
        return self.numpy_to_pil(arrays) if output_type == "pil" else arrays
