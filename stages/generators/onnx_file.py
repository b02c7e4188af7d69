"""An exported ONNX file as a generator: numpy in, numpy out, whatever family it was trained as."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import InputError, StageError
from stages.generators.interface import Generator, Request
from stages.generators.onnx_messages import messages
from stages.generators.onnx_metadata import (
    OUTPUT,
    expected_input,
    expected_output,
    read_capabilities,
    read_identity,
)
from stages.generators.onnx_session import CPU, open_session

if TYPE_CHECKING:
    import onnx
    import onnxruntime

DTYPE = "tensor(float)"
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

    def generate(self, request: Request) -> np.ndarray:
        """Draw pictures, float32, shape (N, C, H, W), in [-1, 1]."""
        drawn: np.ndarray = self.session.run([OUTPUT], {"latent": request.latent, **request.extra})[0]
        return drawn


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
        _check_value(f"input {name}", found[name], dimensions)
    outputs = {value.name: value for value in session.get_outputs()}
    if OUTPUT not in outputs:
        raise ValueError(f"its outputs are {', '.join(outputs)}, not {OUTPUT}")
    _check_value(f"output {OUTPUT}", outputs[OUTPUT], output)


def _check_value(what: str, found: Any, dimensions: list) -> None:
    free = [None if isinstance(size, str) else size for size in found.shape]
    if found.type != DTYPE or free != dimensions:
        wanted = ["batch" if size is None else size for size in dimensions]
        raise ValueError(f"{what} is {found.type} {found.shape}, not {DTYPE} {wanted}")


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
