"""How noise is added, what a denoiser is asked to predict, and how its errors are weighted."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.generators.diffusion.schedules import NoiseSchedule, signal_and_noise

GAMMA = 5.0  # of min-SNR weighting (Hang 2023)


@dataclass(frozen=True)
class Noised:
    """A batch at its timesteps: samples, the noise in them, and x_t = signal x_0 + sigma noise, each (N, C, H, W).

    `signal` and `sigma` have shape (N, 1, 1, 1); `timesteps`, float (N,), lie in [0, 1000).
    """

    clean: Tensor
    noise: Tensor
    noisy: Tensor
    signal: Tensor
    sigma: Tensor
    timesteps: Tensor


class Process:
    """The forward process of a noise schedule."""

    def __init__(self, schedule: NoiseSchedule, timesteps: str, weighting: str) -> None:
        self.schedule, self.timesteps, self.weighting = schedule, timesteps, weighting

    def draw_timesteps(self, count: int, random: torch.Generator) -> Tensor:
        """Return random timesteps, float32 (N,): whole numbers, for flow matching any in [0, 1000).

        `uniform`, or `logit_normal`: the sigmoid of a standard normal number (Esser 2024, equation 19).
        """
        if self.timesteps == "logit_normal":
            share = torch.sigmoid(torch.randn(count, generator=random))
        else:
            share = torch.rand(count, generator=random)
        steps = share * self.schedule.train_steps
        return steps if self.schedule.prediction == "flow" else steps.floor().clamp(max=self.schedule.train_steps - 1)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Noised:
        """Return samples with noise (Ho 2020, equation 4; for flow matching Lipman 2023: (1 - t) x_0 + t noise)."""
        signal, sigma = self.levels(timesteps)
        signal, sigma = signal.to(clean.device), sigma.to(clean.device)
        return Noised(clean, noise, signal * clean + sigma * noise, signal, sigma, timesteps.to(clean.device))

    def levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of sample and noise at timesteps (N,), float32 (N, 1, 1, 1) each."""
        factors = signal_and_noise(self.schedule, timesteps.numpy().astype(np.float64))
        signal, sigma = (torch.from_numpy(np.asarray(factor, np.float32)) for factor in factors)
        return signal.reshape(-1, 1, 1, 1), sigma.reshape(-1, 1, 1, 1)

    def target(self, noised: Noised) -> Tensor:
        """Return what the network is to predict.

        epsilon: the noise (Ho 2020); v: signal noise - sigma x_0 (Salimans 2022); flow: noise - x_0 (Liu 2023).
        """
        if self.schedule.prediction == "epsilon":
            return noised.noise
        if self.schedule.prediction == "v":
            return noised.signal * noised.noise - noised.sigma * noised.clean
        return noised.noise - noised.clean

    def to_clean(self, prediction: Tensor, noised: Noised) -> Tensor:
        """Return the x_0 that a prediction stands for; infinite for epsilon where there is no signal."""
        if self.schedule.prediction == "epsilon":
            return (noised.noisy - noised.sigma * prediction) / noised.signal
        if self.schedule.prediction == "v":
            return noised.signal * noised.noisy - noised.sigma * prediction
        return noised.noisy - noised.sigma * prediction

    def to_noise(self, prediction: Tensor, noised: Noised) -> Tensor:
        """Return the noise that a prediction stands for."""
        if self.schedule.prediction == "epsilon":
            return prediction
        if self.schedule.prediction == "v":
            return noised.sigma * noised.noisy + noised.signal * prediction
        return noised.noisy + noised.signal * prediction

    def weights(self, signal: Tensor, sigma: Tensor) -> Tensor:
        """Return the weight of each picture's squared error, same shape.

        min_snr_5: min(SNR, 5) on the error of x_0 (Hang 2023, section 3.4), times the square of how much an error of
        the prediction changes x_0: 1 / SNR for epsilon, sigma^2 for v and flow.
        """
        if self.weighting == "uniform":
            return torch.ones_like(signal)
        ratio = signal.square() / sigma.square().clamp_min(1e-20)
        capped = ratio.clamp(max=GAMMA)
        if self.schedule.prediction == "epsilon":
            return capped / ratio.clamp_min(1e-20)
        return capped * sigma.square()
