"""Embeddings of training captions: encoded once, by position, the same bits however they are asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stages.errors import GateError, InputError
from stages.generators.diffusion.text import TextEncoder, open_text_encoder
from stages.trainer.denoising.captions import CaptionEmbeddings, check_captions
from tests.unit.test_text_encoder import LENGTH, WIDTH, save_tiny_bert

CAPTIONS = ["a cat", "a smiling face", "a dog", "a cat", "red", "a red dog face"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def encoder(folder: Path) -> TextEncoder:
    return open_text_encoder(str(folder), LENGTH)


@pytest.fixture
def reads(encoder: TextEncoder) -> list[int]:
    """The batch of each call of the network from here on."""
    counts: list[int] = []
    encoder.network.register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return counts


def test_rows_are_the_encoders_embeddings_of_the_pictures_captions(encoder):
    captions = CaptionEmbeddings(CAPTIONS, encoder, "cpu")
    positions = np.array([3, 5, 0, 1])
    embeddings, masks = captions.rows(positions)
    expected, expected_masks = encoder.embed([CAPTIONS[position] for position in positions])
    assert embeddings.shape == (4, LENGTH, WIDTH)
    assert embeddings.dtype == torch.float32
    assert torch.allclose(embeddings, expected, atol=2e-3)  # float16 keeps 11 bits of values up to 4
    assert torch.equal(masks, expected_masks)
    assert torch.equal(embeddings[0], embeddings[2])


def test_the_empty_prompt_has_one_row_of_its_own(encoder):
    captions = CaptionEmbeddings(CAPTIONS, encoder, "cpu")
    embedding, mask = captions.empty()
    expected, expected_mask = encoder.embed([""])
    assert embedding.shape == (1, LENGTH, WIDTH)
    assert torch.allclose(embedding, expected, atol=2e-3)
    assert torch.equal(mask, expected_mask)
    assert not torch.equal(embedding, captions.rows(np.array([0]))[0])


def test_each_distinct_caption_is_encoded_once(encoder, reads):
    captions = CaptionEmbeddings(CAPTIONS * 100, encoder, "cpu", batch=2)
    assert reads == [2, 2, 2]  # five captions and the empty one
    captions.rows(np.arange(600))
    captions.empty()
    assert reads == [2, 2, 2]


def test_beyond_the_memory_limit_each_call_encodes_and_gives_the_same_bits(encoder, reads):
    kept = CaptionEmbeddings(CAPTIONS, encoder, "cpu", batch=4)
    assert kept.stored_bytes == 6 * LENGTH * WIDTH * 2
    before = len(reads)
    called = CaptionEmbeddings(CAPTIONS, encoder, "cpu", batch=4, limit_bytes=kept.stored_bytes - 1)
    assert len(reads) == before
    for positions in ([0, 1, 2, 3, 4, 5], [5, 5, 0], [4], []):
        expected, found = kept.rows(np.array(positions, dtype=int)), called.rows(np.array(positions, dtype=int))
        assert torch.equal(expected[0], found[0])
        assert torch.equal(expected[1], found[1])
    assert torch.equal(kept.empty()[0], called.empty()[0])
    assert reads[before:] == [4, 4, 4, 4, 4]  # two for five captions, one for each call of fewer, none for no rows


def test_a_caption_gives_the_same_bits_whatever_stands_beside_it(encoder):
    shuffled = [*reversed(CAPTIONS), "a face", "cat cat cat", "dog dog dog dog dog"]
    first, _ = CaptionEmbeddings(CAPTIONS, encoder, "cpu", batch=4).rows(np.array([1]))
    other, _ = CaptionEmbeddings(shuffled, encoder, "cpu", batch=4).rows(np.array([4]))
    assert torch.equal(first, other)


def test_pictures_without_captions_are_counted_and_the_first_named(encoder):
    captions = ["a cat", None, "", "a dog", "  "]
    keys = ["one.png", "two.png", "three.png", "four.png", "five.png"]
    with pytest.raises(InputError) as caught:
        CaptionEmbeddings(captions, encoder, "cpu", keys=keys)
    assert str(caught.value) == (
        "3 of 5 training pictures have no caption, which condition: text needs; first: two.png; "
        "add metadata.jsonl or metadata.csv with captions"
    )
    with pytest.raises(InputError, match="first: picture 1;"):
        check_captions(captions)
    assert check_captions(["a", "b"]) == ["a", "b"]


def test_too_long_a_caption_is_told_before_any_is_encoded(encoder, reads):
    with pytest.raises(InputError, match=r'the prompt "z z z z z z z" has 9 tokens; at most 8 fit'):
        CaptionEmbeddings([*CAPTIONS, "z " * 7], encoder, "cpu")
    assert reads == []


def test_embeddings_beyond_float16_are_refused(encoder):
    with torch.no_grad():
        last = next(m for m in reversed([*encoder.network.modules()]) if isinstance(m, torch.nn.LayerNorm))
        last.weight.mul_(1e6)
    with pytest.raises(GateError, match="not finite in float16"):
        CaptionEmbeddings(CAPTIONS, encoder, "cpu")
