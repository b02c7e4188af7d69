"""Exports a generator, proves that the file draws what torch draws, and writes it with the proof beside it."""

from pathlib import Path
from typing import Any

from stages.errors import GateError
from stages.export.graph import trace
from stages.export.lint import check, mark_as_image, strip
from stages.export.parity import measure
from stages.generators.interface import TorchGenerator
from stages.generators.loading import load_trained
from stages.generators.onnx_metadata import describe
from stages.process import STOP
from stages.progress import progress_bar
from stages.settings import ExportSettings
from stages.storage import sha256_bytes, whole_folder, write_bytes, write_json

PRODUCER = "image-foundry"
PRODUCER_VERSION = "1"  # of the export's own form, not of torch: equal content keeps equal bytes
MAX_BYTES = 2**31 - 1  # protobuf's limit of one message


def run(settings: ExportSettings, weights: Path, folder: Path) -> dict[str, Any]:
    """Write model.onnx and parity.json for a weights folder, and return what parity.json holds.

    Raises:
        InputError: the weights are absent or of an unknown family.
        GateError: torch cannot export the network, the graph is not as asked, or its pictures differ from torch's.
    """
    with progress_bar("exporting", total=3, unit="steps") as bar:
        generator = load_trained(weights)
        bar.update()
        data, described = build(generator, settings.opset)
        bar.update()
        tolerance = settings.sampled_tolerance if generator.capabilities.steps else settings.tolerance
        differences = measure(generator, data, tolerance)
        bar.update()
    identity = {"weights": generator.identity.get("weights", "")}
    report = {"identity": identity, "max_abs_difference": differences, "tolerance": tolerance, **described}
    with STOP.defer(), whole_folder(folder) as partial:
        write_bytes(partial / "model.onnx", data)
        write_json(partial / "parity.json", report)
    worst = max(differences.values())
    print(f"{folder / 'model.onnx'}: {len(data):,} bytes, largest difference to torch {worst:.1e}")
    return report


def build(generator: TorchGenerator, opset: int) -> tuple[bytes, dict[str, Any]]:
    """Return the file's bytes, which depend on content alone, and what they hold.

    Raises:
        GateError: torch cannot export the network, or the graph is not as asked.
    """
    import onnx

    model = trace(generator, opset)
    strip(model)
    mark_as_image(model.graph.output[0])
    model.producer_name, model.producer_version = PRODUCER, PRODUCER_VERSION
    onnx.helper.set_model_props(model, describe(generator.capabilities, generator.identity, generator.metadata()))
    check(model, generator.capabilities, opset)
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
