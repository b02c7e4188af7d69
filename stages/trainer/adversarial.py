"""One adversarial step, and everything of a GAN's training that a state must hold."""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stages.settings.models import DcganSettings
from stages.trainer.augmentation import Augmentation, Policy
from stages.trainer.ema import ema_decay, start_average, update_average
from stages.trainer.memory import FrozenMoments, checkpoint_layers
from stages.trainer.objectives import OBJECTIVES
from stages.trainer.order import normal_noise, random_source
from stages.trainer.regularisers import r1_penalty
from stages.trainer.state import TrainingState, flatten_optimizer, unflatten_optimizer
from stages.trainer.world import World

STATISTICS = ("loss_generator", "loss_discriminator", "real_logit", "fake_logit", "real_sign", "fake_sign", "r1")


class Adversaries:
    """Generator, discriminator, average and optimizers of one training, on one device."""

    def __init__(self, config: dict[str, Any], settings: DcganSettings, policy: Policy, world: World) -> None:
        self.settings, self.policy, self.world, self.accelerator = settings, policy, world, world.accelerator
        self.device = world.accelerator.device
        self.augmentation = Augmentation(policy, self.device)
        self.objective = OBJECTIVES[settings.objective]
        family = importlib.import_module(f"stages.networks.{settings.family}")
        torch.manual_seed(settings.seed)  # initial weights are drawn on the CPU: the same on every device
        self.generator = self._place(family.build_generator(config))
        self.discriminator = self._place(family.build_discriminator(config))
        self.average = start_average(self.generator)
        if settings.checkpointing:
            checkpoint_layers(self.generator)
            checkpoint_layers(self.discriminator)
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

        `real` is this process's share of the batch, float in [-1, 1], shape (N, C, H, W); `seen` counts all pictures
        before this step. With `accumulation`, networks see the share in that many parts.
        """
        seed, whole, parts = self.settings.seed, len(real) * self.world.size, self.settings.accumulation
        random = random_source(seed, "augment", seen, *([self.world.rank] if self.world.rank else []))
        noise = self.world.share(normal_noise((whole, self.settings.latent), seed, "noise", seen)).to(self.device)
        reals, noises = real.chunk(parts), noise.chunk(parts)
        fakes = [self._draw_for_both(part) for part in noises]
        statistics = self._discriminator_step(reals, fakes, random)
        statistics |= self._generator_step(noises, fakes, random)
        self._agree(statistics)
        decay = ema_decay(whole, seen, self.settings.ema_half_life_kimg * 1000, self.settings.ema_rampup)
        update_average(self.average, self.generator, decay)
        self.augmentation.observe(statistics["real_sign"], whole)
        return statistics

    def _draw_for_both(self, noise: Tensor) -> Tensor:
        """Draw pictures for the discriminator's step, and with their graph for the generator's if there is one part."""
        if self.settings.accumulation == 1:
            with self.accelerator.autocast():
                return self.generator(noise)
        with torch.no_grad(), FrozenMoments(self.generator), self.accelerator.autocast():
            return self.generator(noise)

    def _discriminator_step(
        self, reals: Sequence[Tensor], fakes: list[Tensor], random: torch.Generator
    ) -> dict[str, Tensor]:
        parts = [self._judge(real, fake.detach(), random) for real, fake in zip(reals, fakes, strict=True)]
        self._update("discriminator")
        return {key: torch.stack([part[key] for part in parts]).mean() for key in parts[0]}

    def _judge(self, real: Tensor, fake: Tensor, random: torch.Generator) -> dict[str, Tensor]:
        """Add one part's gradient of the discriminator's loss; return the part's statistics."""
        gamma = self.settings.r1_gamma
        real = real.detach().requires_grad_(gamma > 0)
        with self.accelerator.autocast():
            real_logits = self.discriminator(self.augmentation(real, random)).float()
            fake_logits = self.discriminator(self.augmentation(fake, random)).float()
            loss = self.objective.discriminator(real_logits, fake_logits, self.settings.label_smoothing)
        penalty = r1_penalty(real, real_logits) if gamma > 0 else torch.zeros((), device=self.device)
        self._add_gradient(loss + gamma / 2 * penalty)
        return {
            "loss_discriminator": loss.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
            "real_sign": real_logits.detach().sign().mean(),
            "fake_sign": fake_logits.detach().sign().mean(),
            "r1": penalty.detach(),
        }

    def _generator_step(
        self, noises: Sequence[Tensor], fakes: list[Tensor], random: torch.Generator
    ) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(False)  # the gradient passes through it and stops nowhere in it
        losses = []
        for noise, drawn in zip(noises, fakes, strict=True):
            with self.accelerator.autocast():
                fake = drawn if self.settings.accumulation == 1 else self.generator(noise)
                loss = self.objective.generator(self.discriminator(self.augmentation(fake, random)).float())
            self._add_gradient(loss)
            losses.append(loss.detach())
        self._update("generator")
        self.discriminator.requires_grad_(True)
        return {"loss_generator": torch.stack(losses).mean()}

    def _add_gradient(self, loss: Tensor) -> None:
        self.scaler.scale(loss / self.settings.accumulation).backward()

    def _update(self, name: str) -> None:
        """Step one network's optimizer by the gradient added so far, averaged over all processes."""
        optimizer = self.optimizers[name]
        self.world.average_gradients(self._networks()[name])
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def _agree(self, statistics: dict[str, Tensor]) -> None:
        """Make statistics and running moments the means over all processes, whose networks thus stay equal."""
        self.world.average(statistics.values())
        self.world.average([*self.generator.buffers(), *self.discriminator.buffers()])

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
