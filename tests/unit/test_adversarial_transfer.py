"""Starting from another training's weights: what is taken, left and fresh, each by name, and what is refused."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from stages.errors import InputError
from stages.storage import sha256_file, write_json
from stages.trainer.adversarial.adversaries import Adversaries
from stages.trainer.adversarial.learner import save_tensors
from stages.trainer.adversarial.transfer import take_over
from tests.unit.gans import config_of, game, pictures, shaken

THREE, FIVE = np.repeat([0, 1, 2], 7), np.repeat([0, 1, 2, 3, 4], 4)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


def write(folder: Path, players: Adversaries) -> str:
    """Write weights as a training does; returns the sha256 that its config names."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(players.shipped({}).state_dict(), folder / "generator.safetensors")
    save_tensors(players.discriminator.state_dict(), folder / "discriminator.safetensors")
    identity = {"weights": sha256_file(folder / "generator.safetensors")}
    write_json(folder / "config.json", {**config_of(players.settings), "identity": identity})
    return identity["weights"]


def start_from(folder: Path, sha256: str, preset: str, **changes: Any) -> tuple[Adversaries, dict[str, Any]]:
    """Return fresh adversaries that begin with weights, and the report."""
    players = game(preset, transfer={"weights": str(folder), "sha256": sha256}, **changes)
    return players, take_over("models.x", players.settings, players)


def assert_listed(report: dict[str, list[str]], network: nn.Module) -> None:
    """Each of the network's tensors is listed once, as taken or as fresh."""
    assert sorted(report["taken"] + report["initialised"]) == sorted(network.state_dict())


def values(network: nn.Module, names: list[str]) -> list[Tensor]:
    state = network.state_dict()
    return [state[name] for name in names]


def same(network: nn.Module, other: nn.Module, names: list[str]) -> bool:
    pairs = zip(values(network, names), values(other, names), strict=True)
    return all(torch.equal(one, two) for one, two in pairs)


@pytest.mark.parametrize("preset", ["gan", "dcgan", "wgan_gp", "sngan", "progan", "stylegan2", "r3gan"])
def test_equal_networks_take_everything_and_the_average_begins_there(tmp_path, preset: str):
    source = shaken(game(preset))
    players, report = start_from(tmp_path, write(tmp_path, source), preset, seed=5)
    for name, network in (("generator", players.generator), ("discriminator", players.discriminator)):
        assert report[name]["skipped"] == report[name]["initialised"] == []
        assert sorted(report[name]["taken"]) == sorted(network.state_dict())
    names = list(players.generator.state_dict())
    assert same(players.generator, source.average, names)  # the average of the source, which is what is shipped
    assert same(players.average, players.generator, names)
    learnt = [name for name, _ in players.discriminator.named_parameters()]
    assert same(players.discriminator, source.discriminator, learnt)
    players.step(pictures(), 0)


@pytest.mark.parametrize(
    ("preset", "sized"),
    [
        ("sngan", {"generator": "embedding.weight", "discriminator": "head.embedding"}),
        ("progan", {"generator": "classes.weight", "discriminator": "classes.weight"}),
        ("stylegan2", {"generator": "mapping.embed.weight", "discriminator": "mapping.embed.weight"}),
        ("r3gan", {"generator": "classes.weight", "discriminator": "classes.weight"}),
    ],
)
def test_another_number_of_classes_leaves_what_is_of_classes(tmp_path, preset: str, sized: dict[str, str]):
    source = game(preset, THREE)
    players, report = start_from(tmp_path, write(tmp_path, source), preset, labels=FIVE)
    for name, part in sized.items():
        network = getattr(players, name)
        assert_listed(report[name], network)
        assert all(part in fresh for fresh in report[name]["initialised"])
        skipped = [
            f"{fresh} {list(getattr(source, name).state_dict()[fresh].shape)} for " for fresh in sizes(network, part)
        ]
        for line in skipped:
            assert any(found.startswith(line) for found in report[name]["skipped"]), line
        assert len(report[name]["taken"]) > 5
    players.step(pictures(), 0, LABELS)


def sizes(network: nn.Module, part: str) -> list[str]:
    """Names of a network's tensors that hold one row or column for each class."""
    return [name for name in network.state_dict() if part in name and not name.endswith("_v")]


