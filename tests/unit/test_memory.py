"""Less memory, the same step: activations computed twice, batches in parts, parts in processes."""

import subprocess
import sys
import types
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stages.networks.contract import DiscriminatorNetwork, GeneratorNetwork
from stages.networks.dcgan import Discriminator, Generator
from stages.ranks import free_port
from stages.settings.gans import DcganSettings
from stages.settings.models import load_preset
from stages.trainer.adversarial.adversaries import Adversaries
from stages.trainer.adversarial.regularisers import zero_centred_penalty
from stages.trainer.augmentation import Policy
from stages.trainer.memory import FrozenMoments, checkpoint_layers
from stages.trainer.world import World

NONE = Policy("none", (), 0.0, False, 0.6, 4, 500, False)
PICTURES = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def twin_discriminators(resolution: int) -> tuple[Discriminator, Discriminator]:
    """Return two equal networks, the second of which keeps less."""
    torch.manual_seed(0)
    plain, sparing = Discriminator(resolution, 3, 8), Discriminator(resolution, 3, 8)
    sparing.load_state_dict(plain.state_dict())
    checkpoint_layers(sparing)
    return plain, sparing


def kept_bytes(network: nn.Module, value: Tensor) -> int:
    """Return the bytes that autograd keeps between forward and backward."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(value).sum().backward()
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    return sum(size for pointer, size in kept.items() if pointer not in weights)


@pytest.mark.parametrize("resolution", [8, 32, 64, 128])
def test_checkpointing_gives_the_same_gradients_and_moments_also_under_r1(resolution: int):
    plain, sparing = twin_discriminators(resolution)
    for network in (plain, sparing):
        real = torch.nn.functional.interpolate(PICTURES[:4], resolution).requires_grad_()
        logits = network(real)
        (logits.mean() + zero_centred_penalty(real, logits)).backward()
    assert_equal_gradients(plain, sparing)


@pytest.mark.parametrize("resolution", [8, 32, 64, 128])
@pytest.mark.parametrize("upsample", ["transposed", "bilinear"])
def test_checkpointing_gives_the_generator_the_same_gradients_and_moments(resolution: int, upsample: str):
    torch.manual_seed(0)
    plain, sparing = Generator(resolution, 3, 16, 4, upsample), Generator(resolution, 3, 16, 4, upsample)
    sparing.load_state_dict(plain.state_dict())
    checkpoint_layers(sparing)
    latent = torch.randn(4, 16)
    for network in (plain, sparing):
        network(latent).square().mean().backward()
    assert_equal_gradients(plain, sparing)


def assert_equal_gradients(plain: nn.Module, sparing: nn.Module) -> None:
    for (name, mine), theirs in zip(plain.named_parameters(), sparing.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad), name
    for (name, moment), other in zip(plain.named_buffers(), sparing.buffers(), strict=True):
        assert torch.equal(moment, other), name


def test_checkpointing_keeps_less():
    torch.manual_seed(0)
    plain, sparing = Generator(64, 3, 16, 8, "bilinear"), Generator(64, 3, 16, 8, "bilinear")
    checkpoint_layers(sparing)
    latent = torch.randn(4, 16)
    assert kept_bytes(sparing, latent) < kept_bytes(plain, latent) / 2


def test_frozen_moments_come_back_and_move_again_afterwards():
    network = nn.Sequential(nn.BatchNorm1d(2))
    with FrozenMoments(network):
        inside = network(torch.tensor([[0.0, 2.0], [2.0, 4.0]]))
    assert torch.allclose(inside, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]), atol=1e-4)  # the batch's own moments
    assert network.state_dict()["0.running_mean"].tolist() == [0, 0]
    network(torch.ones(2, 2))
    assert network.state_dict()["0.num_batches_tracked"] == 1


@pytest.fixture
def normless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family without batch norm, for which parts of a batch add up to the whole exactly."""
    module: Any = types.ModuleType("stages.networks.normless")

    class PlainGenerator(GeneratorNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(16, 48), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))

        def forward(self, latent: Tensor, *others: Any, **more: Any) -> Tensor:
            return self.layers(latent)

    class PlainDiscriminator(DiscriminatorNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.Softplus(), nn.Linear(8, 1), nn.Flatten(0))

        def forward(self, pictures: Tensor, label: Tensor | None = None) -> Tensor:
            return self.layers(pictures)

    module.build_generator, module.build_discriminator = lambda _: PlainGenerator(), lambda _: PlainDiscriminator()
    monkeypatch.setitem(sys.modules, "stages.networks.normless", module)


def trained(accumulation: int, checkpointing: bool) -> dict[str, Tensor]:
    """Return the state after three steps, in so many parts each."""
    preset = load_preset("dcgan") | {"latent": 16, "batch": 8, "accumulation": accumulation, "r1_gamma": 1.0}
    settings = DcganSettings.model_validate(preset | {"checkpointing": checkpointing})
    settings = settings.model_copy(update={"family": "normless"})
    adversaries = Adversaries({}, settings, NONE, World(Accelerator(cpu=True)))
    for step in range(3):
        adversaries.step(PICTURES[:, :, :4, :4].clone(), step * 8)
    return adversaries.export_state(24, {}).tensors


@pytest.mark.parametrize(("accumulation", "checkpointing"), [(2, False), (8, False), (1, True), (4, True)])
def test_parts_of_a_batch_add_up_to_the_whole(normless, accumulation, checkpointing):
    whole, parts = trained(1, False), trained(accumulation, checkpointing)
    assert whole.keys() == parts.keys()
    assert any("exp_avg" in name for name in whole)
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parts[name], rtol=1e-4, atol=1e-6), name


TWO = """
import torch
from stages.trainer.world import World, open_accelerator
world = World(open_accelerator("fp32"))
mine = [torch.full((2, 3), float(world.rank)), torch.tensor([10.0 * world.rank]), torch.tensor(world.rank)]
world.average(mine)
assert mine[0].eq(0.5).all() and mine[1] == 5 and mine[2] == world.rank  # whole numbers stay
assert world.share(torch.arange(6)).tolist() == [[0, 1, 2], [3, 4, 5]][world.rank]
assert world.any(world.rank == 1) and not world.any(False)
world.close()
"""


def test_two_processes_share_average_and_agree():
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = []
    for number in ("0", "1"):
        environment = shared | {"RANK": number, "LOCAL_RANK": number, "GLOO_SOCKET_IFNAME": "lo"}
        processes.append(subprocess.Popen([sys.executable, "-c", TWO], env=environment))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
