"""The steps of the codes that GANs' speed is measured by, from clones of them: pytorch/examples and NVIDIA's.

The body of pytorch/examples' loop (BSD licence) is executed from its file. NVIDIA's networks and loss are imported from
a clone (licensed for non-commercial use and no part of this project); the phases around them are written anew.
"""

import ast
import copy
import importlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """One system at one size."""

    system: str
    resolution: int
    batch: int
    precision: str = "fp32"
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.system}, {self.resolution} px, batch {self.batch}, {self.precision}"


class Script:
    """Networks and step of examples/dcgan/main.py, taken from the file, which trains as soon as it is imported."""

    def __init__(self, clone: Path, case: Case, pictures: Iterator["Tensor"]) -> None:
        import torch
        from torch import nn, optim

        path = clone / "dcgan" / "main.py"
        if not path.is_file():
            sys.exit(f"--examples {clone}: no dcgan/main.py there; expected a clone of pytorch/examples")
        tree = ast.parse(path.read_text())
        self.pictures, sizes = pictures, {"nz": 100, "ngf": 64, "ndf": 64, "nc": 3}
        self.names: dict[str, Any] = {"torch": torch, "nn": nn, "device": torch.device("cpu"), **sizes}
        kept: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        exec(compile(ast.Module(kept, []), str(path), "exec"), self.names)
        for name, kind in (("netG", "Generator"), ("netD", "Discriminator")):
            network = self.names[kind](1)
            network.main = shortened(network.main, math.log2(64 // case.resolution))
            network.apply(self.names["weights_init"])
            self.names |= {
                name: in_precision(network, case.precision),
                f"optimizer{name[-1]}": optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)),
            }
        self.names |= {"criterion": in_precision(nn.BCELoss(), case.precision), "real_label": 1, "fake_label": 0}
        self.body = compile(ast.Module(step_of(tree), []), str(path), "exec")

    def step(self) -> None:
        """Execute the loop's body."""
        self.names["data"] = (next(self.pictures),)
        exec(self.body, self.names)


def step_of(tree: ast.Module) -> list[ast.stmt]:
    """Return what the script does with a batch, up to the generator's update."""
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For) and "dataloader" in ast.unparse(node.iter)]
    lines = [ast.unparse(statement) for statement in loops[0].body]
    return loops[0].body[: lines.index("optimizerG.step()") + 1]


def shortened(layers: "nn.Sequential", stages: float) -> "nn.Sequential":
    """Return the network of half the resolution for each stage: without the maps of the most channels, at 4 x 4."""
    from torch import nn

    modules: list[Any] = list(layers)
    for _ in range(int(stages)):
        if isinstance(modules[0], nn.ConvTranspose2d):  # the generator begins with 4 x 4
            narrower = modules[3].out_channels
            first = nn.ConvTranspose2d(modules[0].in_channels, narrower, 4, 1, 0, bias=False)
            modules = [first, *modules[4:]]
        else:
            narrower = modules[-5].in_channels
            modules = [*modules[:-5], nn.Conv2d(narrower, 1, 4, 1, 0, bias=False), modules[-1]]
    return nn.Sequential(*modules)


def in_precision(module: "nn.Module", precision: str) -> "nn.Module":
    """Return a module whose forward pass is under autocast where the precision is not float32."""
    import torch

    if precision != "fp32":
        module.forward = torch.autocast("cpu", torch.bfloat16)(module.forward)
    return module


@dataclass(frozen=True)
class Phase:
    """A phase of NVIDIA's training: which gradient, of what, how often."""

    name: str
    network: Any
    optimizer: Any
    every: int


class Reference:
    """NVIDIA's networks and loss, trained in the phases of its training loop, without augmentation."""

    def __init__(self, clone: Path, case: Case, settings: Any, pictures: Iterator["Tensor"]) -> None:
        import torch

        if not (clone / "training" / "loss.py").is_file():
            sys.exit(f"--reference {clone}: no training/loss.py there; expected a clone of stylegan2-ada-pytorch")
        sys.path.insert(0, str(clone))
        networks, losses = (importlib.import_module(f"training.{name}") for name in ("networks", "loss"))
        shape: dict[str, Any] = {"c_dim": 0, "img_resolution": case.resolution, "img_channels": 3}
        width = {"channel_base": settings.channel_base, "channel_max": settings.channel_max}
        self.generator = networks.Generator(
            z_dim=settings.latent,
            w_dim=settings.style_width,
            mapping_kwargs={"num_layers": settings.mapping_layers},
            synthesis_kwargs=width,
            **shape,
        )
        group = {"mbstd_group_size": settings.minibatch_group}
        self.discriminator = networks.Discriminator(epilogue_kwargs=group, **width, **shape)
        for network in (self.generator, self.discriminator):
            network.train().requires_grad_(False)
        self.average = copy.deepcopy(self.generator).eval()
        self.loss = losses.StyleGAN2Loss(
            torch.device("cpu"),
            self.generator.mapping,
            self.generator.synthesis,
            self.discriminator,
            style_mixing_prob=settings.style_mixing,
            r1_gamma=settings.r1_gamma,
            pl_batch_shrink=settings.path_length_shrink,
            pl_decay=settings.path_length_decay,
            pl_weight=settings.path_length,
        )
        self.settings, self.pictures, self.steps, self.phases = settings, pictures, 0, list[Phase]()
        for letter, network, every, rate in (
            ("G", self.generator, settings.path_length_every, settings.generator_lr),
            ("D", self.discriminator, settings.regularise_every, settings.discriminator_lr),
        ):
            c = every / (every + 1)
            adam = torch.optim.Adam(network.parameters(), lr=rate * c, betas=(0.0, settings.beta2**c))
            self.phases += [Phase(f"{letter}main", network, adam, 1), Phase(f"{letter}reg", network, adam, every)]

    def step(self) -> None:
        """Take all phases that are due, then let the average follow."""
        import torch

        real = next(self.pictures)
        latents = torch.randn(len(self.phases), len(real), self.settings.latent)
        for phase, latent in zip(self.phases, latents, strict=True):
            if self.steps % phase.every == 0:
                self._take(phase, real, latent)
        with torch.no_grad():
            decay = 0.5 ** (len(real) / (self.settings.ema_half_life_kimg * 1000))
            for old, new in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                old.copy_(new.lerp(old, decay))
            for old, new in zip(self.average.buffers(), self.generator.buffers(), strict=True):
                old.copy_(new)
        self.steps += 1

    def _take(self, phase: Phase, real: "Tensor", latent: "Tensor") -> None:
        import torch

        phase.optimizer.zero_grad(set_to_none=True)
        phase.network.requires_grad_(True)
        labels = torch.zeros(len(real), 0)
        self.loss.accumulate_gradients(phase.name, real, labels, latent, labels, sync=True, gain=phase.every)
        phase.network.requires_grad_(False)
        for parameter in phase.network.parameters():
            if parameter.grad is not None:
                torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        phase.optimizer.step()
