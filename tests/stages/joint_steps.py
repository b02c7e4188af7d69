"""A few adversarial steps as one of several processes: `python -m tests.stages.joint_steps FILE`; see test_ranks_gans.

Writes, as safetensors, the gradients that steps add up to without moving anything, and what real steps lead to.
"""

import sys
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from stages.trainer.adversarial.adversaries import Adversaries
from stages.trainer.augmentation import Policy
from stages.trainer.world import World, open_accelerator
from tests.unit.gans import freeze_updates, game, pictures, shaken

STEPS, BATCH = 4, 8
CLASSES = np.repeat([0, 1, 2], 7)
LABEL = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
ADA = Policy("ada", ("xflip", "brightness"), 0.2, True, 0.6, 2, 0.1, False)
LAZY = {"r1_gamma": 2.0, "regularise_every": 2, "path_length_every": 2}
CASES: dict[str, dict[str, Any]] = {
    "stylegan2": {"preset": "stylegan2", "labels": CLASSES, **LAZY, "minibatch_group": 2},
    "r3gan": {"preset": "r3gan", "labels": CLASSES, "spectral_norm": True, "minibatch_kernels": 2},
    "progan": {"preset": "progan", "minibatch_group": 4, "discriminator_steps": 2},
    "sngan": {"preset": "sngan", "discriminator_steps": 1},
}
SMALL = {"generator_lr": 1e-4, "discriminator_lr": 1e-4}


def main() -> None:
    """Take the steps of each case and write what came of them."""
    world = World(open_accelerator("fp32"))
    torch.set_num_threads(1)
    found: dict[str, Tensor] = {}
    for name, case in CASES.items():
        found |= {f"{name}/gradients/{key}": value for key, value in gradients(world, case).items()}
        found |= {f"{name}/state/{key}": value for key, value in weights(world, case).items()}
    found["ada/p"] = torch.tensor(adapted(world), dtype=torch.float64)
    found["groups/alone"], found["groups/changed"] = (logits(world, scale) for scale in (1.0, 0.3))
    found |= {f"moments/{key}": value for key, value in moments(world).items()}
    save_file({key: value.detach().contiguous() for key, value in found.items()}, sys.argv[1])
    world.close()


def take(world: World, players: Adversaries) -> None:
    """Take a few steps, each process on its share of a batch."""
    for step in range(STEPS):
        label = None if players.inputs.labels is None else world.share(LABEL)
        players.step(world.share(pictures(BATCH, seed=step)), 40 + step * BATCH, label)


def gradients(world: World, case: dict[str, Any]) -> dict[str, Tensor]:
    """Return the sum of the gradients of all steps, as each process would move its networks by."""
    players, sums = shaken(game(world=world, **case)), dict[str, list[Tensor | None]]()
    freeze_updates(players, sums)
    take(world, players)
    flat = {f"{network}/{number}": value for network, values in sums.items() for number, value in enumerate(values)}
    return {key: value for key, value in flat.items() if value is not None}


def weights(world: World, case: dict[str, Any]) -> dict[str, Tensor]:
    """Return networks, average, optimizers and running means after the steps."""
    players = shaken(game(world=world, **{**case, **SMALL}))
    take(world, players)
    return players.export_state(0, {}).tensors


def adapted(world: World) -> float:
    """Return ADA's p after the steps."""
    players = game("r3gan", policy=ADA, world=world)
    take(world, players)
    return players.augmentation.p


def moments(world: World) -> dict[str, Tensor]:
    """Return running mean and variance of the generator's first batch norm after one step."""
    players = shaken(game("sngan", world=world, discriminator_steps=1))
    players.step(world.share(pictures(BATCH)), 0)
    state = players.generator.blocks[0].norm1.state_dict()  # type: ignore[union-attr]
    return {key: state[key] for key in ("running_mean", "running_var")}


def logits(world: World, scale: float) -> Tensor:
    """Return this process's logits of real pictures, where the second half of the batch is scaled."""
    players, found = shaken(game("stylegan2", world=world, minibatch_group=8)), list[Tensor]()
    players.discriminator.register_forward_hook(lambda _, inputs, output: found.append(output.detach()))
    whole = pictures(BATCH)
    whole[BATCH // 2 :] *= scale
    players.step(world.share(whole), 0)
    return found[0]


if __name__ == "__main__":
    main()
