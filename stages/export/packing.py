"""A checked graph as the bytes of one file, which depend on content alone, and what they hold."""

from typing import TYPE_CHECKING, Any

from stages.errors import GateError
from stages.storage import sha256_bytes

if TYPE_CHECKING:
    import onnx

PRODUCER = "image-foundry"
PRODUCER_VERSION = "1"  # of the export's own form, not of torch: equal content keeps equal bytes
MAX_BYTES = 2**31 - 1  # protobuf's limit of one message


def sign(model: "onnx.ModelProto") -> None:
    """Write who made a graph in place of torch and its version."""
    model.producer_name, model.producer_version = PRODUCER, PRODUCER_VERSION


def pack(model: "onnx.ModelProto") -> tuple[bytes, dict[str, Any]]:
    """Return a file's bytes and its description.

    Raises:
        GateError: it is too large for one file.
    """
    if model.ByteSize() > MAX_BYTES:
        raise GateError(f"the ONNX file would have {model.ByteSize():,} bytes; one file can hold {MAX_BYTES:,}")
    data = model.SerializeToString(deterministic=True)
    return data, report(model, data)


def report(model: Any, data: bytes) -> dict[str, Any]:
    """Describe a file: size, hash, versions, and what its graph takes and gives."""
    return {
        "bytes": len(data),
        "sha256": sha256_bytes(data),
        "opset": model.opset_import[0].version,
        "ir_version": model.ir_version,
        "nodes": len(model.graph.node),
        "inputs": [describe_value(value) for value in model.graph.input],
        "outputs": [describe_value(value) for value in model.graph.output],
    }


def describe_value(value: Any) -> dict[str, Any]:
    """Return name, shape (the batch by its name) and numpy's name of the type of a graph's input or output."""
    import onnx

    tensor = value.type.tensor_type
    shape = [size.dim_param or size.dim_value for size in tensor.shape.dim]
    return {"name": value.name, "shape": shape, "dtype": onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name}
