"""From noise to pictures in one module: the denoiser along a sampling trajectory, then the decoder."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.generators.diffusion.sampling import Trajectory
from stages.networks.diffusion import Denoiser

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

COLUMNS = ("timesteps", "input_scale", "sample", "output", "previous_sample", "previous_output", "noise")
State = tuple[Tensor, Tensor, Tensor]  # sample, the sample and the output before it


class Decoder(nn.Module):
    """Latents as the denoiser sees them to pictures in [-1, 1]; without an autoencoder they are the pictures."""

    def __init__(self, autoencoder: "AutoencoderKL | None") -> None:
        super().__init__()
        self.autoencoder = autoencoder
        config = autoencoder.config if autoencoder else {}
        self.scale, self.shift = float(config.get("scaling_factor", 1.0)), float(config.get("shift_factor") or 0.0)

    def forward(self, latents: Tensor) -> Tensor:
        """Return pictures, shape (N, C, S, S), in [-1, 1]."""
        if self.autoencoder is None:
            return latents.clamp(-1, 1)
        decoded: Tensor = self.autoencoder.decode(latents / self.scale + self.shift, return_dict=False)[0]
        return decoded.clamp(-1, 1)


class Sampler(nn.Module):
    """Draws pictures from noise (N, C, S, S), or (N, rows, C, S, S) where the trajectory adds noise.

    With guidance the prediction is u + g (c - u) of the unconditional u and the conditional c (Ho 2022); the network
    then sees both in one batch of 2 N.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        decoder: Decoder,
        trajectory: Trajectory,
        guided: bool,
        text: nn.Module | None = None,
        no_class: int = 0,
    ) -> None:
        super().__init__()
        self.denoiser, self.decoder, self.text = denoiser, decoder, text
        self.guided, self.no_class = guided, no_class
        self.evaluations, self.stochastic = trajectory.evaluations, trajectory.stochastic
        self.initial_scale = float(trajectory.initial_scale)
        table = np.stack([getattr(trajectory, name) for name in COLUMNS], axis=1)
        self.table: Tensor
        self.rows: Tensor
        self.register_buffer("table", torch.from_numpy(table.astype(np.float32)), persistent=False)
        rows = np.cumsum(trajectory.noise != 0) * (trajectory.noise != 0)  # which row of the noise a step adds
        self.register_buffer("rows", torch.from_numpy(rows.astype(np.int64)), persistent=False)

    def forward(self, latent: Tensor, *inputs: Tensor) -> Tensor:
        """Return pictures in [-1, 1]; `inputs` are the condition's, then those of guidance."""
        condition, guidance = self.conditions(inputs)
        state = self.start(latent)
        for number in range(self.evaluations):
            state = self.advance(torch.tensor([number], device=latent.device), state, latent, condition, guidance)
        pictures: Tensor = self.decoder(state[0])
        return pictures

    def conditions(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Return what the denoiser is told, for both halves of the batch under guidance, and guidance's strength."""
        kind = self.denoiser.condition
        if kind == "none":
            return (), None
        own = self._told(inputs[:1] if kind == "class" else inputs[:2])
        if not self.guided:
            return own, None
        if kind == "class":
            other: tuple[Tensor, ...] = (torch.full_like(own[0], self.no_class),)
        else:
            other = self._told(inputs[2:4])
        return tuple(torch.cat(pair) for pair in zip(other, own, strict=True)), inputs[-1].reshape(-1, 1, 1, 1)

    def _told(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.text is None:
            (label,) = inputs
            return (torch.where(label < 0, self.no_class, label),)
        return self.text(*inputs), inputs[1]

    def start(self, latent: Tensor) -> State:
        """Return the state before the first step."""
        sample = (latent[:, 0] if self.stochastic else latent) * self.initial_scale
        return sample, torch.zeros_like(sample), torch.zeros_like(sample)

    def advance(
        self, number: Tensor, state: State, latent: Tensor, condition: tuple[Tensor, ...], guidance: Tensor | None
    ) -> State:
        """Take the step of a number, int64 (1,): one evaluation of the denoiser."""
        sample, before, output_before = state
        row = self.table.index_select(0, number)[0]
        output = self.predict(row[1] * sample, row[0].expand(len(sample)), condition, guidance)
        after = row[2] * sample + row[3] * output + row[4] * before + row[5] * output_before
        if self.stochastic:
            after = after + row[6] * latent.index_select(1, self.rows.index_select(0, number))[:, 0]
        return after, sample, output

    def predict(
        self, sample: Tensor, timestep: Tensor, condition: tuple[Tensor, ...], guidance: Tensor | None
    ) -> Tensor:
        """Return the denoiser's prediction, guided where guidance is given."""
        if guidance is None:
            predicted: Tensor = self.denoiser(sample, timestep, *condition)
            return predicted
        both = self.denoiser(torch.cat([sample, sample]), torch.cat([timestep, timestep]), *condition)
        without, told = both[: len(sample)], both[len(sample) :]  # chunk would fix the batch in an exported graph
        return without + guidance * (told - without)


class LoopedSampler(Sampler):
    """The same sampler with its steps as one loop in the graph, so that a file holds the denoiser once."""

    @classmethod
    def of(cls, sampler: Sampler) -> "LoopedSampler":
        """Return the looped form of a sampler; both share their networks."""
        looped = copy.copy(sampler)
        looped.__class__ = cls
        return looped  # type: ignore[return-value]

    def forward(self, latent: Tensor, *inputs: Tensor) -> Tensor:
        """Return pictures in [-1, 1], as `Sampler` does."""
        from torch._higher_order_ops.while_loop import while_loop

        for value in inputs:  # the exporter finds this out too late for the loop
            torch._check(value.shape[0] == latent.shape[0])
        condition, guidance = self.conditions(inputs)

        def unfinished(number: Tensor, *_: Tensor) -> Tensor:
            return number[0] < self.evaluations

        def step(number: Tensor, sample: Tensor, before: Tensor, output: Tensor) -> tuple[Tensor, ...]:
            for told in condition:  # inside a loop the exporter does not know that these batches are one
                torch._check(told.shape[0] == sample.shape[0] * (2 if self.guided else 1))
            after, _, predicted = self.advance(number, (sample, before, output), latent, condition, guidance)
            return number + 1, after, sample.clone(), predicted  # a loop may not hand on what it was given

        first = torch.zeros(1, dtype=torch.int64)
        states: Any = while_loop(unfinished, step, (first, *self.start(latent)))
        pictures: Tensor = self.decoder(states[1])
        return pictures
