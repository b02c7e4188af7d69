"""One adversarial step: pace of the two networks, optimizers, classes, styles, growth, averages, parts of a batch."""

import copy
import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.errors import InputError
from stages.networks.contract import MappedGenerator
from stages.networks.layers.spectral import bake_norms
from stages.trainer.adversarial.adversaries import Adversaries
from stages.trainer.adversarial.inputs import Inputs, draw_pictures, mixed_styles
from stages.trainer.adversarial.standing import measure_moments
from stages.trainer.ema import ema_decay, start_average, update_average
from stages.trainer.loop import TrainingLoop
from stages.trainer.state import StateFolder
from tests.unit.gans import TINY, freeze_updates, game, moved, pictures, shaken, tiny, weights

CLASSES = np.repeat([0, 1, 2], [14, 4, 2])  # 70, 20 and 10 % of the training pictures
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
FAMILIES = ("gan", "cgan", "sngan", "biggan_cifar", "progan", "stylegan2", "r3gan")


def take_steps(players: Adversaries, count: int, start: int = 0, label: Tensor | None = None) -> list[dict]:
    """Train on other pictures at each step; returns each one's statistics."""
    return [players.step(pictures(seed=n), n * 8, label) for n in range(start, start + count)]


def test_the_generator_and_its_average_move_at_every_nth_step_alone():
    players = game("r3gan", discriminator_steps=3)
    before = {name: weights(network) for name, network in players._networks().items()}
    for step in range(2):
        (statistics,) = take_steps(players, 1, step)
        assert not {"loss_generator", "gradient_generator"} & set(statistics)
        assert moved(before["generator"], players.generator) == set()
        assert moved(before["average"], players.average) == set()
        assert moved(before["discriminator"], players.discriminator)
    (statistics,) = take_steps(players, 1, 2)
    assert {"loss_generator", "gradient_generator", "loss_discriminator"} <= set(statistics)
    assert moved(before["generator"], players.generator)
    decay = ema_decay(24, 16, 20, players.settings.ema_rampup)  # all pictures since the last move, of a half-life of 20
    assert decay == pytest.approx(0.5**1.2)
    for name, old in before["average"].items():
        expected = old.lerp(players.generator.state_dict()[name], 1 - decay)
        assert torch.allclose(players.average.state_dict()[name], expected, atol=1e-7), name


def test_each_network_has_a_rate_of_its_own():
    """Adam's first step without momentum moves each weight by the rate, whatever the gradient's size."""
    players = game("r3gan", generator_lr=0.001, discriminator_lr=0.004)
    before = {name: weights(network) for name, network in players._networks().items()}
    take_steps(players, 1)
    for name, rate in (("generator", 0.001), ("discriminator", 0.004)):
        after = players._networks()[name].state_dict()
        largest = max(float((after[key] - old).abs().max()) for key, old in before[name].items())
        assert largest == pytest.approx(rate, rel=1e-3)


def test_lazy_penalties_correct_rates_and_betas():
    """Karras 2020, appendix B: c = k / (k + 1); the generator has path lengths every 4 steps, R1 comes every 16."""
    players = game("stylegan2", beta1=0.5)
    for name, c in (("generator", 4 / 5), ("discriminator", 16 / 17)):
        (group,) = players.optimizers[name].param_groups
        assert group["lr"] == pytest.approx(0.002 * c)
        assert group["betas"] == pytest.approx((0.5**c, 0.99**c))
        assert group["eps"] == 1e-8
    (group,) = game("stylegan2", path_length=0).optimizers["generator"].param_groups
    assert (group["lr"], group["betas"]) == (0.002, (0.0, 0.99))


@pytest.mark.parametrize("preset", ["wgan", "stylegan2", "biggan_cifar", "progan"])
def test_a_restored_state_goes_on_to_the_same_bytes(tmp_path, preset: str):
    labels = CLASSES if preset in ("wgan", "biggan_cifar") else None
    label = None if labels is None else LABELS
    whole, first, second = (game(preset, labels, discriminator_steps=2) for _ in range(3))
    take_steps(whole, 9, label=label)
    take_steps(first, 5, label=label)  # an odd number: in between two steps of the generator
    states = StateFolder(tmp_path)
    states.save(first.export_state(40, {}))
    loaded = states.load_newest(40)
    assert loaded
    second.restore(loaded)
    take_steps(second, 4, 5, label=label)
    expected, found = whole.export_state(72, {}), second.export_state(72, {})
    assert expected.values == found.values
    assert [name for name, tensor in expected.tensors.items() if not torch.equal(tensor, found.tensors[name])] == []
    if preset == "wgan":
        assert isinstance(whole.optimizers["generator"], torch.optim.RMSprop)
        assert any("square_avg" in name for name in found.tensors)
    if preset == "stylegan2":
        assert float(found.tensors["path_length_mean"]) > 0


