"""Style mixing: which latents give which layers of which picture of the sheet."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages.dataset import to_uint8
from stages.evaluate.unseen.mixing import COLUMNS, ROWS, crossovers_of, mix_styles
from stages.generators.adversarial import AdversarialGenerator
from stages.generators.interface import Request
from stages.generators.noise import latents
from stages.networks.contract import GeneratorNetwork, MappedGenerator
from tests.unit.stylegan2_networks import config, generator, heard

LAYERS, LATENT = 8, 5


class Bands(MappedGenerator):
    """Draws each style's first number as a row of pixels, the first layer on top; labels shift styles."""

    latent, layers = LATENT, LAYERS

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.scale = nn.Parameter(torch.tensor(0.2))

    def mapping(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return latent * self.scale if label is None else latent * self.scale + 0.1 * (label[:, None] + 1)

    def synthesis(self, styles: Tensor, noise: list[Tensor] | None = None) -> Tensor:
        return styles[:, None, :, :1].expand(-1, 3, -1, LAYERS).clamp(-1, 1)

    def forward(self, latent: Tensor, label: Tensor | None = None, *_: Any) -> Tensor:
        return self.synthesis(self.mapping(latent, label)[:, None].expand(-1, LAYERS, -1))


def opened(network: GeneratorNetwork, resolution: int, names: tuple[str, ...] = ()) -> AdversarialGenerator:
    made = {"family": "bands", "latent": network.latent, "resolution": resolution, "channels": 3, "class_names": names}
    return AdversarialGenerator(network, made)


@pytest.mark.parametrize("names", [(), ("cat", "dog")])
def test_layers_come_from_the_row_up_to_the_crossover_and_from_the_column_below(names: tuple[str, ...]) -> None:
    found = mix_styles(opened(Bands(), LAYERS, names), 64)
    assert found.blocks.shape == (3, 1 + ROWS, 1 + COLUMNS, LAYERS, LAYERS, 3)
    shift = 0.1 if names else 0.0
    levels = to_uint8(np.clip(0.2 * latents(range(ROWS + COLUMNS), (LATENT,))[:, 0] + np.float32(shift), -1, 1))
    for block, crossover in zip(found.blocks, (2, 4, 6), strict=True):
        assert (block[0, 0] == 255).all()
        for row in range(ROWS):
            np.testing.assert_array_equal(block[1 + row, 0, :, 0, 0], levels[row].repeat(LAYERS))
            for column in range(COLUMNS):
                assert (block[0, 1 + column] == levels[ROWS + column]).all()
                drawn = block[1 + row, 1 + column]
                assert (drawn[:crossover] == levels[row]).all()
                assert (drawn[crossover:] == levels[ROWS + column]).all()
    assert found.part["mixing"]["crossovers"] == [2, 4, 6] and found.part["mixing"]["layers"] == LAYERS
    assert found.part["mixing"].get("class") == (names[0] if names else None)


def test_a_stylegan2_s_sheet_holds_what_it_mixes_whatever_the_batch() -> None:
    made = opened(heard(generator(config())), 16)
    found = mix_styles(made, 64)
    np.testing.assert_allclose(found.blocks, mix_styles(made, 5).blocks, atol=1)
    latent = latents(range(ROWS + COLUMNS), (made.capabilities.latent_shape))
    for block, crossover in zip(found.blocks, found.part["mixing"]["crossovers"], strict=True):
        asked = to_uint8(made.mix(latent[2:3], latent[ROWS + 4 : ROWS + 5], crossover))[0]
        np.testing.assert_allclose(block[3, 5], asked.transpose(1, 2, 0), atol=1)
    sources = to_uint8(made.generate(Request(latent, {"truncation": np.ones(len(latent), np.float32)})))
    np.testing.assert_allclose(found.blocks[1, 1:, 0], sources[:ROWS].transpose(0, 2, 3, 1), atol=1)
    assert len(np.unique(found.grid.reshape(len(found.grid) * (1 + COLUMNS), -1), axis=0)) > 50


def test_blocks_stand_below_one_another() -> None:
    found = mix_styles(opened(Bands(), LAYERS), 64)
    assert found.grid.shape == (3 * (1 + ROWS), 1 + COLUMNS, LAYERS, LAYERS, 3)
    np.testing.assert_array_equal(found.grid[1 + ROWS : 2 + 2 * ROWS], found.blocks[1])


def test_generators_without_styles_have_no_sheet() -> None:
    class Plain(GeneratorNetwork):
        latent = LATENT

        def forward(self, *_: Any) -> Tensor:
            raise AssertionError("nothing is drawn")

    found = mix_styles(opened(Plain(), LAYERS), 64)
    assert found.part == {} and not found.blocks.size and not found.grid.size and found.grid.ndim == 5


@pytest.mark.parametrize(("layers", "expected"), [(4, [1, 2, 3]), (8, [2, 4, 6]), (18, [4, 9, 13]), (2, [1])])
def test_styles_change_over_after_each_quarter_of_the_layers(layers: int, expected: list[int]) -> None:
    assert crossovers_of(layers) == expected
