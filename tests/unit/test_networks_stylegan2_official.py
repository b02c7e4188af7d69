"""StyleGAN2's names, shapes and counts of parameters are those of the official stylegan2-ada-pytorch."""

import pytest
import torch

from stages.networks.stylegan2 import build_discriminator, build_generator
from tests.unit.stylegan2_networks import conditional, config, discriminator, generator, shapes

FULL = {"latent": 512, "style_width": 512, "mapping_layers": 8, "channel_base": 32768, "channel_max": 512}


def official_styled(name: str, inputs: int, outputs: int, style: int, size: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.affine.weight": (inputs, style),
        f"{name}.affine.bias": (inputs,),
        f"{name}.weight": (outputs, inputs, 3, 3),
        f"{name}.noise_strength": (),
        f"{name}.bias": (outputs,),
        f"{name}.noise_const": (size, size),
    }


def official_torgb(name: str, inputs: int, channels: int, style: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.affine.weight": (inputs, style),
        f"{name}.affine.bias": (inputs,),
        f"{name}.weight": (channels, inputs, 1, 1),
        f"{name}.bias": (channels,),
    }


def official_synthesis(widths: dict[int, int], style: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of stylegan2-ada-pytorch for the channels of each size."""
    found: dict[str, tuple[int, ...]] = {"synthesis.b4.const": (widths[4], 4, 4)}
    for size, width in widths.items():
        block = f"synthesis.b{size}"
        if size > 4:
            found |= official_styled(f"{block}.conv0", widths[size // 2], width, style, size)
        found |= official_styled(f"{block}.conv1", width, width, style, size)
        found |= official_torgb(f"{block}.torgb", width, 3, style)
    return found


def official_discriminator(widths: dict[int, int]) -> dict[str, tuple[int, ...]]:
    largest, smallest = max(widths), widths[4]
    found: dict[str, tuple[int, ...]] = {
        f"b{largest}.fromrgb.weight": (widths[largest], 3, 1, 1),
        f"b{largest}.fromrgb.bias": (widths[largest],),
    }
    for size, width in widths.items():
        if size > 4:
            after = widths[size // 2]
            found |= {f"b{size}.conv0.weight": (width, width, 3, 3), f"b{size}.conv0.bias": (width,)}
            found |= {f"b{size}.conv1.weight": (after, width, 3, 3), f"b{size}.conv1.bias": (after,)}
            found |= {f"b{size}.skip.weight": (after, width, 1, 1)}
    found |= {"b4.conv.weight": (smallest, smallest + 1, 3, 3), "b4.conv.bias": (smallest,)}
    return found | {"b4.fc.weight": (smallest, smallest * 16), "b4.fc.bias": (smallest,)}


def linear_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def test_a_small_conditional_generator_has_the_official_names_and_shapes():
    expected = official_synthesis({4: 8, 8: 8, 16: 4}, 5) | {"mapping.w_avg": (5,)}
    expected |= linear_shapes("mapping.embed", 3, 5) | linear_shapes("mapping.fc0", 6 + 5, 5)
    expected |= linear_shapes("mapping.fc1", 5, 5)
    assert shapes(generator(conditional())) == expected


def test_a_small_conditional_discriminator_has_the_official_names_and_shapes():
    expected = official_discriminator({4: 8, 8: 8, 16: 4}) | linear_shapes("b4.out", 8, 8)
    expected |= linear_shapes("mapping.embed", 3, 8)
    for number in range(8):
        expected |= linear_shapes(f"mapping.fc{number}", 8, 8)
    assert shapes(discriminator(conditional())) == expected


WIDTHS_1024 = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}


def test_names_and_shapes_at_1024():
    with torch.device("meta"):
        drawing = build_generator(config(resolution=1024, **FULL))
        judging = build_discriminator(config(resolution=1024, **FULL))
    expected = official_synthesis(WIDTHS_1024, 512) | {"mapping.w_avg": (512,)}
    for number in range(8):
        expected |= linear_shapes(f"mapping.fc{number}", 512, 512)
    assert shapes(drawing) == expected
    assert shapes(judging) == official_discriminator(WIDTHS_1024) | linear_shapes("b4.out", 512, 1)


def test_parameters_at_1024_are_as_many_as_in_the_official_logs():
    with torch.device("meta"):
        drawing = build_generator(config(resolution=1024, **FULL))
        judging = build_discriminator(config(resolution=1024, **FULL))
    pairs = [(512, 512)] * 4 + [(512, 256), (256, 128), (128, 64), (64, 32)]

    def styled(inputs: int, outputs: int) -> int:
        return (512 + 1) * inputs + 9 * inputs * outputs + outputs + 1

    def colours(width: int) -> int:
        return (512 + 1) * width + 3 * width + 3

    synthesis = 512 * 16 + styled(512, 512) + colours(512)
    synthesis += sum(styled(i, o) + styled(o, o) + colours(o) for i, o in pairs)
    mapping = 8 * (512 * 512 + 512)
    blocks = sum(9 * o * o + o + 9 * o * i + i + o * i for i, o in pairs)
    epilogue = 9 * 513 * 512 + 512 + 8192 * 512 + 512 + 512 + 1
    assert sum(p.numel() for p in drawing.parameters()) == synthesis + mapping == 30_370_060
    assert sum(p.numel() for p in judging.parameters()) == 3 * 32 + 32 + blocks + epilogue == 29_012_513
    assert sum(b.numel() for name, b in drawing.named_buffers() if "noise" in name) == sum(
        (1 if size == 4 else 2) * size**2 for size in WIDTHS_1024
    )
    assert drawing.layers == 18
    assert len(drawing.noise_shapes) == 17


def test_initial_values_are_the_papers():
    """Karras 2020 a, appendix B: weights N(0, 1), scaled when they are used; styles begin as ones, noise as silence."""
    drawing = generator(config(latent=64, style_width=64, channel_base=1024, channel_max=32))
    for name, parameter in drawing.named_parameters():
        if name.endswith("affine.bias"):
            assert (parameter == 1).all()
        elif name.endswith(("bias", "noise_strength")):
            assert (parameter == 0).all()
        else:
            assert parameter.std().item() == pytest.approx(100 if "mapping" in name else 1, rel=0.2)
    assert (drawing.mapping.w_avg == 0).all()