ANNEALED = {"kimg": 0.1, "lr": 0.00005, "gamma": 0.005, "beta2": 0.99, "ema_half_life_kimg": 5.0}


@pytest.mark.parametrize(("seen", "share"), [(0, 0.0), (25, 0.5 - 0.5 * math.cos(math.pi / 4)), (50, 0.5), (400, 1.0)])
def test_values_are_annealed_by_half_a_cosine(seen: int, share: float):
    players = game("r3gan", anneal=ANNEALED, r2_gamma=0)
    players._follow(seen)
    for name in ("generator", "discriminator"):
        (group,) = players.optimizers[name].param_groups
        assert group["lr"] == pytest.approx(0.0002 + share * (0.00005 - 0.0002))
        assert group["betas"] == pytest.approx((0.0, 0.9 + share * 0.09))
    assert players.gammas == pytest.approx((0.05 + share * (0.005 - 0.05), 0.0))  # what is off stays off
    half_life = players.optimizers.annealed("ema_half_life_kimg", 0.02, seen)
    assert half_life == pytest.approx(0.02 + share * (5 - 0.02))


def test_the_average_follows_by_the_annealed_half_life():
    late, early = (game("r3gan", anneal=ANNEALED) for _ in range(2))
    for players, seen, half_life in ((early, 0, 20), (late, 100, 5000)):
        before = weights(players.average)
        players.step(pictures(), seen)
        decay = 0.5 ** (8 / half_life)
        for name, old in before.items():
            expected = old.lerp(players.generator.state_dict()[name], 1 - decay)
            assert torch.allclose(players.average.state_dict()[name], expected, atol=1e-7), name


@pytest.mark.parametrize("budget", [0.01, 0.1, 0.33, 1.0])
def test_the_batch_ramps_up_and_the_total_is_where_whole_batches_end(budget: float):
    settings = tiny("r3gan", batch=64, batch_start=16, batch_ramp_kimg=0.4, budget_kimg=budget)
    assert [settings.batch_at(seen) for seen in (0, 132, 134, 266, 268, 399, 400, 10**6)] == [
        *(16, 16, 32, 32, 48, 48, 64, 64)
    ]
    assert tiny("r3gan", batch=64).batch_at(0) == 64
    total = TrainingLoop.total.fget(SimpleNamespace(settings=settings))  # type: ignore[attr-defined]
    seen, batch = 0, 0
    while seen < budget * 1000:
        batch = settings.batch_at(seen)
        seen += batch
    assert total == seen
    assert total - batch < budget * 1000


@pytest.mark.parametrize("preset", FAMILIES)
def test_labels_reach_both_networks(preset: str):
    players = shaken(game(preset, CLASSES))
    players._follow(10**6)  # grown, where it grows
    latent = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    other = LABELS.roll(1)
    for network, inputs in ((players.generator, latent), (players.discriminator, pictures())):
        network.eval()
        told, again, otherwise = (network(inputs, label) for label in (LABELS, LABELS, other))
        assert torch.equal(told, again)
        assert (told - otherwise).reshape(8, -1).abs().amax(1).min() > 1e-6, type(network)


def test_real_and_generated_pictures_are_judged_by_their_own_classes():
    """In a step with loss, lazy R1, R2 and gradient penalty, then the generator's loss, which is of pairs."""
    players = game("r3gan", CLASSES, regularise_every=2, gradient_penalty=1.0)
    drawn, judged = list[Tensor](), list[tuple[Tensor, Tensor]]()
    players.generator.register_forward_pre_hook(lambda _, inputs: drawn.append(inputs[1]))
    players.discriminator.register_forward_pre_hook(lambda _, inputs: judged.append(inputs))
    real = pictures()
    players.step(real, 0, LABELS)
    (fake_label,) = drawn
    assert not torch.equal(fake_label, LABELS)
    kinds = ["real" if torch.equal(shown, real) else "other" for shown, _ in judged]
    assert kinds == ["real", "other", "real", "other", "other", "other", "real"]
    between = 4  # pictures between real and generated ones have the real ones' classes
    for number, (_, label) in enumerate(judged):
        assert torch.equal(label, LABELS if kinds[number] == "real" or number == between else fake_label)


def test_generated_classes_are_as_frequent_as_those_of_the_pictures():
    inputs = game("r3gan", CLASSES).inputs
    label = inputs.draw(4000, 0).label
    assert label is not None
    assert (label.bincount() / 4000).tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
    assert not torch.equal(label, cast(Tensor, inputs.draw(4000, 8).label))


