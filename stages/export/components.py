"""Exports the parts of a generator, each as a graph of its own, and proves that each gives what torch gives."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import GateError
from stages.export.graph import BATCH, EXAMPLE_BATCH, as_forward_takes, quiet, root_cause
from stages.export.lint import as_line, check_names, check_shapes, check_versions, dimensions, readable, strip
from stages.export.packing import pack, sign
from stages.export.parity import BATCHES
from stages.generators.interface import Component, TorchGenerator
from stages.generators.onnx_session import open_session

if TYPE_CHECKING:
    import onnx

FILE = "model.onnx"  # in a folder of the part's name, as diffusers and optimum have it


@dataclass(frozen=True)
class Part:
    """A part's file and what parity.json says of it."""

    data: bytes
    report: dict[str, Any]


def build_components(generator: TorchGenerator, opset: int, tolerance: float) -> dict[str, Part]:
    """Return the parts by the folder each belongs into; their bytes depend on content alone.

    Raises:
        GateError: torch cannot export a part, its graph is not as asked, or it gives something else than torch.
    """
    return {name: build_part(name, found, opset, tolerance) for name, found in generator.components().items()}


def build_part(name: str, component: Component, opset: int, tolerance: float) -> Part:
    """Trace, check and measure one part.

    Raises:
        GateError: as `build_components`.
    """
    model = trace_part(name, component, opset)
    strip(model)
    model.graph.ClearField("value_info")  # of group normalisation torch leaves sizes open that inference finds
    sign(model)
    check_part(name, component, model, opset)
    data, described = pack(model)
    differences = measure_part(name, component, data, tolerance)
    return Part(data, {"max_abs_difference": differences, "tolerance": tolerance, **described})


def trace_part(name: str, component: Component, opset: int) -> "onnx.ModelProto":
    """Return a part as one graph with the first dimension of each input free.

    Raises:
        GateError: torch cannot express it in this opset so.
    """
    import torch

    examples = component.examples(EXAMPLE_BATCH)
    sizes = {given: torch.export.Dim(given, min=1) for given in {BATCH, *component.own_dimension.values()}}
    free = [{0: sizes[component.own_dimension.get(key, BATCH)]} for key in examples]
    with quiet():
        try:
            program = torch.onnx.export(
                component.module.cpu().eval(),
                tuple(torch.from_numpy(value) for value in examples.values()),
                dynamo=True,
                opset_version=opset,
                external_data=False,
                input_names=list(examples),
                output_names=[component.output],
                dynamic_shapes=tuple(shape for shape in as_forward_takes(component.module, free) if shape),
                verbose=False,
            )
        except Exception as error:
            raise GateError(
                f"torch cannot export {name} to opset {opset} with a free batch ({root_cause(error)})"
            ) from error
    if program is None:
        raise GateError(f"torch exported nothing for {name}")
    model: onnx.ModelProto = program.model_proto
    return model


def check_part(name: str, component: Component, model: "onnx.ModelProto", opset: int) -> None:
    """Check versions, dimensions, names and validity.

    Raises:
        GateError: something is not as asked; one line says what.
    """
    import onnx

    check_versions(model, opset)
    check_dimensions(name, component, model)
    check_shapes(model)
    check_names(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"the graph of {name} is not valid ONNX: {as_line(error)}") from error


def check_dimensions(name: str, component: Component, model: "onnx.ModelProto") -> None:
    """Check that inputs are the part's own and free in their first dimension alone, and that its output's batch is.

    Raises:
        GateError: a name or a dimension differs; tracing may fix the batch in silence.
    """
    found = {value.name: dimensions(value) for value in model.graph.input}
    examples = component.examples(EXAMPLE_BATCH)
    wanted: dict[str, list[int | None] | None] = {key: [None, *value.shape[1:]] for key, value in examples.items()}
    if found != wanted:
        raise GateError(f"the graph of {name} takes {readable(found)}; expected {readable(wanted)}")
    given = {value.name: dimensions(value) for value in model.graph.output}
    if list(given) != [component.output] or (given[component.output] or [0])[0] is not None:
        raise GateError(f"the graph of {name} gives {readable(given)}; expected {component.output} with a free batch")


def measure_part(name: str, component: Component, data: bytes, tolerance: float) -> dict[str, float]:
    """Return the largest absolute difference to torch for each batch size.

    Raises:
        GateError: the graph cannot run, or a difference is above the tolerance beside the largest value torch gives.
    """
    try:
        session = open_session(data, threads=1)
    except Exception as error:
        raise GateError(f"onnxruntime cannot open the graph of {name}: {as_line(error)}") from error
    found = {}
    for batch in BATCHES:
        inputs = component.examples(batch)
        try:
            given = session.run(None, inputs)[0]
        except Exception as error:
            raise GateError(f"the graph of {name} cannot run a batch of {batch}: {as_line(error)}") from error
        found[str(batch)] = compare_part(
            f"{name} at batch {batch}", run_with_torch(component, inputs), given, tolerance
        )
    return found


def run_with_torch(component: Component, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Run the part's module on named inputs."""
    import torch

    with torch.inference_mode():
        given: np.ndarray = component.module(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    return given


def compare_part(what: str, expected: np.ndarray, given: np.ndarray, tolerance: float) -> float:
    """Return the largest absolute difference.

    Raises:
        GateError: shapes differ, values are not finite, or the difference is above tolerance * max(1, largest value).
    """
    if given.shape != expected.shape:
        raise GateError(f"{what} gives shape {given.shape}; torch gives {expected.shape}")
    difference = np.abs(given.astype(np.float64) - expected)
    if not np.isfinite(difference).all():
        raise GateError(f"{what} gives values that are not finite; the weights may be damaged")
    largest, allowed = float(difference.max()), tolerance * max(1.0, float(np.abs(expected).max()))
    if largest > allowed:
        raise GateError(f"{what} differs from torch by {largest:.3e}; export.tolerance allows {allowed:.3e} here")
    return largest
