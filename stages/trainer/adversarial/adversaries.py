"""One adversarial step, and everything of a GAN's training that a state must hold."""

import contextlib
import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.errors import InputError
from stages.networks.contract import DiscriminatorNetwork, GeneratorNetwork
from stages.networks.layers.spectral import bake_norms
from stages.settings.gans import GanSettings
from stages.trainer.adversarial.inputs import Inputs, InputSource, Part, draw_pictures
from stages.trainer.adversarial.optimizers import Optimizers, trained
from stages.trainer.adversarial.penalties import Judged, PathLength, discriminator_penalty
from stages.trainer.adversarial.regularisers import clip_weights, orthogonality
from stages.trainer.adversarial.standing import measure_moments
from stages.trainer.augmentation import Augmentation, Policy
from stages.trainer.ema import ema_decay, start_average, update_average
from stages.trainer.memory import FrozenMoments, checkpoint_layers
from stages.trainer.objectives import OBJECTIVES
from stages.trainer.order import derive_seed, random_source
from stages.trainer.state import TrainingState
from stages.trainer.world import World

STATISTICS = ("loss_generator", "loss_discriminator", "real_logit", "fake_logit", "real_sign", "fake_sign")
PENALTIES = ("r1", "r2", "gradient_penalty", "path_length")  # where the settings ask for them
NORMS = ("gradient_generator", "gradient_discriminator")
NORM_STEPS = 8  # steps of the generator between looks at the gradients' norms, which cost a pass over all of them