def test_styles_change_at_the_crossover_as_often_as_asked():
    players = game("stylegan2", style_mixing=0.75)
    inputs = players.inputs.draw(4000, 0)
    assert inputs.crossover is not None
    counts = inputs.crossover.bincount() / 4000
    assert counts.tolist() == pytest.approx([0, 0.25, 0.25, 0.25, 0.25], abs=0.03)  # of 4 layers; 4: not mixed
    network = cast(MappedGenerator, players.generator.eval())
    first, second = network.mapping(inputs.latent[:50]), network.mapping(cast(Tensor, inputs.second)[:50])
    mine = Inputs(inputs.latent[:50], None, cast(Tensor, inputs.second)[:50], inputs.crossover[:50])
    for style, one, other, crossover in zip(
        mixed_styles(network, mine), first, second, inputs.crossover.tolist(), strict=False
    ):
        expected = [one if layer < crossover else other for layer in range(4)]
        assert torch.equal(style, torch.stack(expected))
    assert game("stylegan2", style_mixing=0).inputs.draw(4, 0).second is None


def test_all_three_networks_grow_with_the_pictures_seen():
    players = game("progan", discriminator_steps=2)  # phases of 16 pictures: 4x4, then fading 8x8 in, then 8x8
    levels = []
    for step in range(5):
        players.step(pictures(), step * 8)
        grown = [network.growth.level.item() for network in players._networks().values()]  # type: ignore[union-attr, operator]
        assert len(set(grown)) == 1
        levels.append(grown[0])
    assert levels == [0, 0, 0, 500, 1000]
    other = game("progan")
    other.restore(players.export_state(40, {}))
    assert {network.growth.level.item() for network in other._networks().values()} == {1000}  # type: ignore[union-attr, operator]


class Buffers(nn.Module):
    """A weight, batch norm, and buffers of other kinds."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), value))
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("mean_style", torch.full((2,), value))
        self.register_buffer("level", torch.tensor(int(value)))


def test_averages_follow_weights_and_moments_and_copy_all_other_buffers():
    average, network = start_average(Buffers(0.0)), Buffers(8.0)
    network.norm.state_dict()["running_mean"].fill_(4.0)
    network.norm.state_dict()["running_var"].fill_(5.0)
    network.norm.state_dict()["num_batches_tracked"].fill_(3)
    update_average(average, network, 0.75)
    found = {name: tensor.flatten().tolist() for name, tensor in average.state_dict().items()}
    assert found["weight"] == [2, 2]
    assert found["norm.running_mean"] == [1, 1]
    assert found["norm.running_var"] == [2, 2]
    assert found["norm.num_batches_tracked"] == [3]
    assert (found["mean_style"], found["level"]) == ([8, 8], [8])


@pytest.mark.parametrize(("preset", "parts"), [("dcgan", 1), ("biggan_cifar", 1), ("dcgan", 2)])
def test_standing_statistics_are_the_plain_mean_over_batches(preset: str, parts: int):
    players = game(preset, CLASSES)
    take_steps(players, 2, label=LABELS)
    network, kept = copy.deepcopy(players.average), weights(players.average)
    measure_moments(network, players.inputs, 8, 3, parts)
    assert not any(module.training for module in network.modules())
    by_hand = copy.deepcopy(players.average)
    seen: dict[str, list[Tensor]] = {}
    for name, module in by_hand.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.register_forward_pre_hook(lambda _, inputs, key=name: seen.setdefault(key, []).append(inputs[0]))
    for number in range(3):
        for part in players.inputs.draw(8, number, "standing statistics").parts(parts):
            draw_pictures(by_hand, part)
    for name, batches in seen.items():
        assert len(batches) == 3 * parts
        mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
        variance = torch.stack([batch.var((0, 2, 3)) for batch in batches]).mean(0)
        found = network.get_submodule(name).state_dict()
        assert torch.allclose(found["running_mean"], mean, atol=1e-6), name
        assert torch.allclose(found["running_var"], variance, rtol=1e-4), name
        assert float((found["running_var"] / kept[f"{name}.running_var"] - 1).abs().max()) > 0.01
        assert network.get_submodule(name).momentum == 0.1
    assert {name.rpartition(".")[2] for name in moved(kept, network)} == {
        *("running_mean", "running_var", "num_batches_tracked")
    }


@pytest.mark.parametrize("preset", ["biggan_cifar", "r3gan"])
def test_baked_norms_draw_the_same_and_leave_the_original_in_training(preset: str):
    players = game(preset, CLASSES, spectral_norm=True)
    take_steps(players, 2, label=LABELS)
    original = players.average if preset == "biggan_cifar" else players.discriminator.eval()
    inputs = torch.randn(8, 8) if preset == "biggan_cifar" else pictures()
    expected = original(inputs, LABELS)
    baked = bake_norms(copy.deepcopy(original))
    assert not [name for name in baked.state_dict() if "parametrizations" in name]
    assert torch.equal(baked(inputs, LABELS), expected)
    assert torch.equal(original(inputs, LABELS), expected)
    before = weights(players.discriminator.train())
    take_steps(players, 1, 2, LABELS)
    assert any(name.endswith("original") for name in moved(before, players.discriminator))
    if preset == "biggan_cifar":
        assert not [name for name in players.shipped({}).state_dict() if "parametrizations" in name]


@pytest.mark.parametrize("preset", ["dcgan", "wgan", "sngan", "progan", "stylegan2", "r3gan"])
def test_frozen_blocks_stay_and_the_others_learn(preset: str):
    frozen = {"weights": "elsewhere", "sha256": "", "freeze_discriminator": 1}
    players = game(preset, transfer=frozen)
    first = next(iter(players.discriminator.blocks))
    before = [parameter.clone() for parameter in first.parameters()]
    others = [parameter for parameter in players.discriminator.parameters() if parameter.requires_grad]
    rest = [parameter.clone() for parameter in others]
    for step in range(2):
        players.step(pictures(), 10**4 + step * 8)  # grown, where it grows
    assert before
    assert all(torch.equal(old, new) for old, new in zip(before, first.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in first.parameters())
    learnt = sum(not torch.equal(old, new) for old, new in zip(rest, others, strict=True))
    assert learnt >= len(rest) / 2  # not all: a critic has no use for a last bias


@pytest.mark.parametrize(("preset", "count"), [("dcgan", 2), ("r3gan", 3)])
def test_more_frozen_blocks_than_leave_anything_to_learn_are_refused(preset: str, count: int):
    """DCGAN's last block is the discriminator's last layer; R3GAN's layers after the blocks go on learning."""
    frozen = {"weights": "elsewhere", "sha256": "", "freeze_discriminator": count}
    with pytest.raises(InputError, match=rf"freeze_discriminator is {count}.* has 2 blocks"):
        game(preset, transfer=frozen)
    game(preset, transfer={**frozen, "freeze_discriminator": count - 1})


