"""Smaller forms of an exported file: half precision, and int8 convolutions calibrated on the model's own latents.

Inputs and outputs are those of the file itself. Whether a variant draws well enough is for `stages.certify` to say.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import GateError
from stages.export.graph import quiet
from stages.export.lint import check, mark_as_image, strip
from stages.export.packing import pack, sign
from stages.generators.interface import TorchGenerator
from stages.generators.onnx_messages import messages
from stages.generators.onnx_metadata import describe

if TYPE_CHECKING:
    import onnx

CALIBRATION_BATCH, CALIBRATION_BATCHES = 16, 8  # 128 latents: ranges no longer move by more
Inputs = list[dict[str, np.ndarray]]


class NoGainError(Exception):
    """A file has nothing that this variant would change."""


@dataclass(frozen=True)
class Variant:
    """A variant's file and what parity.json says of it; no file where `report` tells why it is left out."""

    data: bytes | None
    report: dict[str, Any]


def build_variants(generator: TorchGenerator, data: bytes, opset: int, names: Sequence[str]) -> dict[str, Variant]:
    """Return variants of an exported file by name; their bytes depend on content alone.

    Raises:
        GateError: a converted graph is not valid, or takes or gives something else than the file.
    """
    inputs = calibration_inputs(generator)
    return {name: build_variant(name, generator, data, opset, inputs) for name in names}


def build_variant(name: str, generator: TorchGenerator, data: bytes, opset: int, inputs: Inputs) -> Variant:
    """Convert, check and describe one variant.

    Raises:
        GateError: as `build_variants`.
    """
    import onnx

    source = onnx.load_model_from_string(data)
    forget_shapes(source)
    try:
        with quiet():
            model = CONVERTERS[name](source, inputs)
    except NoGainError as reason:
        return Variant(None, {"left_out": str(reason)})
    except Exception as error:
        raise GateError(f"the exported graph has no {name} variant: {' '.join(str(error).split())[:300]}") from error
    strip(model)
    mark_as_image(model.graph.output[0])  # converters infer shapes anew, which keeps none of it
    sign(model)
    more = generator.metadata() | {"variant": name}
    onnx.helper.set_model_props(model, describe(generator.capabilities, generator.identity, more))
    try:
        check(model, generator.capabilities, opset)
    except GateError as error:
        raise GateError(f"{name} variant: {error}") from error
    return Variant(*pack(model))


def calibration_inputs(generator: TorchGenerator) -> Inputs:
    """Return batches of the inputs that a user would give: noise of many seeds, classes in turn."""
    whole = generator.export_inputs(CALIBRATION_BATCH * CALIBRATION_BATCHES)
    starts = range(0, CALIBRATION_BATCH * CALIBRATION_BATCHES, CALIBRATION_BATCH)
    return [{name: value[start : start + CALIBRATION_BATCH] for name, value in whole.items()} for start in starts]


def forget_shapes(model: "onnx.ModelProto") -> None:
    """Clear what the tracer noted of inner values: converters derive types from it, and those they are to change."""
    for message in messages(model):
        if "value_info" in message.DESCRIPTOR.fields_by_name:
            message.ClearField("value_info")


def to_half(model: "onnx.ModelProto", inputs: Inputs) -> "onnx.ModelProto":
    """Return the graph in float16 inside, with float32 inputs and outputs."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    OnnxModel(converted).topological_sort()  # the converter appends the casts of inputs behind their readers
    return converted


def to_int8(model: "onnx.ModelProto", inputs: Inputs) -> "onnx.ModelProto":
    """Return the graph with 8-bit convolutions (QDQ, weights per channel), all but the one that makes pictures.

    That one stays float: quantised, it alone costs 14 dB. Transposed convolutions stay, too: they become slower.

    Raises:
        NoGainError: it has no such convolution, or they lie inside a loop, whose values cannot be calibrated.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    if any(node.op_type == "Loop" for node in model.graph.node):
        raise NoGainError("its denoiser runs inside a loop, whose values onnxruntime cannot calibrate")
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    if len(convolutions) < 2:
        raise NoGainError("it has no convolution but the last (transposed ones become slower in 8 bits)")
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.onnx", Path(folder) / "made.onnx"
        onnx.save(model, given)  # a model in memory would be emptied into a file of its own
        quantize_static(
            given,
            made,
            Calibration(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=convolutions[-1:],
        )
        return onnx.load(made)


class Calibration:
    """Batches of inputs as onnxruntime's quantiser reads them."""

    def __init__(self, inputs: Inputs) -> None:
        self.left: Iterator[dict[str, np.ndarray]] = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch, None after the last."""
        return next(self.left, None)


CONVERTERS: dict[str, Callable[["onnx.ModelProto", Inputs], "onnx.ModelProto"]] = {"fp16": to_half, "int8": to_int8}
