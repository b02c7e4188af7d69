"""An exported ONNX file as a generator: numpy in, numpy out, whatever family it was trained as."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import InputError, StageError
from stages.generators.interface import Capabilities, Generator, Request
from stages.generators.onnx_messages import messages
from stages.generators.onnx_metadata import (
    NEGATIVE,
    OUTPUT,
    PREFIX,
    expected_input,
    expected_output,
    input_type,
    read_capabilities,
    read_identity,
)
from stages.generators.onnx_session import CPU, open_session

if TYPE_CHECKING:
    import onnx
    import onnxruntime

    from stages.generators.diffusion.text import PromptTokenizer

FLOAT = "tensor(float)"
MADE_BY = "expected a file that `python -m stages.export NAME` wrote"


class OnnxGenerator(Generator):
    """A generator over one ONNX file; capabilities and identity come from its metadata.

    Raises:
        InputError: the file is absent, corrupt, refers to other files, or is no image generator of this kind; or a
            provider cannot run here.
        ProviderFallbackError: the provider does not run every node.
    """

    def __init__(self, path: Path, providers: Sequence[str] | None = None, threads: int = 0) -> None:
        self.path = path
        data = read_file(path)
        provider = _single(providers)
        with _refused(path):
            self.session = open_session(data, provider, threads)
        found = self.session.get_modelmeta().custom_metadata_map
        try:
            self.capabilities = read_capabilities(found)
            check_signature(self.session, expected_input(self.capabilities), expected_output(self.capabilities))
        except ValueError as error:
            raise InputError(f"{path} is no image generator: {error}; {MADE_BY}") from error
        self.identity = read_identity(found)
        self.guided = "guidance" in expected_input(self.capabilities)
        self.capabilities = replace(self.capabilities, guidance=self.guided)  # of the file, whatever the model can
        self.tokenizer, self.negative = _tokenizer(found, self.capabilities), found.get(f"{PREFIX}negative_prompt", "")

    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1].

        Raises:
            InputError: a prompt is too long.
        """
        drawn: np.ndarray = self.session.run([OUTPUT], self.feed(request))[0]
        return drawn

    def feed(self, request: Request) -> dict[str, np.ndarray]:
        """Return the session's inputs by name; what a request leaves open is the file's default."""
        count, asked = len(request.latent), self.capabilities
        feed = {"latent": request.latent, **request.extra}
        if asked.class_names:
            feed["label"] = request.classes(asked)
        if asked.truncation:
            feed["truncation"] = request.truncations(asked)
        if self.tokenizer:
            feed |= self.tokenizer.encode(list(request.prompts) or [""] * count)
            if self.guided:
                negative = self.negative if request.negative is None else request.negative
                tokens = self.tokenizer.encode([negative] * count)
                feed |= {f"{NEGATIVE}{name}": value for name, value in tokens.items()}
        if self.guided:
            guidance = asked.default_guidance if request.guidance is None else request.guidance
            feed["guidance"] = np.full(count, guidance, np.float32)
        return feed

    def resampled(self, steps: int | None, sampler: str | None) -> "Generator":
        """Return this file; its steps were fixed at export.

        Raises:
            InputError: other steps or a sampler are asked for.
        """
        if sampler is None and steps in (None, self.capabilities.steps):
            return self
        raise InputError(f"{self.path} draws in {self.capabilities.steps or 1} steps, fixed at export; leave steps out")


def _tokenizer(found: dict[str, str], capabilities: Capabilities) -> "PromptTokenizer | None":
    if not capabilities.prompt:
        return None
    from stages.generators.diffusion.text import PromptTokenizer

    return PromptTokenizer.from_json(found[f"{PREFIX}tokenizer"], capabilities.prompt_length)


def read_file(path: Path) -> bytes:
    """Read a file whole, once, so that what was checked is what is run.

    Raises:
        InputError: it is absent, no ONNX file, or keeps tensors in other files, which could lie anywhere.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; {MADE_BY}") from error
    if names := external_tensors(parse(data, path)):
        raise InputError(f"{path} keeps {names[0]} in another file; expected one file that holds all its weights")
    return data


def parse(data: bytes, path: Path) -> "onnx.ModelProto":
    """Parse a file's bytes without following references to other files."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise InputError(f"{path} is not a whole ONNX file ({len(data)} bytes); export it again") from error
    if not model.graph.node:
        raise InputError(f"{path} holds no ONNX graph ({len(data)} bytes); {MADE_BY}")
    return model


def external_tensors(model: "onnx.ModelProto") -> list[str]:
    """Return the names of tensors that lie in other files, those inside of nodes and functions included."""
    from onnx import TensorProto

    tensors = (message for message in messages(model) if isinstance(message, TensorProto))
    return [t.name or "a constant" for t in tensors if t.data_location == TensorProto.EXTERNAL]


def check_signature(session: "onnxruntime.InferenceSession", inputs: dict[str, list], output: list) -> None:
    """Compare what a session takes and gives with what the metadata promise.

    Raises:
        ValueError: a name, type or dimension differs.
    """
    found = {value.name: value for value in session.get_inputs()}
    if list(found) != list(inputs):
        raise ValueError(f"its inputs are {', '.join(found) or 'none'}, not {', '.join(inputs)}")
    for name, dimensions in inputs.items():
        _check_value(f"input {name}", found[name], dimensions, input_type(name))
    outputs = {value.name: value for value in session.get_outputs()}
    if OUTPUT not in outputs:
        raise ValueError(f"its outputs are {', '.join(outputs)}, not {OUTPUT}")
    _check_value(f"output {OUTPUT}", outputs[OUTPUT], output, FLOAT)


def _check_value(what: str, found: Any, dimensions: list, dtype: str) -> None:
    free = [None if isinstance(size, str) else size for size in found.shape]
    if found.type != dtype or free != dimensions:
        wanted = ["batch" if size is None else size for size in dimensions]
        raise ValueError(f"{what} is {found.type} {found.shape}, not {dtype} {wanted}")


def _single(providers: Sequence[str] | None) -> str:
    names = [CPU] if providers is None else list(providers)
    if len(names) != 1:
        raise InputError(f"providers is {names}; expected one: a list would hide which of them runs a node")
    return names[0]


@contextlib.contextmanager
def _refused(path: Path) -> Any:
    """Turn ONNX Runtime's own errors into one line; those of `open_session` pass."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        line = " ".join(str(error).split())
        raise InputError(f"{path} cannot be run: {line}; {MADE_BY}") from error