LAZY = {"r1_gamma": 2.0, "regularise_every": 2}
PARTS: list[tuple[str, dict[str, Any]]] = [
    ("r3gan", {"r2_gamma": 1.0}),
    ("r3gan", {**LAZY, "r2_gamma": 1.0, "minibatch_kernels": 3, "minibatch_group": 2, "condition": "class"}),
    ("progan", {**LAZY, "minibatch_group": 4}),
    ("progan", {"minibatch_group": 2, "discriminator_steps": 2}),
    ("stylegan2", {**LAZY, "path_length": 0, "minibatch_group": 2}),  # the mean path length follows after each part
]


@pytest.mark.parametrize(("preset", "changes"), PARTS)
def test_two_parts_of_a_batch_give_the_gradients_of_the_whole(preset: str, changes: dict[str, Any]):
    sums: list[dict[str, list[Tensor | None]]] = []
    for parts in (1, 2):
        labels = CLASSES if changes.get("condition") else None
        players = shaken(game(preset, labels, accumulation=parts, **changes))
        found: dict[str, list[Tensor | None]] = {}
        freeze_updates(players, found)
        for seen in (10**4, 10**4 + 8):
            players.step(pictures(seed=seen), seen, None if labels is None else LABELS)
        sums.append(found)
    for name in ("generator", "discriminator"):
        pairs = [(a, b) for a, b in zip(sums[0][name], sums[1][name], strict=True) if a is not None or b is not None]
        largest = max(float(cast(Tensor, a).abs().max()) for a, _ in pairs)
        assert largest > 0
        for one, two in pairs:
            assert float((cast(Tensor, one) - cast(Tensor, two)).abs().max()) <= 1e-6 * max(largest, 1)


def test_compiling_reaches_every_block():
    for preset in ("dcgan", "r3gan"):
        players = game(preset, compile=True, r1_gamma=0, r2_gamma=0)
        for network in (players.generator, players.discriminator):
            compiled = [name for name, module in network.named_modules() if module._compiled_call_impl]
            assert compiled, type(network)
        assert not any(module._compiled_call_impl for module in players.average.modules())


def test_every_family_has_a_tiny_form():
    assert set(TINY) == {"gan", "dcgan", "sngan", "biggan", "progan", "stylegan2", "r3gan"}
