"""Traces a generator's network to ONNX with a batch of any size."""

import contextlib
import inspect
import io
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stages.errors import GateError
from stages.generators.interface import TorchGenerator
from stages.generators.onnx_metadata import OUTPUT

if TYPE_CHECKING:
    import onnx
    from torch import nn

BATCH = "batch"
EXAMPLE_BATCH = 3  # not 1, which tracing takes for a constant, and no size that a network is likely to hold


def trace(generator: TorchGenerator, opset: int) -> "onnx.ModelProto":
    """Return the network as one graph with the batch as its only free dimension.

    Raises:
        GateError: torch cannot express the network in this opset with a free batch.
    """
    import torch

    examples = {name: torch.from_numpy(value) for name, value in generator.export_inputs(EXAMPLE_BATCH).items()}
    network = generator.export_network().cpu().eval()  # the CPU has no TF32, which would change folded constants
    free = [{0: torch.export.Dim(BATCH, min=1)}] * len(examples)
    with quiet() as noise:
        try:
            program = torch.onnx.export(
                network,
                tuple(examples.values()),
                dynamo=True,
                opset_version=opset,
                external_data=False,
                input_names=list(examples),
                output_names=[OUTPUT],
                dynamic_shapes=as_forward_takes(network, free),
                verbose=False,
            )
        except Exception as error:
            print(noise.getvalue(), error, sep="\n", file=sys.__stderr__)
            raise GateError(
                f"torch cannot export family {generator.capabilities.family} to opset {opset} with a free batch "
                f"({root_cause(error)}); its report stands above"
            ) from error
    if program is None:
        raise GateError(f"torch exported nothing for family {generator.capabilities.family}")
    model: onnx.ModelProto = program.model_proto
    return model


def as_forward_takes(network: "nn.Module", shapes: list[dict[int, Any]]) -> tuple[Any, ...]:
    """Return one entry for each parameter of `forward`, which has those of a `*` parameter together in a tuple."""
    parameters = inspect.signature(network.forward).parameters.values()
    named = sum(parameter.kind is not inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    return (*shapes[:named], tuple(shapes[named:])) if named < len(shapes) else tuple(shapes)


def root_cause(error: BaseException) -> str:
    """Return one line for an exporter's error, of the first error that led to it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Keep the exporter's prints and warnings out of the stage's output; yields them for a report of a failure."""
    noise = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
        warnings.simplefilter("ignore")
        yield noise