@pytest.mark.parametrize(
    ("preset", "generator", "discriminator", "fresh"),
    [
        ("stylegan2", "synthesis.b8.conv0.weight", {"b8.conv0.weight": "b8.conv0.weight"}, "b16.conv0.weight"),
        (
            "progan",
            "blocks.1.first.weight",
            {"blocks.1.first.weight": "blocks.0.first.weight"},
            "blocks.0.first.weight",
        ),
        (
            "r3gan",
            "blocks.1.1.widen.weight",
            {"blocks.2.0.widen.weight": "blocks.1.0.widen.weight"},
            "blocks.0.0.weight",
        ),
    ],
)
def test_another_resolution_takes_the_blocks_of_the_sizes_that_both_have(
    tmp_path, preset: str, generator: str, discriminator: dict[str, str], fresh: str
):
    """16 px from 8 px: blocks of the same size, whether numbers count from the pictures or from 4x4."""
    wide: dict[str, Any] = {"r3gan": {"widths": [8, 8, 8], "cardinalities": [2, 2, 2]}}.get(preset, {})
    source = shaken(game(preset))
    players, report = start_from(tmp_path, write(tmp_path, source), preset, resolution=16, **wide)
    for name in ("generator", "discriminator"):
        assert_listed(report[name], getattr(players, name))
    assert generator in report["generator"]["taken"]
    assert same(players.generator, source.generator, [generator])
    for mine, theirs in discriminator.items():
        assert mine in report["discriminator"]["taken"]
        assert torch.equal(players.discriminator.state_dict()[mine], source.discriminator.state_dict()[theirs])
    assert fresh in report["discriminator"]["initialised"]
    assert any(name.startswith(("synthesis.b16.", "blocks.2.")) for name in report["generator"]["initialised"])
    for seen in (0, 10**4):
        players.step(pictures(resolution=16), seen)


def test_smaller_pictures_leave_the_blocks_of_larger_ones(tmp_path):
    source = shaken(game("progan", resolution=16))
    players, report = start_from(tmp_path, write(tmp_path, source), "progan")
    assert "blocks.0.first.weight (of larger pictures)" in report["discriminator"]["skipped"]
    assert "blocks.2.first.weight" in report["generator"]["skipped"]
    assert report["discriminator"]["initialised"] == report["generator"]["initialised"] == []
    mine, theirs = players.discriminator.state_dict(), source.discriminator.state_dict()
    for block in (0, 1):
        assert torch.equal(mine[f"blocks.{block}.first.weight"], theirs[f"blocks.{block + 1}.first.weight"])


def test_plain_weights_become_the_weights_below_a_spectral_norm(tmp_path):
    source = shaken(game("r3gan"))
    players, report = start_from(tmp_path, write(tmp_path, source), "r3gan", spectral_norm=True)
    name = "judge.parametrizations.weight.original"
    assert name in report["discriminator"]["taken"]
    assert torch.equal(players.discriminator.state_dict()[name], source.discriminator.state_dict()["judge.weight"])
    assert {fresh.rpartition(".")[2] for fresh in report["discriminator"]["initialised"]} == {"_u", "_v"}
    assert report["generator"]["initialised"] == []
    for name, module in players.discriminator.eval().named_modules():
        if parametrize.is_parametrized(module, "weight"):  # else one power iteration per step would come from far
            norm = torch.linalg.matrix_norm(cast(Tensor, module.weight).flatten(1), 2)
            assert norm.item() == pytest.approx(1, rel=0.1), name


def test_a_generator_with_spectral_norms_is_shipped_plain_and_taken_again(tmp_path):
    source = shaken(game("biggan_cifar", THREE))
    players, report = start_from(tmp_path, write(tmp_path, source), "biggan_cifar", labels=THREE)
    assert report["generator"]["skipped"] == []
    name = "first.parametrizations.weight.original"
    assert name in report["generator"]["taken"]
    assert torch.equal(players.generator.state_dict()[name], source.shipped({}).state_dict()["first.weight"])


def refused(folder: Path, preset: str = "r3gan", sha256: str | None = None, **changes: Any) -> str:
    players = game(preset, transfer={"weights": str(folder), "sha256": sha256}, **changes)
    with pytest.raises(InputError) as caught:
        take_over("models.x", players.settings, players)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_meant_or_not_whole_is_refused_and_told(tmp_path):
    sha256 = write(tmp_path, game("r3gan"))
    assert f"transfer.sha256 is None, but {tmp_path} holds {sha256}" in refused(tmp_path)
    assert f"holds {sha256}; set it to that" in refused(tmp_path, sha256="0" * 64)
    assert "is of family r3gan; progan can start from weights of family progan only" in refused(
        tmp_path, "progan", sha256=sha256
    )
    file = tmp_path / "discriminator.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert "discriminator.safetensors cannot be read" in refused(tmp_path, sha256=sha256)
    file.unlink()
    assert "which lacks discriminator.safetensors; expected such as models/NAME/training/weights" in refused(tmp_path)
    assert "lacks config.json, generator.safetensors, disc" in refused(tmp_path / "nowhere", sha256=sha256)


def test_a_file_that_is_not_its_configs_is_refused(tmp_path):
    sha256 = write(tmp_path, game("r3gan"))
    file = tmp_path / "generator.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert "generator.safetensors has another sha256 than its config" in refused(tmp_path, sha256=sha256)


def test_weights_of_which_nothing_fits_are_refused(tmp_path):
    sha256 = write(tmp_path, game("gan"))
    message = refused(tmp_path, "gan", sha256=sha256, widths=[5, 6])
    assert "models.x.transfer.weights: no weight of" in message
    assert message.endswith("shape of the generator here; it was trained with widths [8, 8], here [5, 6]")
    message = refused(tmp_path, "gan", sha256=sha256, discriminator_widths=[7])
    assert message.endswith("the discriminator here; it was trained with discriminator_widths [8], here [7]")


def test_without_weights_nothing_is_taken():
    players = game("r3gan")
    assert take_over("models.x", players.settings, players) == {}
