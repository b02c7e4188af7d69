"""One step of an autoencoder and its discriminator, and everything of them that a state must hold."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stages.networks.vae import build_autoencoder, build_discriminator
from stages.settings.autoencoders import ReconstructionSettings
from stages.trainer.ema import ema_decay, start_average, update_average
from stages.trainer.memory import checkpoint_layers
from stages.trainer.objectives import hinge_discriminator, hinge_generator
from stages.trainer.order import normal_noise
from stages.trainer.reconstruction.objective import Reconstruction, adaptive_weight, divergence, psnr
from stages.trainer.reconstruction.perceptual import open_perceptual
from stages.trainer.state import TrainingState, flatten_optimizer, unflatten_optimizer
from stages.trainer.world import World

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

STATISTICS = ("loss", "l1", "perceptual", "kl", "psnr")
ADVERSARIAL = ("loss_adversarial", "adaptive_weight", "loss_discriminator", "real_logit", "fake_logit")


class Autoencoding:
    """Autoencoder, average, discriminator and optimizers of one training, on one device.

    The discriminator learns on the batch that the autoencoder has just learnt on, from the reconstructions of before
    that step, without their graph: no gradient of one network ever stays in the other.
    """

    def __init__(self, config: dict[str, Any], settings: ReconstructionSettings, world: World) -> None:
        self.settings, self.world, self.accelerator = settings, world, world.accelerator
        self.device = world.accelerator.device
        self.latent_shape = tuple(config["latent_shape"])
        torch.manual_seed(settings.seed)  # initial weights are drawn on the CPU: the same on every device
        self.autoencoder: AutoencoderKL = self._place(build_autoencoder(config))
        self.average: AutoencoderKL = start_average(self.autoencoder)
        self.networks: dict[str, nn.Module] = {"autoencoder": self.autoencoder}
        if settings.adversarial:
            self.networks["discriminator"] = self._place(build_discriminator(config))
        self._save_memory_and_time()
        self.optimizers = {name: self._adam(name) for name in self.networks}
        distance = open_perceptual(self._looks, self.device) if self._looks else None
        self.reconstruction = Reconstruction(settings.l1, settings.perceptual, distance)

    @property
    def _looks(self) -> str | None:
        return self.settings.perceptual_network if self.settings.perceptual else None

    def _place(self, network: Any) -> Any:
        return network.to(self.device).to(memory_format=torch.channels_last)

    def _save_memory_and_time(self) -> None:
        """Obey checkpointing and compile; the decoder's last layer stays apart, since its gradient is asked for."""
        if self.settings.checkpointing:
            self.autoencoder.enable_gradient_checkpointing()
            if "discriminator" in self.networks:
                checkpoint_layers(self.networks["discriminator"])
        if self.settings.compile:
            decoder = self.autoencoder.decoder
            for block in (self.autoencoder.encoder, decoder.mid_block, *decoder.up_blocks):
                block.compile()

    def _adam(self, name: str) -> torch.optim.AdamW:
        rate = self._rate(name)
        betas = (self.settings.beta1, self.settings.beta2)
        return torch.optim.AdamW(self.networks[name].parameters(), rate, betas=betas, weight_decay=0.0)

    def _rate(self, name: str) -> float:
        if name == "autoencoder":
            return self.settings.lr
        assert self.settings.adversarial
        return self.settings.adversarial.lr

    def step(self, pictures: Tensor, seen: int) -> dict[str, Tensor]:
        """Take one step of the autoencoder and, after its start, one of the discriminator; return detached statistics.

        `pictures` is this process's share of the batch, float in [-1, 1], shape (N, C, S, S); `seen` counts all
        pictures before this step. With `accumulation` networks see the share in that many parts, each with an adaptive
        weight of its own.
        """
        whole, parts = len(pictures) * self.world.size, self.settings.accumulation
        noise = normal_noise((whole, *self.latent_shape), self.settings.seed, "posterior", seen)
        noises, reals = self.world.share(noise).to(self.device).chunk(parts), pictures.chunk(parts)
        judged = self._is_judged(seen)
        if judged:
            self.networks["discriminator"].requires_grad_(False)  # the gradient passes through it and stays nowhere
        found = [self._add_gradient(*part, judged) for part in zip(reals, noises, strict=True)]
        self._update("autoencoder", seen, whole)
        statistics = mean_of([statistics for _, statistics in found])
        if judged:
            statistics |= self._discriminator_step(reals, [drawn for drawn, _ in found], seen, whole)
        self.world.average(statistics.values())
        half_life = self.settings.ema_half_life_kimg * 1000
        update_average(self.average, self.autoencoder, ema_decay(whole, seen, half_life, self.settings.ema_rampup))
        return self._complete(statistics)

    def _is_judged(self, seen: int) -> bool:
        adversarial = self.settings.adversarial
        return adversarial is not None and seen >= adversarial.start_kimg * 1000

    def _add_gradient(self, real: Tensor, noise: Tensor, judged: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Add one part's gradient of the autoencoder's loss; return reconstructions, detached, and statistics.

        Losses are taken of a detached copy, and their gradients with respect to it then pass through the decoder once.
        """
        with self.accelerator.autocast():
            posterior, drawn = self.reconstruct(real, noise)
        nats = divergence(posterior)
        weighted = self.settings.kl_weight * nats / real[0].numel()
        copy = drawn.detach().requires_grad_()
        with self.accelerator.autocast():
            loss, statistics = self.reconstruction(copy, real)
        (gradient,) = torch.autograd.grad(loss, copy)
        statistics |= {"loss": (loss + weighted).detach(), "kl": nats.detach()}
        statistics["psnr"] = psnr(copy.detach(), real).mean()
        if judged:
            added, judgement = self._adversarial_gradient(copy, drawn, gradient)
            gradient, statistics = gradient + added, statistics | judgement
        share = 1 / self.settings.accumulation
        torch.autograd.backward([drawn, weighted], [gradient * share, torch.full_like(weighted, share)])
        return copy.detach(), statistics

    def reconstruct(self, pictures: Tensor, noise: Tensor) -> tuple["DiagonalGaussianDistribution", Tensor]:
        """Return the posterior and the picture, float32, that is decoded from mean + std * noise."""
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        encoded = self.autoencoder.encode(pictures, return_dict=False)[0]
        posterior = DiagonalGaussianDistribution(encoded.parameters.float())
        latent = posterior.mean + posterior.std * noise
        return posterior, self.autoencoder.decode(latent, return_dict=False)[0].float()

    def _adversarial_gradient(self, copy: Tensor, drawn: Tensor, gradient: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the adversarial loss's gradient at the reconstruction, weighted; `gradient` is the reconstruction's.

        Both are carried on to the last layer's weight, and averaged over processes, to compare their norms.
        """
        with self.accelerator.autocast():
            loss = hinge_generator(self.networks["discriminator"](copy).float())
        (added,) = torch.autograd.grad(loss, copy)
        last = self.autoencoder.decoder.conv_out.weight
        norms = [torch.autograd.grad(drawn, last, g, retain_graph=True)[0] for g in (gradient, added)]
        self.world.average(norms)
        adaptive = adaptive_weight(*norms)
        assert self.settings.adversarial
        weight = self.settings.adversarial.weight * adaptive
        return weight * added, {"loss_adversarial": loss.detach(), "adaptive_weight": adaptive}

    def _discriminator_step(
        self, reals: Sequence[Tensor], drawn: list[Tensor], seen: int, whole: int
    ) -> dict[str, Tensor]:
        self.networks["discriminator"].requires_grad_(True)
        found = mean_of([self._judge(*part) for part in zip(reals, drawn, strict=True)])
        self._update("discriminator", seen, whole)
        return found

    def _judge(self, real: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """Add one part's gradient of the discriminator's loss; return the part's statistics."""
        with self.accelerator.autocast():
            real_logits, fake_logits = (self.networks["discriminator"](part).float() for part in (real, drawn))
        loss = hinge_discriminator(real_logits, fake_logits, 0.0)
        (loss / self.settings.accumulation).backward()
        return {
            "loss_discriminator": loss.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
        }

    def _update(self, name: str, seen: int, whole: int) -> None:
        """Step one network's optimizer by the gradient added so far, averaged over all processes."""
        optimizer = self.optimizers[name]
        self.world.average_gradients(self.networks[name])
        warm = min(1.0, (seen + whole) / max(self.settings.warmup_kimg * 1000, 1e-9))
        for group in optimizer.param_groups:
            group["lr"] = self._rate(name) * warm
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _complete(self, statistics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fill in what the discriminator has no say in yet."""
        names = ADVERSARIAL if self.settings.adversarial else ()
        return {name: torch.zeros((), device=self.device) for name in names} | statistics

    def _all_networks(self) -> dict[str, nn.Module]:
        return {**self.networks, "average": self.average}

    def export_state(self, seen: int, values: dict[str, Any]) -> TrainingState:
        """Collect networks, average and optimizers after `seen` pictures."""
        tensors = {f"{n}/{key}": t for n, net in self._all_networks().items() for key, t in net.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= flatten_optimizer(f"adam_{name}", optimizer.state_dict())
        return TrainingState(seen, tensors, values)

    def restore(self, state: TrainingState) -> None:
        """Put a state's networks, average and optimizers back."""
        for name, network in self._all_networks().items():
            prefix = f"{name}/"
            mine = {k.removeprefix(prefix): t for k, t in state.tensors.items() if k.startswith(prefix)}
            network.load_state_dict(mine)
        for name, optimizer in self.optimizers.items():
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict(unflatten_optimizer(f"adam_{name}", state.tensors, groups))


def mean_of(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the means of several parts' statistics."""
    return {key: torch.stack([part[key] for part in found]).mean() for key in found[0]}
