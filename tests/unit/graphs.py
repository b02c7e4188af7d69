"""Graphs of single networks, exported as torch does it, beside what torch itself draws."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.export.graph import quiet
from stages.generators.onnx_session import open_session
from stages.networks.layers.spectral import bake_norms

if TYPE_CHECKING:
    import onnx


class Graph(nn.Module):
    """A generator's inputs in the order that a graph has them."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Draw."""
        return self.network(**dict(zip(self.names, inputs, strict=True)))


def given(batch: int, latent: int, classes: int, truncations: tuple[float, ...]) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(batch)
    found = {"latent": torch.randn(batch, latent, generator=random)}
    if classes:
        found["label"] = torch.arange(batch) % classes
    if truncations:
        found["truncation"] = torch.tensor([truncations[number % len(truncations)] for number in range(batch)])
    return found


def assert_parity(
    generator: nn.Module, latent: int, classes: int, truncations: tuple[float, ...] = ()
) -> "onnx.ModelProto":
    """Export a copy, with moments of its own, and compare it at several batches; return its graph."""
    trained = copy.deepcopy(generator)
    for _ in range(10):
        trained(**given(16, latent, classes, ()))  # moments that are none of the first ones
    baked = bake_norms(copy.deepcopy(trained)).eval()
    trained.eval()
    example = given(3, latent, classes, truncations)
    names = list(example)
    options: dict[str, Any] = {
        "opset_version": 20,
        "input_names": names,
        "dynamic_shapes": (tuple({0: torch.export.Dim("batch", min=1)} for _ in names),),
    }
    with quiet():
        program = torch.onnx.export(Graph(baked, names), tuple(example.values()), dynamo=True, verbose=False, **options)
    assert program is not None
    session = open_session(program.model_proto.SerializeToString())
    for batch in (1, 2, 5):
        inputs = given(batch, latent, classes, truncations)
        (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            expected = trained(**inputs).numpy()
        assert found.shape == expected.shape
        assert np.ptp(expected) > 0.1  # there is something to compare
        assert np.abs(found - expected).max() < 1e-5
    assert not any("Random" in node.op_type for node in program.model_proto.graph.node)
    return program.model_proto
