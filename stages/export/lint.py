"""What an exported graph must not hold, and what it must be, before anyone runs it."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stages.errors import GateError
from stages.generators.interface import Capabilities
from stages.generators.onnx_messages import messages
from stages.generators.onnx_metadata import expected_input, expected_output

if TYPE_CHECKING:
    import onnx

IR_VERSION = 10  # the newest that onnxruntime 1.18 and later read
GRAPH_NAME = "generator"
IMAGE = "IMAGE"  # ONNX's TypeDenotation document
DENOTATIONS = ("DATA_BATCH", "DATA_CHANNEL", "DATA_FEATURE", "DATA_FEATURE")  # ONNX's DimensionDenotation document


def strip(model: "onnx.ModelProto") -> None:
    """Remove all that tells where and how a graph was traced.

    torch writes stack traces with absolute paths, source lines and class names into every node and value: they leak
    the checkout's place, and make equal networks differ in bytes.
    """
    for message in messages(model):
        fields = message.DESCRIPTOR.fields_by_name
        for name in ("metadata_props", "doc_string"):
            if name in fields:
                message.ClearField(name)
    model.graph.name = GRAPH_NAME
    weights = {tensor.name for tensor in model.graph.initializer}  # their shapes stand in the tensors themselves
    kept = [value for value in model.graph.value_info if value.name not in weights]
    model.graph.ClearField("value_info")
    model.graph.value_info.extend(kept)


def check_shapes(model: "onnx.ModelProto") -> None:
    """Infer all shapes anew and compare them with the tracer's: it can declare a free batch on a graph that fixes it.

    Raises:
        GateError: inference contradicts itself or what the graph declares.
    """
    import onnx

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    bare.graph.ClearField("value_info")
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise GateError(f"the exported graph's shapes contradict each other: {as_line(error)}") from error
    found = {value.name: dimensions(value) for value in (*inferred.value_info, *inferred.output)}
    batch = batch_name(model)
    for value in (*model.graph.output, *model.graph.value_info):
        if contradicts(found.get(value.name), declared(value, batch, found.get(value.name))):
            raise GateError(
                f"the exported graph declares {value.name} as {dimensions(value)}, but it is {found[value.name]}"
            )


def batch_name(model: "onnx.ModelProto") -> str:
    """Return the name of the first input's first dimension."""
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    return str(sizes[0].dim_param) if sizes else ""


def declared(value: "onnx.ValueInfoProto", batch: str, found: list[int | None] | None) -> list[int | None] | None:
    """Return a value's declared dimensions; one that is open, but not the batch, excludes nothing.

    Inside a loop the tracer does not follow every dimension.
    """
    sizes = dimensions(value)
    if sizes is None or found is None or len(sizes) != len(found):
        return sizes
    names = [size.dim_param for size in value.type.tensor_type.shape.dim]
    return [
        known if own is None and name != batch else own for own, known, name in zip(sizes, found, names, strict=True)
    ]


def contradicts(found: list[int | None] | None, declared: list[int | None] | None) -> bool:
    """Tell whether an inferred shape excludes a declared one; a dimension that inference leaves open excludes none."""
    if found is None or declared is None:
        return False
    pairs = zip(found, declared, strict=False)
    return len(found) != len(declared) or any(size is not None and size != other for size, other in pairs)


def mark_as_image(output: "onnx.ValueInfoProto") -> None:
    """Tell a reader of the graph that an output is pictures, and what its dimensions are."""
    output.type.denotation = IMAGE
    for size, denotation in zip(output.type.tensor_type.shape.dim, DENOTATIONS, strict=False):
        size.denotation = denotation


def check(model: "onnx.ModelProto", capabilities: Capabilities, opset: int) -> None:
    """Check versions, dimensions, names and validity.

    Raises:
        GateError: something is not as asked; one line says what.
    """
    import onnx

    check_versions(model, opset)
    check_dimensions(model, capabilities)
    check_shapes(model)
    check_names(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"the exported graph is not valid ONNX: {as_line(error)}") from error


def check_versions(model: "onnx.ModelProto", opset: int) -> None:
    """Check that the graph uses the asked opset, no other operators, and an IR that runtimes in use can read."""
    found = {entry.domain or "ai.onnx": entry.version for entry in model.opset_import}
    if found != {"ai.onnx": opset}:
        raise GateError(f"the exported graph uses operators of {found}; export.opset asks for {{'ai.onnx': {opset}}}")
    if model.ir_version != IR_VERSION:
        raise GateError(f"the exported graph has IR version {model.ir_version}; expected {IR_VERSION}")


def check_dimensions(model: "onnx.ModelProto", capabilities: Capabilities) -> None:
    """Check that only the batch is free and all else is what the generator promises: tracing may fix it in silence."""
    found = {value.name: dimensions(value) for value in model.graph.input}
    wanted = expected_input(capabilities)
    if found != wanted:
        raise GateError(f"the exported graph takes {readable(found)}; expected {readable(wanted)}")
    pictures = [dimensions(value) for value in model.graph.output]
    if pictures != [expected_output(capabilities)]:
        raise GateError(
            f"the exported graph gives {pictures}; expected {[expected_output(capabilities)]} (None: batch)"
        )


def check_names(model: "onnx.ModelProto") -> None:
    """Check that every node has its own name: later conversions, such as to float16, derive names from them."""
    counts = Counter(node.name for node in model.graph.node)
    twice = [name or "(unnamed)" for name, count in counts.items() if count > 1 or not name]
    if twice:
        raise GateError(f"the exported graph has nodes without a name of their own: {', '.join(twice[:5])}")


def dimensions(value: "onnx.ValueInfoProto") -> list[int | None] | None:
    """Return a value's dimensions, None where one is free; None as a whole where the shape is unknown."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]


def as_line(error: Exception) -> str:
    """Return an error's message in one line."""
    return " ".join(str(error).split())


def readable(shapes: Mapping[str, list[int | None] | None]) -> str:
    """Return inputs and their shapes as text."""
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) + " (None: batch)"
