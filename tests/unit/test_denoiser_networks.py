"""Denoisers as they are built from settings: shapes, conditions, and less memory or time for the same gradients."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from stages.generators.diffusion.layout import write_pipeline
from stages.networks.diffusion import Denoiser, build_denoiser, load_denoiser
from stages.trainer.world import World
from tests.unit.denoising import ANCESTRAL, gradients_of, open_tiny, random_pictures, write_images
from tests.unit.shapes import NAMES

SHAPE = {"latent_shape": [4, 8, 8], "class_names": ["a", "b"], "text_width": 12}
ALL = np.arange(8)
UNET: dict[str, Any] = {
    "denoiser": "unet",
    "condition": "none",
    "widths": [8, 16],
    "layers": 1,
    "attention": [False, True],
    "head_width": 8,
    "heads": 2,
    "patch": 2,
    "dropout": 0.0,
}
DIT = {"denoiser": "dit", "layers": 2}
DIFFUSERS = {"family": "diffusion", "schedule": "linear", "zero_terminal_snr": False, "sampler": "flow_euler"}


def built(**changes: Any) -> Denoiser:
    torch.manual_seed(0)
    return build_denoiser(UNET | SHAPE | changes)


def told_of(condition: str, batch: int) -> tuple[Tensor, ...]:
    """Return a condition for each of a batch: the second picture has none where that can be said."""
    if condition == "text":
        embeddings = torch.randn(batch, 5, 12, generator=torch.Generator().manual_seed(1))
        return embeddings, torch.arange(5).lt(torch.arange(batch)[:, None] + 1)
    return (torch.tensor([0, 2, 1, 0][:batch]),) if condition == "class" else ()


EVERY = [(UNET, "none"), (UNET, "class"), (UNET, "text"), (DIT, "none"), (DIT, "class")]


@pytest.mark.parametrize(("kind", "condition"), EVERY)
@pytest.mark.parametrize("side", [8, 16])
def test_every_denoiser_gives_the_shape_it_takes(kind, condition, side):
    denoiser = built(**kind | {"condition": condition, "latent_shape": [4, side, side]})
    sample = torch.randn(3, 4, side, side)
    out = denoiser(sample, torch.tensor([0.0, 333.3, 999.0]), *told_of(condition, 3))
    assert out.shape == sample.shape
    assert torch.isfinite(out).all()


@pytest.mark.parametrize(("kind", "condition"), EVERY)
def test_a_picture_depends_on_its_own_time_and_condition_alone(kind, condition):
    """And on both of them: what is told to one picture of a batch changes that picture only."""
    denoiser = built(**kind | {"condition": condition}).eval()
    for parameter in denoiser.parameters():  # a diffusion transformer starts as zero
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.2
    sample, times = torch.randn(2, 4, 8, 8), torch.tensor([100.0, 700.0])
    told = told_of(condition, 2)
    before = denoiser(sample, times, *told)
    after = denoiser(sample, torch.tensor([100.0, 701.0]), *told)
    assert torch.allclose(before[0], after[0], atol=1e-6)
    assert (before[1] - after[1]).abs().max() > 1e-4
    if told:
        opposite = told[0] * torch.tensor([1.0, -1.0])[:, None, None] if condition == "text" else told[0].roll(1, 0)
        changed = denoiser(sample, times, opposite, *told[1:])
        assert (before[1] - changed[1]).abs().max() > 1e-4
    if condition == "text":
        assert torch.allclose(before[0], changed[0], atol=1e-6)


def test_tokens_behind_the_mask_are_not_read():
    denoiser = built(condition="text").eval()
    embeddings, mask = told_of("text", 2)
    sample, times = torch.randn(2, 4, 8, 8), torch.tensor([100.0, 700.0])
    hidden = embeddings + (~mask)[:, :, None] * 5.0
    assert torch.allclose(denoiser(sample, times, embeddings, mask), denoiser(sample, times, hidden, mask), atol=1e-5)
    shown = embeddings + mask[:, :, None] * 5.0
    assert not torch.allclose(
        denoiser(sample, times, embeddings, mask), denoiser(sample, times, shown, mask), atol=1e-3
    )


def test_classes_have_one_label_more_for_none():
    assert built(condition="class").network.class_embedding.num_embeddings == 3
    transformer = built(**DIT | {"condition": "class"}).network
    tables = {m.num_embeddings for m in transformer.modules() if isinstance(m, torch.nn.Embedding)}
    assert tables == {3}


def test_a_transformer_hides_no_labels_by_itself():
    """Diffusers' own hiding would draw from torch's global numbers, and hide what the settings want shown."""
    denoiser = built(**DIT | {"condition": "class"}).train()
    for parameter in denoiser.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.2
    sample, times, labels = torch.randn(64, 4, 8, 8), torch.full((64,), 9.0), torch.ones(64, dtype=torch.long)
    first = denoiser(sample, times, labels)
    assert all(torch.equal(first, denoiser(sample, times, labels)) for _ in range(3))


@pytest.mark.parametrize(("kind", "condition"), EVERY)
def test_a_saved_denoiser_comes_back_the_same_from_the_folder_diffusers_reads(kind, condition, tmp_path):
    import diffusers

    config = UNET | SHAPE | DIFFUSERS | kind | {"condition": condition, "prediction": "flow"}
    config |= {"steps": 4, "guidance": 1.0, "condition_dropout": 0.1, "text": {"negative": "", "length": 8}}
    denoiser = built(**config).eval()
    files = write_pipeline(tmp_path, denoiser, None, None, config)
    (folder,) = {Path(name).parts[0] for name in files}
    assert (tmp_path / "scheduler" / "scheduler_config.json").is_file()
    sample, times = torch.randn(2, 4, 8, 8), torch.tensor([100.0, 700.0])
    expected = denoiser(sample, times, *told_of(condition, 2))
    assert torch.equal(load_denoiser(tmp_path, config).eval()(sample, times, *told_of(condition, 2)), expected)
    stock = getattr(diffusers, type(denoiser.network).__name__).from_pretrained(tmp_path / folder)
    assert folder == ("transformer" if kind is DIT else "unet")
    assert all(torch.equal(a, b) for a, b in zip(stock.parameters(), denoiser.network.parameters(), strict=True))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    return write_images(folder, random_pictures(16), [number % 3 for number in range(16)], NAMES)


def assert_close(expected: dict[str, Tensor], found: dict[str, Tensor], bound: float) -> None:
    assert expected.keys() == found.keys()
    assert max(gradient.abs().max().item() for gradient in expected.values()) > 0.05
    assert max((expected[name] - found[name]).abs().max().item() for name in expected) <= bound


CASES = [{}, ANCESTRAL, {"condition": "class"}, DIT | {"condition": "class", "heads": 2}]


@pytest.mark.parametrize("changes", CASES)
@pytest.mark.parametrize("parts", [2, 8])
def test_parts_of_a_batch_add_up_to_the_gradients_of_the_whole(images, changes, parts):
    whole = gradients_of(open_tiny(images, clip=0, **changes), ALL)
    assert_close(whole, gradients_of(open_tiny(images, clip=0, accumulation=parts, **changes), ALL), 1e-6)


@pytest.mark.parametrize("changes", [*CASES, {"dropout": 0.3}])
def test_activations_that_are_computed_twice_give_the_same_gradients(images, changes):
    plain, sparing = open_tiny(images, clip=0, **changes), open_tiny(images, clip=0, checkpointing=True, **changes)
    assert sparing.denoiser.network.is_gradient_checkpointing
    assert_close(gradients_of(plain, ALL), gradients_of(sparing, ALL), 0.0)


def test_dropout_hides_something_and_always_the_same(images):
    first, second = (gradients_of(open_tiny(images, clip=0, dropout=0.3), ALL, 8) for _ in range(2))
    assert_close(first, second, 0.0)
    other = gradients_of(open_tiny(images, clip=0), ALL, 8)
    assert max((first[name] - other[name]).abs().max().item() for name in first) > 1e-3


@pytest.fixture
def open_bf16() -> Iterator[Callable[[], World]]:
    """Open a world whose networks run in bfloat16; accelerate keeps one precision for a whole process."""

    def open_world() -> World:
        AcceleratorState._reset_state(True)
        return World(Accelerator(cpu=True, mixed_precision="bf16"))

    yield open_world
    AcceleratorState._reset_state(True)


def test_bfloat16_trains_near_float32_and_keeps_its_weights_in_float32(images, open_bf16):
    exact = gradients_of(open_tiny(images, clip=0), ALL)
    learner = open_tiny(images, open_bf16(), clip=0, precision="bf16")
    seen: list[torch.dtype] = []
    learner.denoiser.network.conv_out.register_forward_hook(lambda module, inputs, out: seen.append(out.dtype))
    found = gradients_of(learner, ALL)
    assert seen == [torch.bfloat16]
    assert {tensor.dtype for tensor in (*found.values(), *learner.denoiser.parameters())} == {torch.float32}
    worst = max((exact[name] - found[name]).abs().max().item() for name in exact)
    largest = max(gradient.abs().max().item() for gradient in exact.values())
    assert 0 < worst < 0.1 * largest


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler: no g++ is there")
def test_a_compiled_denoiser_has_the_gradients_of_the_plain_one(images):
    plain = gradients_of(open_tiny(images, clip=0, widths=[8], attention=[False]), ALL)
    compiled = open_tiny(images, clip=0, widths=[8], attention=[False], compile=True)
    assert_close(plain, gradients_of(compiled, ALL), 1e-5)
    compiled.step(ALL, 0)
    assert compiled.draw_grid(2).shape == (2, 3, 8, 8)


def test_a_fresh_transformer_predicts_zero_as_adaln_zero_says():
    sample, times = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 900.0])
    fresh = built(**DIT, condition="class").eval()
    assert torch.equal(fresh(sample, times, torch.tensor([0, 1])), torch.zeros(2, 4, 8, 8))
