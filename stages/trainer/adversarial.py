"""One adversarial step, and everything of a GAN's training that a state must hold."""

import importlib
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stages.settings import ModelSettings
from stages.trainer.augmentation import Augmentation, Policy
from stages.trainer.ema import ema_decay, start_average, update_average
from stages.trainer.objectives import OBJECTIVES
from stages.trainer.order import normal_noise, random_source
from stages.trainer.regularisers import r1_penalty
from stages.trainer.state import TrainingState, flatten_optimizer, unflatten_optimizer

STATISTICS = ("loss_generator", "loss_discriminator", "real_logit", "fake_logit", "real_sign", "fake_sign", "r1")


class Adversaries:
    """Generator, discriminator, average and optimizers of one training, on one device."""

    def __init__(
        self, config: dict[str, Any], settings: ModelSettings, policy: Policy, accelerator: Accelerator
    ) -> None:
        self.settings, self.policy, self.accelerator = settings, policy, accelerator
        self.device = accelerator.device
        self.augmentation = Augmentation(policy, self.device)
        self.objective = OBJECTIVES[settings.objective]
        family = importlib.import_module(f"stages.networks.{settings.family}")
        torch.manual_seed(settings.seed)  # initial weights are drawn on the CPU: the same on every device
        self.generator = self._place(family.build_generator(config))
        self.discriminator = self._place(family.build_discriminator(config))
        self.average = start_average(self.generator)
        self.optimizers = {
            "generator": self._adam(self.generator, settings.generator_lr),
            "discriminator": self._adam(self.discriminator, settings.discriminator_lr),
        }
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")

    def _place(self, network: nn.Module) -> nn.Module:
        return network.to(self.device).to(memory_format=torch.channels_last)

    def _adam(self, network: nn.Module, rate: float) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), rate, betas=(self.settings.beta1, self.settings.beta2))

    def step(self, real: Tensor, seen: int) -> dict[str, Tensor]:
        """Take one step of the discriminator and one of the generator; return detached statistics.

        `real` is float in [-1, 1], shape (N, C, H, W); `seen` counts the pictures before this step.
        """
        seed, count = self.settings.seed, len(real)
        random = random_source(seed, "augment", seen)
        noise = normal_noise((count, self.settings.latent), seed, "noise", seen).to(self.device)
        with self.accelerator.autocast():
            fake = self.generator(noise)
        statistics = self._discriminator_step(real, fake.detach(), random)
        statistics |= self._generator_step(fake, random)
        decay = ema_decay(count, seen, self.settings.ema_half_life_kimg * 1000, self.settings.ema_rampup)
        update_average(self.average, self.generator, decay)
        self.augmentation.observe(statistics["real_sign"], count)
        return statistics

    def _discriminator_step(self, real: Tensor, fake: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        gamma = self.settings.r1_gamma
        real = real.requires_grad_(gamma > 0)
        with self.accelerator.autocast():
            real_logits = self.discriminator(self.augmentation(real, random)).float()
            fake_logits = self.discriminator(self.augmentation(fake, random)).float()
            loss = self.objective.discriminator(real_logits, fake_logits, self.settings.label_smoothing)
        penalty = r1_penalty(real, real_logits) if gamma > 0 else torch.zeros((), device=self.device)
        self._update("discriminator", loss + gamma / 2 * penalty)
        return {
            "loss_discriminator": loss.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
            "real_sign": real_logits.detach().sign().mean(),
            "fake_sign": fake_logits.detach().sign().mean(),
            "r1": penalty.detach(),
        }

    def _generator_step(self, fake: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(False)  # the gradient passes through it and stops nowhere in it
        with self.accelerator.autocast():
            loss = self.objective.generator(self.discriminator(self.augmentation(fake, random)).float())
        self._update("generator", loss)
        self.discriminator.requires_grad_(True)
        return {"loss_generator": loss.detach()}

    def _update(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)
        self.scaler.update()

    @torch.no_grad()
    def draw(self, latent: Tensor) -> Tensor:
        """Draw pictures of the averaged generator, float32 on the CPU, in [-1, 1]."""
        pictures: Tensor = self.average(latent.to(self.device))
        return pictures.float().cpu()

    def _networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average}

    def export_state(self, seen: int, values: dict[str, Any]) -> TrainingState:
        """Collect networks, average, optimizers, scaler and ADA's p after `seen` pictures."""
        tensors = {f"{n}/{key}": t for n, net in self._networks().items() for key, t in net.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= flatten_optimizer(f"adam_{name}", optimizer.state_dict())
        return TrainingState(seen, tensors, {**self._plain_state(), **values})

    def _plain_state(self) -> dict[str, Any]:
        return {"scaler": self.scaler.state_dict(), "augmentation": self.augmentation.export_state()}

    def restore(self, state: TrainingState) -> None:
        """Put a state's networks, average, optimizers, scaler and ADA's p back."""
        for name, network in self._networks().items():
            prefix = f"{name}/"
            mine = {k.removeprefix(prefix): t for k, t in state.tensors.items() if k.startswith(prefix)}
            network.load_state_dict(mine)
        for name, optimizer in self.optimizers.items():
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict(unflatten_optimizer(f"adam_{name}", state.tensors, groups))
        if state.values["scaler"]:
            self.scaler.load_state_dict(state.values["scaler"])
        self.augmentation.restore(state.values.get("augmentation", {}))  # an adopted state may be of other code