class Adversaries:
    """Generator, discriminator, average and optimizers of one training, on one device.

    `labels` are the training pictures' classes, int64, where the networks take a class.
    """

    def __init__(
        self,
        config: dict[str, Any],
        settings: GanSettings,
        policy: Policy,
        world: World,
        labels: np.ndarray | None = None,
    ) -> None:
        self.settings, self.policy, self.world, self.accelerator = settings, policy, world, world.accelerator
        self.device = world.accelerator.device
        self.augmentation = Augmentation(policy, self.device)
        self.objective = OBJECTIVES[settings.objective]
        family = importlib.import_module(f"stages.networks.{settings.family}")
        torch.manual_seed(settings.seed)  # initial weights are drawn on the CPU: the same on every device
        self.generator: GeneratorNetwork = self._place(family.build_generator(config))
        self.discriminator: DiscriminatorNetwork = self._place(family.build_discriminator(config))
        self.average = start_average(self.generator)
        self.inputs = InputSource(self.generator, world, settings, labels)
        self._save_memory()
        self._freeze()
        self.trained = {name: trained(network) for name, network in self._networks().items()}
        self.optimizers = Optimizers(settings, self.trained)
        self.path_length = PathLength(settings, self.device)
        self.gammas: tuple[float, ...] = (settings.r1_gamma, settings.r2_gamma)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.steps = 0

    def _place(self, network: Any) -> Any:
        return network.to(self.device).to(memory_format=torch.channels_last)

    def _save_memory(self) -> None:
        for network in (self.generator, self.discriminator):
            if self.settings.checkpointing:
                checkpoint_layers(network)
            if self.settings.compile:
                layers = getattr(network, "layers", None)
                for part in [layers] if isinstance(layers, nn.Sequential) else network.blocks:
                    part.compile()

    def _freeze(self) -> None:
        """Let the discriminator's first blocks stay as they are.

        Raises:
            InputError: there are not so many, or nothing would be left to learn.
        """
        blocks, count = list(self.discriminator.blocks), self.settings.transfer.freeze_discriminator
        for block in blocks[:count]:
            block.requires_grad_(False)
        if count > len(blocks) or not trained(self.discriminator):
            raise InputError(
                f"transfer.freeze_discriminator is {count}, but this discriminator has {len(blocks)} blocks; expected "
                "fewer, so that something learns"
            )

    def step(self, real: Tensor, seen: int, label: Tensor | None = None) -> dict[str, Tensor]:
        """Take one step of the discriminator and, where it is due, one of the generator; return detached statistics.

        `real` is this process's share of the batch, float in [-1, 1], shape (N, C, H, W), `label` int64 (N,) on its
        device; `seen` counts all pictures before this step. With `accumulation`, networks see the share in that many
        parts.
        """
        settings, whole = self.settings, len(real) * self.world.size
        self._follow(seen)
        random = random_source(settings.seed, "augment", seen, *([self.world.rank] if self.world.rank else []))
        if settings.dropout:
            torch.manual_seed(derive_seed(settings.seed, "dropout", seen, self.world.rank))
        due = (self.steps + 1) % settings.discriminator_steps == 0
        parts = self._parts(real, label, whole, seen, due)
        statistics = self._discriminator_step(parts, random)
        if due:
            statistics |= self._generator_step(parts, random)
            statistics |= self._path_length_step(whole, seen)
        self._agree(statistics)
        if due:
            self._move_average(whole * settings.discriminator_steps, seen)
        self.augmentation.observe(statistics["real_sign"], whole)
        self.steps += 1
        return statistics

    def _follow(self, seen: int) -> None:
        """Let networks, optimizers and penalties take what belongs to the pictures seen."""
        self.optimizers.follow(seen)
        self.gammas = tuple(
            self.optimizers.gamma(start, seen) for start in (self.settings.r1_gamma, self.settings.r2_gamma)
        )
        for network in (self.generator, self.discriminator, self.average):
            network.grow(seen)

    def _move_average(self, pictures: int, seen: int) -> None:
        half_life = self.optimizers.annealed("ema_half_life_kimg", self.settings.ema_half_life_kimg, seen) * 1000
        update_average(self.average, self.generator, ema_decay(pictures, seen, half_life, self.settings.ema_rampup))

    def _parts(self, real: Tensor, label: Tensor | None, whole: int, seen: int, due: bool) -> list[Part]:
        """Return the parts of a step, with pictures drawn."""
        count = self.settings.accumulation
        labels: Sequence[Tensor | None] = [None] * count if label is None else label.chunk(count)
        shares: Sequence[Tensor | None] = [None] * count
        if self.settings.gradient_penalty:
            drawn = torch.rand(whole, generator=random_source(self.settings.seed, "interpolation", seen))
            shares = self.world.share(drawn).chunk(count)
        inputs = self.inputs.draw(whole, seen).parts(count)
        fakes = [self._draw_fakes(part, due) for part in inputs]
        return [Part(*found) for found in zip(real.chunk(count), labels, inputs, fakes, shares, strict=True)]

    def _draw_fakes(self, inputs: Inputs, due: bool) -> Tensor:
        """Draw pictures for the discriminator's step, with their graph where the generator's step will use them."""
        again = due and self.settings.accumulation > 1
        if due and not again:
            with self.accelerator.autocast():
                return draw_pictures(self.generator, inputs)
        frozen = FrozenMoments(self.generator) if again else contextlib.nullcontext()
        with torch.no_grad(), frozen, self.accelerator.autocast():
            return draw_pictures(self.generator, inputs)

    def _discriminator_step(self, parts: list[Part], random: torch.Generator) -> dict[str, Tensor]:
        lazy = self.settings.regularise_every > 1
        found = [self._judge(part, random, penalised=self.settings.penalised and not lazy) for part in parts]
        norm = self._update("discriminator")
        if lazy and self.steps % self.settings.regularise_every == 0:
            for statistics, part in zip(found, parts, strict=True):
                statistics |= self._penalise(part, random)
            self._update("discriminator", measured=False)
        if self.settings.weight_clip:
            clip_weights(self.discriminator, self.settings.weight_clip)
        return {key: torch.stack([each[key] for each in found]).mean() for key in found[0]} | norm

    def _judge(self, part: Part, random: torch.Generator, penalised: bool) -> dict[str, Tensor]:
        """Add one part's gradient of the discriminator's loss, and of the penalty where each step has it."""
        settings = self.settings
        real = part.real.detach().requires_grad_(penalised and settings.r1_gamma > 0)
        fake = part.fake.detach().requires_grad_(penalised and settings.r2_gamma > 0)
        with self.accelerator.autocast():
            real_logits = self._logits(real, part.label, random)
            fake_logits = self._logits(fake, part.inputs.label, random)
            loss = self.objective.discriminator(real_logits, fake_logits, settings.label_smoothing)
        total, found = loss, dict[str, Tensor]()
        if settings.drift:
            total = total + settings.drift * real_logits.square().mean()
        if penalised:
            judged = Judged(part, real, fake, real_logits, fake_logits)
            penalty, found = discriminator_penalty(self, judged, random)
            total = total + penalty
        self._add_gradient(total)
        return found | {
            "loss_discriminator": loss.detach(),
            "real_logit": real_logits.detach().mean(),
            "fake_logit": fake_logits.detach().mean(),
            "real_sign": real_logits.detach().sign().mean(),
            "fake_sign": fake_logits.detach().sign().mean(),
        }

    def _logits(self, pictures: Tensor, label: Tensor | None, random: torch.Generator) -> Tensor:
        """Return the discriminator's logits of augmented pictures, float32."""
        logits: Tensor = self.discriminator(self.augmentation(pictures, random), label)
        return logits.float()

    def _penalise(self, part: Part, random: torch.Generator) -> dict[str, Tensor]:
        """Add one part's gradient of the penalty alone, as often weighted as steps lie between penalties."""
        real = part.real.detach().requires_grad_(self.settings.r1_gamma > 0)
        fake = part.fake.detach().requires_grad_(self.settings.r2_gamma > 0)
        with self.accelerator.autocast():
            real_logits = self._logits(real, part.label, random) if self.settings.r1_gamma else None
            fake_logits = self._logits(fake, part.inputs.label, random) if self.settings.r2_gamma else None
        judged = Judged(part, real, fake, real_logits, fake_logits)
        penalty, found = discriminator_penalty(self, judged, random)
        self._add_gradient(penalty * self.settings.regularise_every)
        return found

    def _generator_step(self, parts: list[Part], random: torch.Generator) -> dict[str, Tensor]:
        self._require("discriminator", False)  # the gradient passes through it and stops nowhere in it
        losses = []
        for part in parts:
            with self.accelerator.autocast():
                fake = part.fake if self.settings.accumulation == 1 else draw_pictures(self.generator, part.inputs)
                loss = self._generator_loss(self._logits(fake, part.inputs.label, random), part, random)
            orthogonal = self.settings.orthogonal
            self._add_gradient(loss + orthogonal * orthogonality(self.generator) if orthogonal else loss)
            losses.append(loss.detach())
        norm = self._update("generator")
        self._require("discriminator", True)
        return {"loss_generator": torch.stack(losses).mean()} | norm

    def _generator_loss(self, logits: Tensor, part: Part, random: torch.Generator) -> Tensor:
        if not self.objective.paired:
            return self.objective.generator(logits)
        with torch.no_grad():
            real_logits = self._logits(part.real, part.label, random)
        return self.objective.generator(logits, real_logits)

    def _path_length_step(self, whole: int, seen: int) -> dict[str, Tensor]:
        """Take the path length penalty's step where it is due."""
        if not self.path_length.due(self.steps // self.settings.discriminator_steps):
            return {}
        count = self.settings.accumulation
        pictures = self.path_length.pictures(whole, self.world.size * count)
        found = []
        for number, part in enumerate(self.inputs.draw(pictures, seen, "path length").parts(count)):
            loss, length = self.path_length.penalty(self, part, seen, number)
            self._add_gradient(loss)
            found.append(length)
        self._update("generator", measured=False)
        return {"path_length": torch.stack(found).mean()}

    def _require(self, name: str, wanted: bool) -> None:
        for parameter in self.trained[name]:
            parameter.requires_grad_(wanted)

    def _add_gradient(self, loss: Tensor) -> None:
        self.scaler.scale(loss / self.settings.accumulation).backward()

    def _update(self, name: str, measured: bool = True) -> dict[str, Tensor]:
        """Step one network's optimizer by the gradient added so far, averaged over all processes.

        Returns the gradient's norm, of the steps that it is looked at.
        """
        optimizer, norm = self.optimizers[name], dict[str, Tensor]()
        self.world.average_gradients(self._networks()[name])
        if measured and self.steps // self.settings.discriminator_steps % NORM_STEPS == 0:
            if self.scaler.is_enabled():
                self.scaler.unscale_(optimizer)
            gradients = [parameter.grad for parameter in self.trained[name] if parameter.grad is not None]
            total = nn.utils.get_total_norm(gradients)
            if not self.scaler.is_enabled() or bool(torch.isfinite(total)):  # it skips a step that overflows
                norm = {f"gradient_{name}": total}
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def _agree(self, statistics: dict[str, Tensor]) -> None:
        """Make statistics and running moments the means over all processes, whose networks thus stay equal."""
        self.world.average(statistics.values())
        if self.world.size > 1:
            self.world.average([*self.generator.buffers(), *self.discriminator.buffers()])

    @torch.no_grad()
    def draw(self, latent: Tensor, label: Tensor | None = None, average: bool = True) -> Tensor:
        """Draw pictures of the averaged generator, or of the one that is trained, float32 on the CPU, in [-1, 1]."""
        network = self.average if average else self.generator
        network.eval()
        size = max(1, self.settings.batch // (self.world.size * self.settings.accumulation))  # training has room for it
        latents = latent.split(size)
        labels = [None] * len(latents) if label is None else [part.to(self.device) for part in label.split(size)]
        parts = zip(latents, labels, strict=True)
        drawn = [network(part.to(self.device), told).float().cpu() for part, told in parts]
        self.generator.train()
        return torch.cat(drawn)

    def _networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average}

    def export_state(self, seen: int, values: dict[str, Any]) -> TrainingState:
        """Collect networks, average, optimizers, scaler, ADA's p and the path length after `seen` pictures."""
        tensors = {f"{n}/{key}": t for n, net in self._networks().items() for key, t in net.state_dict().items()}
        tensors |= self.optimizers.tensors() | self.path_length.tensors()
        return TrainingState(seen, tensors, {**self._plain_state(), **values})

    def _plain_state(self) -> dict[str, Any]:
        state = {"scaler": self.scaler.state_dict(), "augmentation": self.augmentation.export_state()}
        return state | {"steps": self.steps}

    def restore(self, state: TrainingState) -> None:
        """Put a state's networks, average, optimizers, scaler, ADA's p and the path length back."""
        for name, network in self._networks().items():
            prefix = f"{name}/"
            mine = {k.removeprefix(prefix): t for k, t in state.tensors.items() if k.startswith(prefix)}
            network.load_state_dict(mine)
        self.optimizers.restore(state.tensors)
        self.path_length.restore(state.tensors)
        if state.values["scaler"]:
            self.scaler.load_state_dict(state.values["scaler"])
        self.augmentation.restore(state.values.get("augmentation", {}))  # an adopted state may be of other code
        self.steps = int(state.values.get("steps", 0))

    def shipped(self, best: dict[str, Tensor]) -> nn.Module:
        """Return the averaged generator as it is shipped, or the best snapshot of it, on this device.

        Batch norm's moments are measured anew where the settings ask for it, and spectral norms are in the weights.
        """
        network = start_average(self.average)
        if best:
            network.load_state_dict(best)
        if self.settings.standing_statistics:
            parts = self.settings.accumulation
            measure_moments(network, self.inputs, self.settings.batch, self.settings.standing_statistics, parts)
        return bake_norms(network)
